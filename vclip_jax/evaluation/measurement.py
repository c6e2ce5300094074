"""All measurements of a model, and the files that they are written to."""

import hashlib
import json
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.findings import evaluate_findings
from vclip_jax.evaluation.metrics import predictions
from vclip_jax.evaluation.metrics.table import averaged, format_table, number
from vclip_jax.evaluation.tasks import EVALUATIONS, FINDINGS, ZERO_SHOT, ZeroShotTask
from vclip_jax.evaluation.zero_shot import (
    Pairs,
    embed_images,
    embed_pairs,
    evaluate_pairs,
    evaluate_zero_shot,
    flat_metrics,
    zero_shot_points,
)
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.writing import write_json
from vclip_jax.predict.scorer import Scorer, Variables
from vclip_jax.prompts.calibration import Calibration, matching
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.tracking.pictures import confusion_picture, project
from vclip_jax.tracking.trackers import Trackers

MOST_SECRET = 1 << 16
"""Bytes of the file of `config.predictions_secret`."""
PAIRS_FORMAT = 1
"""The version of the measurement of held-back pairs, a part of `Measurement.evaluation`."""


@dataclass
class Measurement:
    """The evaluations of a model in a workdir; call it with variables and their step."""

    scorer: Scorer
    validation: Any
    """Held-back pairs of the training dataset, or None."""
    tasks: list[ZeroShotTask]
    config: ConfigDict
    workdir: Path
    metrics_log: MetricsLog
    write_report: Callable[[Path], object]
    """A function that rewrites the report of a workdir from the files in it."""
    test: Any = None
    """Test pairs of the training dataset, measured only when a run ends, or None."""
    trackers: Trackers = field(default_factory=Trackers)
    """The trackers to which new pictures and embeddings go."""
    calibrations: tuple[Calibration, ...] = ()
    """The calibrations of the answers of a call, one for each prompt set. Points of learning curves
    are not calibrated."""
    results: dict[str, Any] = field(default_factory=dict)
    """The content of `zero_shot.json`."""
    findings: dict[str, Any] = field(default_factory=dict)
    """The content of `findings.json`."""

    def __call__(self, variables: Variables, step: int, *, final: bool = False) -> None:
        """Measure everything, write the results, and rewrite the report.

        Only the `final` evaluation measures the test pairs, counts the photographs that the gate
        refuses, and draws heat maps.
        """
        lead = jax.process_index() == 0
        values: dict[str, float] = {}
        retrieval: dict[str, Any] = {}
        held_back = None
        self.results.clear()
        self.findings.clear()
        if self.validation is not None:
            held_back = embed_pairs(self.scorer, variables, self.validation, self.config)
            values, retrieval = evaluate_pairs(held_back, variables, self.config)
        if final and self.test is not None:
            tested = embed_pairs(self.scorer, variables, self.test, self.config)
            test_values, test_retrieval = evaluate_pairs(tested, variables, self.config, "test")
            values, retrieval = values | test_values, {**retrieval, "test": test_retrieval}
        figures, pictures, failed = self._measure_tasks(variables, lead=lead, final=final)
        values |= figures | flat_metrics(self.results)
        for result in (*self.results.values(), *self.findings.values()):
            result["step"] = step
        new = self.metrics_log.write(step, values, self.evaluation)
        if self.trackers:
            self._show(step, new, held_back)
        if lead:
            if retrieval:
                write_json(self.workdir / "retrieval.json", retrieval)
            write_json(self.workdir / "zero_shot.json", self.results)
            if self.findings or (self.workdir / "findings.json").exists():
                write_json(self.workdir / "findings.json", self.findings)
            write_json(self.workdir / "examples.json", pictures["examples"])
            write_json(self.workdir / "curves.json", pictures["curves"])
            self.write_report(self.workdir)
        if failed:
            reasons = "; ".join(f"evaluation {name}: {error}" for name, error in failed.items())
            raise ValueError(f"{reasons} (all other results are in {self.workdir})")

    def _measure_tasks(
        self, variables: Variables, *, lead: bool, final: bool
    ) -> tuple[dict[str, float], dict[str, Any], dict[str, Exception]]:
        """Fill `results` and save the answers.

        Returns:
            The figures of recipes' own evaluations; `examples` by task and `curves` by entry; and
            errors by task.
        """
        figures: dict[str, float] = {}
        pictures: dict[str, dict[str, Any]] = {"examples": {}, "curves": {}}
        failed: dict[str, Exception] = {}
        for task, embedded in self._embedded_tasks(variables, final=final):
            try:
                if isinstance(embedded, Exception):
                    raise embedded
                if task.kind == FINDINGS:
                    scored_findings = evaluate_findings(
                        self.scorer,
                        variables,
                        task,
                        embedded,
                        self.config,
                        keys=lead,
                        final=final,
                        development=self._development(variables, task) if final else None,
                        secret=self._secret,
                    )
                    self.findings[task.name] = scored_findings.result
                    figures |= scored_findings.named(task.name)
                    if lead:
                        predictions.save_text(self.workdir, task.name, scored_findings.table)
                    continue
                if task.kind != ZERO_SHOT:
                    figures |= self._own_figures(variables, task, embedded)
                    continue
                scored = evaluate_zero_shot(
                    self.scorer,
                    variables,
                    task,
                    embedded,
                    self.config,
                    keys=lead,
                    heat=final and self.config.heat_maps,
                    final=final,
                    development=self._development(variables, task) if final else None,
                    calibration=matching(self.calibrations, task.prompts),
                    secret=self._secret,
                )
            except (ValueError, OSError) as error:
                failed[task.name] = error
                continue
            self.results.update(scored.results)
            pictures["examples"][task.name] = scored.examples
            pictures["curves"].update(scored.curves)
            for name, answers in scored.predictions.items():
                predictions.save(predictions.path_of(self.workdir, name), answers)
        return figures, pictures, failed

    def _development(self, variables: Variables, task: ZeroShotTask) -> Embedded | None:
        """Embed the images that choose a task's operating points."""
        if task.development is None:
            return None
        other = replace(task, source=task.development)
        return embed_images(self.scorer, variables, other, self.config, count_refused=False)

    @property
    def _secret(self) -> bytes | None:
        """The secret that hides keys in the predictions, from the config's file."""
        path = self.config.predictions_secret
        return read_bytes(path, MOST_SECRET) if path else None

    def _show(self, step: int, new: Container[str], held_back: Pairs | None) -> None:
        """Show the trackers confusion matrices and embeddings whose figures are new in the log."""
        matrices = [
            confusion_picture(name, result["confusion"], result["classes"])
            for name, result in self.results.items()
            if f"eval/{name}/accuracy" in new
        ]
        self.trackers.pictures(step, matrices)
        if held_back is not None and "eval/validation/loss" in new:
            self.trackers.embeddings(
                project("validation", held_back.images, self.validation, self.config)
            )

    def log_points(self, variables: Variables, step: int) -> None:
        """Measure the values of one row of `metrics.jsonl`, and write only this row."""
        values: dict[str, float] = {}
        if self.validation is not None:
            held_back = embed_pairs(self.scorer, variables, self.validation, self.config)
            values, _ = evaluate_pairs(held_back, variables, self.config)
        for task, embedded in self._embedded_tasks(variables, final=False):
            if isinstance(embedded, Exception):
                raise embedded
            if task.kind == FINDINGS:
                point = evaluate_findings(
                    self.scorer,
                    variables,
                    task,
                    embedded,
                    self.config,
                    keys=False,
                    intervals=False,
                )
                values |= point.named(task.name)
                continue
            if task.kind != ZERO_SHOT:
                values |= self._own_figures(variables, task, embedded)
                continue
            values |= zero_shot_points(self.scorer, variables, task, embedded, self.config.gate)
        self.metrics_log.write(step, values, self.evaluation)

    def _own_figures(
        self, variables: Variables, task: ZeroShotTask, embedded: Embedded
    ) -> dict[str, float]:
        """Return the figures of a recipe's own evaluation, under the task's name."""
        figures = EVALUATIONS[task.kind](self.scorer, variables, task, embedded)
        return {f"eval/{task.name}/{figure}": float(value) for figure, value in figures.items()}

    @property
    def evaluation(self) -> str:
        """Return a digest of the questions: figures with different digests are not comparable.

        The digest has eight hexadecimal digits.
        """
        pairs, batch = self.validation, self.config.global_batch_size
        asked: list[Any] = [
            [
                (t.name, t.source.name, t.source.split, len(t.source), asdict(t.prompts))
                for t in self.tasks
            ],
            None if pairs is None else [pairs.name, pairs.split, len(pairs), batch],
            PAIRS_FORMAT,
        ] + [(t.name, t.kind) for t in self.tasks if t.kind != ZERO_SHOT]
        if self.config.gate == "exclude":
            asked.append("gate=exclude")
        asked += [[c.prompts_digest, c.temperature, c.offsets] for c in self.calibrations]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]

    def is_logged(self, step: int) -> bool:
        """Return whether `metrics.jsonl` has all values of a step for the present questions.

        With several processes, which must all decide the same but may not see the file: False.
        """
        if jax.process_count() > 1 or any(task.kind != ZERO_SHOT for task in self.tasks):
            return False  # the figures of a recipe's own evaluation are not known in advance
        keys = [f"eval/{task.name}/accuracy" for task in self.tasks]
        keys += ["eval/validation/loss"] if self.validation is not None else []
        return self.metrics_log.has(step, keys, self.evaluation)

    def _embedded_tasks(
        self, variables: Variables, *, final: bool
    ) -> Iterator[tuple[ZeroShotTask, Embedded | Exception]]:
        """Yield each task with its images, or with the error of reading them.

        Tasks on the same images come one after another and share them.
        """
        splits = [(task.source.name, task.source.split) for task in self.tasks]
        for split in dict.fromkeys(splits):
            together = [
                t for t, its_split in zip(self.tasks, splits, strict=True) if its_split == split
            ]
            embedded: Embedded | Exception
            try:
                embedded = embed_images(
                    self.scorer, variables, together[0], self.config, count_refused=final
                )
            except (ValueError, OSError) as error:
                embedded = error
            for task in together:
                yield task, embedded

    def print_table(self) -> None:
        """Print the last results on standard output."""
        if jax.process_index():
            return
        if self.results:
            print(format_table(self.results, mean_of=averaged(self.results)))
            for name, result in self.results.items():
                if (gate := result.get("gate")) and gate["refused"]:
                    reasons = ", ".join(f"{n} {reason}" for reason, n in gate["reasons"].items())
                    left = ", left out" if gate["excluded"] else ""
                    print(f"gate: {name}: {gate['refused']} refused{left} ({reasons})")
                if result.get("calibration", {}).get("same_images"):
                    print(f"calibration: {name}: fitted on these photographs, figures are too good")
        for name, result in self.findings.items():
            macro, many = result["macro"], result["macro"]["of"]["auc"]
            print(
                f"findings: {name}: {result['n']:,} images, macro AUC {number(macro['auc'])}, "
                f"average precision {number(macro['average_precision'])} over {many} findings"
            )
        print(f"report: {self.workdir / 'report.html'}")
