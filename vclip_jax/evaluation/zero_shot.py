"""What is measured on a trained state: the validation pairs and the zero-shot tables."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vclip_jax import prompts
from vclip_jax.data import pipeline, prefetch
from vclip_jax.devices import sharding
from vclip_jax.evaluation.examples import choose_examples, describe_examples, heat_maps
from vclip_jax.evaluation.metrics import bootstrap, classification
from vclip_jax.evaluation.metrics.predictions import Predictions, hash_keys
from vclip_jax.evaluation.metrics.retrieval import retrieval as retrieval_figures
from vclip_jax.evaluation.prompt_sensitivity import prompt_sensitivity
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.models.losses import contrastive_loss
from vclip_jax.predict.scorer import Scorer, Variables, class_means, class_probabilities


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The images of a dataset.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.zero_shot import Embedded
        >>> embedded = Embedded(np.eye(2, 8, dtype=np.float32), np.array([1, -1], np.int32))
        >>> embedded.images.shape, embedded.labels.tolist()  # the second has no label
        ((2, 8), [1, -1])
    """

    images: np.ndarray
    """Unit vectors float32 `[n, d]`."""
    labels: np.ndarray
    """int32 `[n]`, -1 where there is none."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Held-back pairs; captions repeat."""

    images: np.ndarray
    """Unit vectors float32 `[n, d]`."""
    texts: np.ndarray
    """Unit vectors float32 `[captions, d]`."""
    rows: np.ndarray
    """Which of the texts belongs to each image, int `[n]`."""


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """What is known of a model on one dataset."""

    results: dict[str, dict[str, Any]]
    """Entries of `zero_shot.json`: the dataset's own and, where its prompts come in groups, another
    named after the last group."""
    examples: list[dict[str, Any]]
    """Images to show."""
    predictions: dict[str, Predictions]
    """The answers behind each entry."""


def embed_pairs(scorer: Scorer, variables: Variables, source: Any, config: ConfigDict) -> Pairs:
    """All pairs of a source."""
    captions = [record["caption"] for record in source]
    images, _ = scorer.embed_images(variables, _batches(source, config, scorer))
    unique = sorted(set(captions))
    row_of = {caption: row for row, caption in enumerate(unique)}
    rows = np.array([row_of[caption] for caption in captions])
    return Pairs(images, scorer.embed_texts(variables, unique), rows)


def evaluate_pairs(
    pairs: Pairs, variables: Variables, config: ConfigDict, name: str = "validation"
) -> tuple[dict[str, float], dict[str, Any]]:
    """Loss and retrieval on held-back pairs, those of the `name` in `metrics.jsonl`.

    The loss is the softmax of pairs whatever `config.loss` says, so that runs can be compared, with
    as many negatives as in training, without dropout and augmentation, averaged over full batches
    of the pairs as they come; `inputs.draw_pairs` mixes them.

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
    scorer: Scorer, variables: Variables, task: ZeroShotTask, config: ConfigDict
) -> Embedded:
    """All images of a task, once for all that is asked about them."""
    return Embedded(*scorer.embed_images(variables, _batches(task.source, config, scorer)))


def evaluate_zero_shot(
    scorer: Scorer,
    variables: Variables,
    task: ZeroShotTask,
    embedded: Embedded,
    config: ConfigDict,
    *,
    keys: bool = True,
    heat: bool = False,
) -> ZeroShot:
    """Score one dataset, with all that tells how far the scores can be trusted.

    `keys` are read again from the source, for `ZeroShot.predictions`; without them there are none.
    With `heat` the examples have heat maps, for which all processes must ask together.
    """
    parts = scorer.prompt_embeddings(variables, task.prompts)
    labels = task.numbered(embedded.labels)
    known = labels >= 0
    hashes = None
    if keys:
        hashes = hash_keys(task.source.name, (record["key"] for record in task.source))[known]
    results, predictions = {}, {}
    classes = class_means(parts, task.prompts.renormalise)
    probabilities = _probabilities(variables, embedded, classes)
    for name, prompt_set, answers, truth in _label_sets(task, probabilities, labels):
        results[name] = {
            **bootstrap.classification(
                answers[known],
                truth[known],
                ordered=prompt_set.labels_ordered,
                resamples=config.bootstrap_resamples,
            ),
            "classes": list(prompt_set.label_names),
            "prompts": dataclasses.asdict(prompt_set),
            "prompt_sensitivity": prompt_sensitivity(
                embedded.images[known],
                parts,
                truth[known],
                prompt_set,
                float(variables[0]["logit_scale"]),
            ),
        }
        if hashes is not None:
            predictions[name] = Predictions(
                hashes,
                truth[known].astype(np.int32),
                answers[known].astype(np.float32),
                prompt_set.label_names,
                prompt_set.labels_ordered,
            )
    examples = _examples(scorer, variables, task, labels, probabilities, classes, config, heat)
    return ZeroShot(results, examples, predictions)


def zero_shot_points(
    scorer: Scorer, variables: Variables, task: ZeroShotTask, embedded: Embedded
) -> dict[str, float]:
    """The values of one dataset for `metrics.jsonl` and nothing else, for a learning curve."""
    parts = scorer.prompt_embeddings(variables, task.prompts)
    labels = task.numbered(embedded.labels)
    known = labels >= 0
    classes = class_means(parts, task.prompts.renormalise)
    probabilities = _probabilities(variables, embedded, classes)
    return flat_metrics(
        {
            name: classification.classification(
                answers[known], truth[known], ordered=prompt_set.labels_ordered
            )
            for name, prompt_set, answers, truth in _label_sets(task, probabilities, labels)
        }
    )


def _probabilities(variables: Variables, embedded: Embedded, classes: np.ndarray) -> np.ndarray:
    scale = variables[0]["logit_scale"]
    return np.asarray(class_probabilities(embedded.images, classes, scale))


def _label_sets(
    task: ZeroShotTask, probabilities: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[str, prompts.PromptSet, np.ndarray, np.ndarray]]:
    """Name, prompts, probabilities and labels of the dataset's classes and, where its prompts come
    in groups (say referable or not), of these under a name that ends in the last group's; of the
    groups alone where the dataset's labels are theirs."""
    if task.coarse:
        yield task.name, task.prompts, task.prompts.group(probabilities), labels
        return
    classes = dataclasses.replace(task.prompts, groups=())
    yield task.name, classes, probabilities, labels
    groups = task.prompts.groups
    if groups:
        group_of = np.empty(len(classes.class_names), int)
        for index, group in enumerate(groups):
            group_of[list(group.members)] = index
        truth = np.where(labels >= 0, group_of[labels], -1)
        yield (
            f"{task.name}_{groups[-1].name}",
            task.prompts,
            task.prompts.group(probabilities),
            truth,
        )


def flat_metrics(zero_shot: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of `zero_shot.json` as `eval/DATASET/METRIC`, those that are defined."""
    return {
        f"eval/{name}/{key}": result[key]
        for name, result in zero_shot.items()
        for key in classification.SCALARS
        if result[key] is not None
    }


def _batches(source: Any, config: ConfigDict, scorer: Scorer) -> prefetch.DevicePrefetcher:
    batches = pipeline.eval_batches(
        source,
        global_batch_size=config.eval_batch_size,
        size=config.data.image_size,
        fit=config.data.fit,
        decode=config.data.decode,
        enhance=config.data.enhance,
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
