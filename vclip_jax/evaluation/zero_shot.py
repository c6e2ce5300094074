"""The measurements of a model: held-back pairs and zero-shot classification."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vclip_jax.data import pipeline, prefetch
from vclip_jax.data.images.gate import of_bits
from vclip_jax.devices import sharding
from vclip_jax.evaluation import details
from vclip_jax.evaluation.details import LabelSet
from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.examples import choose_examples, describe_examples, heat_maps
from vclip_jax.evaluation.metrics import bootstrap, classification
from vclip_jax.evaluation.metrics.predictions import Predictions, predictions_of, rows_of
from vclip_jax.evaluation.metrics.retrieval import retrieval as retrieval_figures
from vclip_jax.evaluation.prompt_sensitivity import prompt_sensitivity
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.models.losses import contrastive_loss
from vclip_jax.predict.scorer import Scorer, Variables, class_means, class_probabilities
from vclip_jax.prompts.calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The embeddings of held-back pairs; several images may share a caption."""

    images: np.ndarray
    """Unit vectors float32 `[n, d]`."""
    texts: np.ndarray
    """Unit vectors float32 `[captions, d]`."""
    rows: np.ndarray
    """The row in `texts` of each image, int `[n]`."""


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """The results of a model on one dataset."""

    results: dict[str, dict[str, Any]]
    """Entries of `zero_shot.json`: one for the dataset and, if its prompts have groups, one more
    named after the last group."""
    examples: list[dict[str, Any]]
    """Images to show."""
    predictions: dict[str, Predictions]
    """The predictions behind each entry."""
    curves: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Entries of `curves.json`: class -> its curves."""


def embed_pairs(scorer: Scorer, variables: Variables, source: Any, config: ConfigDict) -> Pairs:
    """Embed all pairs of a source."""
    captions = [record["caption"] for record in source]
    images, _ = scorer.embed_images(variables, _batches(source, config, scorer))
    unique = sorted(set(captions))
    row_of = {caption: row for row, caption in enumerate(unique)}
    rows = np.array([row_of[caption] for caption in captions])
    return Pairs(images, scorer.embed_texts(variables, unique), rows)


def evaluate_pairs(
    pairs: Pairs, variables: Variables, config: ConfigDict, name: str = "validation"
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure loss and retrieval on held-back pairs, for the values `eval/NAME/...`.

    The loss is always the softmax of pairs, independent of `config.loss`, so that runs can be
    compared. It has as many negatives as in training, no dropout and no augmentation, and is
    averaged over full batches in the order of the pairs, which `inputs.draw_pairs` mixes.

    Returns:
        The values for `metrics.jsonl`, and the content of `retrieval.json`.
    """
    images, texts, rows = pairs.images, pairs.texts, pairs.rows
    n = len(images)
    retrieval = retrieval_figures(images, texts, rows)

    size = min(n, config.global_batch_size)
    losses = [
        contrastive_loss(
            jnp.asarray(images[start : start + size]),
            jnp.asarray(texts[rows[start : start + size]]),
            variables[0]["logit_scale"],
        )
        for start in range(0, n - size + 1, size)
    ]
    values = {f"eval/{name}/loss": float(np.mean(losses))}
    for direction in ("image_to_text", "text_to_image"):
        values |= {f"eval/{name}/{direction}_{k}": v for k, v in retrieval[direction].items()}
    return values, retrieval


def embed_images(
    scorer: Scorer,
    variables: Variables,
    task: ZeroShotTask,
    config: ConfigDict,
    *,
    count_refused: bool,
) -> Embedded:
    """Embed all images of a task, once for all evaluations of them, and judge them if needed.

    Images that the gate refuses are left out with `config.gate="exclude"`. With "report" they are
    counted if `count_refused`; judging takes as long as embedding with a small model.
    """
    gate = config.gate == "exclude" or (count_refused and config.gate == "report")
    rows = scorer.embed_rows(variables, _batches(task.source, config, scorer, gate=gate))
    return Embedded(rows["embedding"], rows["label"], rows.get("gate"))


def evaluate_zero_shot(
    scorer: Scorer,
    variables: Variables,
    task: ZeroShotTask,
    embedded: Embedded,
    config: ConfigDict,
    *,
    keys: bool = True,
    heat: bool = False,
    final: bool = False,
    development: Embedded | None = None,
    calibration: Calibration | None = None,
    secret: bytes | None = None,
) -> ZeroShot:
    """Score one dataset, with intervals, calibration and prompt sensitivity.

    `keys` reads the images' keys, patients and facts from the source again, for
    `ZeroShot.predictions` and for intervals over patients; without it there are none. `heat` adds
    heat maps to the examples; all processes must call it together. `final` adds operating points,
    curves and subgroups. `development` are the images of `task.development`, which choose the
    operating points. `calibration` is applied to all answers. `secret` hides the keys and patients
    in the predictions.
    """
    parts = scorer.prompt_embeddings(variables, task.prompts)
    labels = task.numbered(embedded.labels)
    known = embedded.scored(labels, config.gate)
    if not known.any():
        raise ValueError(
            "the gate refuses every photograph with a label: set config.gate = 'report'"
        )
    rows = rows_of(task.source, task.source.name).only(known) if keys else None
    classes = class_means(parts, task.prompts.renormalise)
    raw = _probabilities(variables, embedded, classes)
    probabilities = raw if calibration is None else calibration.apply(raw)
    about = {
        "flow": _flow(task, labels, known),
        **_about(embedded, labels, config.gate, calibration, task.source),
    }
    label_sets = _label_sets(task, probabilities, labels)
    uncalibrated = _label_sets(task, raw, labels)
    chosen_on: Sequence[LabelSet | None] = [None] * len(label_sets)
    if development is not None:
        answers = _probabilities(variables, development, classes, calibration)
        its = task.numbered(development.labels)
        its = np.where(development.scored(its, config.gate), its, -1)
        chosen_on = _label_sets(task, answers, its)
    found = ZeroShot({}, [], {})
    for scored, before, other in zip(label_sets, uncalibrated, chosen_on, strict=True):
        scored, before = scored.only(known), before.only(known)
        result = bootstrap.classification(
            scored.probabilities,
            scored.labels,
            ordered=scored.prompts.labels_ordered,
            patients=rows.people if rows else None,
            resamples=config.bootstrap_resamples,
        )
        if calibration is not None:
            result["uncalibrated"] = classification.calibration_figures(
                before.probabilities, scored.labels
            )
        if final:
            more, curves = details.describe(
                scored,
                rows,
                chosen_on=other,
                split=task.development_split,
                prevalence=task.prevalence,
                resamples=config.bootstrap_resamples,
            )
            result |= more
            found.curves[scored.name] = curves
        found.results[scored.name] = {
            **result,
            "dataset": task.source.name,
            **({"trained_on": task.trained_on} if task.trained_on else {}),
            "classes": list(scored.prompts.label_names),
            "prompts": dataclasses.asdict(scored.prompts),
            "prompt_sensitivity": prompt_sensitivity(
                embedded.images[known],
                parts,
                scored.labels,
                scored.prompts,
                float(variables[0]["logit_scale"]),
                calibration,
            ),
            **about,
        }
        if rows is not None:
            found.predictions[scored.name] = predictions_of(
                rows if secret is None else rows.hidden(secret),
                scored.labels,
                scored.probabilities,
                scored.prompts.label_names,
                ordered=scored.prompts.labels_ordered,
                gate=embedded.reasons(known),
            )
    labels = np.where(known, labels, -1)
    examples = _examples(scorer, variables, task, labels, probabilities, classes, config, heat)
    return dataclasses.replace(found, examples=examples)


def zero_shot_points(
    scorer: Scorer, variables: Variables, task: ZeroShotTask, embedded: Embedded, gate: str = "off"
) -> dict[str, float]:
    """Score one dataset only for the values in `metrics.jsonl`, for a learning curve."""
    parts = scorer.prompt_embeddings(variables, task.prompts)
    labels = task.numbered(embedded.labels)
    known = embedded.scored(labels, gate)
    classes = class_means(parts, task.prompts.renormalise)
    probabilities = _probabilities(variables, embedded, classes)
    sets = [one.only(known) for one in _label_sets(task, probabilities, labels)]
    return flat_metrics(
        {
            one.name: classification.classification(
                one.probabilities, one.labels, ordered=one.prompts.labels_ordered
            )
            for one in sets
        }
    )


def _probabilities(
    variables: Variables,
    embedded: Embedded,
    classes: np.ndarray,
    calibration: Calibration | None = None,
) -> np.ndarray:
    scale = variables[0]["logit_scale"]
    found = np.asarray(class_probabilities(embedded.images, classes, scale))
    return found if calibration is None else calibration.apply(found)


def _flow(task: ZeroShotTask, labels: np.ndarray, known: np.ndarray) -> dict[str, int]:
    """Count the photographs from the dataset's list to the scored ones."""
    flow: dict[str, int] = {}
    card = getattr(task.source, "card", {})
    if type(card.get("listed")) is int and type(card.get("kept")) is int:
        flow = {"listed": card["listed"], "rejected": card["listed"] - card["kept"]}
    unlabelled, scored = int((labels < 0).sum()), int(known.sum())
    return flow | {
        "records": len(labels),
        "unlabelled": unlabelled,
        "refused": len(labels) - unlabelled - scored,
        "scored": scored,
    }


def _about(
    embedded: Embedded,
    labels: np.ndarray,
    gate: str,
    calibration: Calibration | None,
    source: Any,
) -> dict[str, Any]:
    """Return the entries `gate` and `calibration` of a result in `zero_shot.json`."""
    about: dict[str, Any] = {}
    if embedded.gate is not None:
        refused = Counter("; ".join(of_bits(bits)) for bits in embedded.gate[labels >= 0].tolist())
        del refused[""]
        about["gate"] = {
            "refused": refused.total(),
            "reasons": dict(sorted(refused.items())),
            "excluded": gate == "exclude",
        }
    if calibration is not None:
        about["calibration"] = {
            "temperature": calibration.temperature,
            "offsets": list(calibration.offsets),
            "method": calibration.method,
            "data": calibration.data,
            "n": calibration.n,
            "same_images": calibration.data == f"{source.name}:{source.split}",
        }
    return about


def _label_sets(
    task: ZeroShotTask, probabilities: np.ndarray, labels: np.ndarray
) -> list[LabelSet]:
    """Return the answers for the classes, and for their groups if any.

    The name of the groups' set (such as referable or not) ends in the last group's name. If the
    dataset's labels are those of the groups, there is only the groups' set.
    """
    if task.coarse:
        return [LabelSet(task.name, task.prompts, task.prompts.group(probabilities), labels)]
    classes = dataclasses.replace(task.prompts, groups=())
    sets = [LabelSet(task.name, classes, probabilities, labels)]
    if groups := task.prompts.groups:
        group_of = np.empty(len(classes.class_names), int)
        for index, group in enumerate(groups):
            group_of[list(group.members)] = index
        truth = np.where(labels >= 0, group_of[labels], -1)
        merged = task.prompts.group(probabilities)
        sets.append(LabelSet(f"{task.name}_{groups[-1].name}", task.prompts, merged, truth))
    return sets


def flat_metrics(zero_shot: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the defined numbers of `zero_shot.json` as `eval/DATASET/METRIC`."""
    return {
        f"eval/{name}/{key}": result[key]
        for name, result in zero_shot.items()
        for key in classification.SCALARS
        if result[key] is not None
    }


def _batches(
    source: Any, config: ConfigDict, scorer: Scorer, *, gate: bool = False
) -> prefetch.DevicePrefetcher:
    batches = pipeline.eval_batches(
        source,
        global_batch_size=config.eval_batch_size,
        size=config.data.image_size,
        fit=config.data.fit,
        decode=config.data.decode,
        enhance=config.data.enhance,
        gate=gate,
        rows=sharding.rows_of_process(scorer.mesh, config.eval_batch_size),
    )
    return prefetch.prefetch_to_device(batches, scorer.batch_sharding)


def _examples(
    scorer: Scorer,
    variables: Variables,
    task: ZeroShotTask,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: np.ndarray,
    config: ConfigDict,
    heat: bool,
) -> list[dict[str, Any]]:
    answers = task.prompts.group(probabilities) if task.coarse else probabilities
    rows = choose_examples(labels, answers)
    records = [task.source[row] for row in rows]
    maps = None
    if heat and rows:
        best = probabilities[rows].argmax(axis=1)
        maps = heat_maps(scorer, variables, records, classes, best, config)
    return describe_examples(records, labels[rows], answers[rows], config, maps)
