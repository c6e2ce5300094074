"""Zero-shot evaluation of several diseases an eye, each asked by itself."""

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.special
from ml_collections import ConfigDict

from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.metrics import findings as metrics
from vclip_jax.evaluation.metrics import operating
from vclip_jax.evaluation.metrics.predictions import Rows, rows_of
from vclip_jax.evaluation.metrics.thresholds import choose_threshold
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.files.csv_lines import csv_table
from vclip_jax.predict.scorer import Scorer, Variables, class_means
from vclip_jax.prompts.findings import FindingPrompts

FIGURES: Final = ("auc", "average_precision")
"""The macro means that `metrics.jsonl` holds as `eval/NAME/FIGURE`: those without a threshold,
which the last evaluation alone takes from a development split."""
_WORDS: Final = {1: "present", 0: "absent", -1: ""}


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of a model on the findings of one dataset."""

    result: dict[str, Any]
    """The entry of `findings.json`, see `metrics.findings`."""
    table: str
    """The answers as CSV, see `as_csv`; "" without keys."""

    def named(self, task: str) -> dict[str, float]:
        """Return the figures for `metrics.jsonl`, `eval/TASK/FIGURE`."""
        found = {f"eval/{task}/{key}": self.result["macro"][key] for key in FIGURES}
        return {key: value for key, value in found.items() if value is not None}


def truth_of(source: Any) -> npt.NDArray[np.int8]:
    """Return the findings of all records, int8 `[n, k]`: 1 present, 0 absent, -1 not rated."""
    names = source.finding_names
    return np.array([[r["findings"][name] for name in names] for r in source], np.int8)


def evaluate_findings(
    scorer: Scorer,
    variables: Variables,
    task: ZeroShotTask,
    embedded: Embedded,
    config: ConfigDict,
    *,
    keys: bool = True,
    final: bool = False,
    development: Embedded | None = None,
    secret: bytes | None = None,
    intervals: bool = True,
) -> Findings:
    """Score the findings of one dataset; the arguments are those of `evaluate_zero_shot`.

    Without `intervals` nothing is resampled, as for a point of a learning curve.

    The probability of a finding is the sigmoid of the scaled cosine with its presence minus that
    with its absence: the softmax of the two. An answer is "present" from Youden's threshold of the
    development split on, or from 0.5 without one, where too many are called present.
    """
    asked = task.findings
    if asked is None:
        raise ValueError(f"evaluation {task.name} has no findings")
    parts = scorer.prompt_embeddings(variables, asked.prompts)
    contrasts = asked.contrasts(class_means(parts, asked.prompts.renormalise))
    truth, probabilities = truth_of(task.source), _probabilities(variables, embedded, contrasts)
    known: npt.NDArray[np.bool_] = np.any(truth >= 0, axis=1) & embedded.kept(config.gate)
    if not known.any():
        raise ValueError(
            "the gate refuses every photograph with findings: set config.gate='report'"
        )
    rows = rows_of(task.source, task.source.name).only(known) if keys else None
    patients = rows.people if rows is not None else None
    chosen_on = None
    if development is not None:
        kept = development.kept(config.gate)
        answers = _probabilities(variables, development, contrasts)
        chosen_on = answers[kept], truth_of(task.development)[kept]
    result = metrics.findings(
        probabilities[known],
        truth[known],
        asked.names,
        thresholds=None if chosen_on is None else _thresholds(*chosen_on),
        patients=patients,
        resamples=min(config.bootstrap_resamples, metrics.RESAMPLES) if intervals else 0,
    )
    if final:
        _add_points(result, probabilities[known], truth[known], patients, chosen_on)
    result |= {
        "dataset": task.source.name,
        **({"trained_on": task.trained_on} if task.trained_on else {}),
        "prompts": dataclasses.asdict(asked.prompts),
        "chosen_on": task.development_split if development is not None else None,
    }
    if embedded.gate is not None:
        result["gate"] = {
            "refused": int((embedded.gate[(truth >= 0).any(axis=1)] > 0).sum()),
            "excluded": config.gate == "exclude",
        }
    table = ""
    if rows is not None:
        named = rows if secret is None else rows.hidden(secret)
        table = as_csv(named, asked, truth[known], probabilities[known], embedded.reasons(known))
    return Findings(result, table)


def _probabilities(
    variables: Variables, embedded: Embedded, contrasts: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    scale = np.exp(np.float64(variables[0]["logit_scale"]))
    cosines = embedded.images.astype(np.float64) @ contrasts.T.astype(np.float64)
    return np.asarray(scipy.special.expit(scale * cosines))


def _thresholds(
    probabilities: npt.NDArray[np.floating], truth: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Return Youden's threshold of each finding, `[k]`; 0.5 where the split has no two kinds."""
    cuts = []
    for p, its in zip(probabilities.T, truth.T, strict=True):
        positive = its[its >= 0] == 1
        both = 0 < positive.sum() < len(positive)
        cuts.append(choose_threshold(p[its >= 0], positive, "youden") if both else 0.5)
    return np.array(cuts)


def _add_points(
    result: dict[str, Any],
    probabilities: npt.NDArray[np.floating],
    truth: npt.NDArray[np.integer],
    patients: npt.NDArray[np.integer] | None,
    chosen_on: tuple[npt.NDArray[np.floating], npt.NDArray[np.integer]] | None,
) -> None:
    """Add `operating_points` to the rows of findings that have both kinds of images."""
    for k, row in enumerate(result["findings"]):
        rated = truth[:, k] >= 0
        development = None
        if chosen_on is not None:
            its = chosen_on[1][:, k] >= 0
            development = chosen_on[0][its, k], chosen_on[1][its, k] == 1
        both = [truth[rated, k] == 1, *([development[1]] if development else [])]
        if all(0 < one.sum() < len(one) for one in both):
            row["operating_points"] = operating.operating_points(
                probabilities[rated, k],
                both[0],
                development=development,
                patients=None if patients is None else patients[rated],
            )


def as_csv(
    rows: Rows,
    asked: FindingPrompts,
    truth: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
    gate: list[str],
) -> str:
    """Return the answers as `predictions/NAME.csv`.

    The columns are those of `metrics.predictions`, but for each finding `label:FINDING` (present,
    absent, or empty if it was not rated) and `p:FINDING`, the probability that it is present.
    """
    columns: dict[str, Any] = {
        "dataset": [rows.dataset] * len(rows.keys),
        "key": rows.keys,
        **({"patient": rows.patients} if rows.patients else {}),
        **({"gate": gate} if gate else {}),
    }
    for k, name in enumerate(asked.names):
        columns[f"label:{name}"] = [_WORDS[int(value)] for value in truth[:, k]]
        columns[f"p:{name}"] = [str(np.float32(value)) for value in probabilities[:, k]]
    columns |= rows.facts
    return csv_table(columns)
