"""What is measured on a trained state: the validation pairs and the zero-shot tables."""

import base64
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vclip_jax import metrics, prompts
from vclip_jax.data import pipeline
from vclip_jax.data.decode import decode
from vclip_jax.losses import contrastive_loss
from vclip_jax.zero_shot import Scorer, Variables

EXAMPLES_PER_DATASET = 8
THUMBNAIL = 160


@dataclasses.dataclass(frozen=True)
class ZeroShotTask:
    """One dataset and the prompts that stand for its classes."""

    name: str
    source: Any
    """Random access to records, from `datasets.open_source`."""
    prompts: prompts.PromptSet


def evaluate_pairs(
    scorer: Scorer, variables: Variables, source: Any, config: ConfigDict
) -> tuple[dict[str, float], dict[str, Any]]:
    """Loss and retrieval on held-back pairs.

    The loss is that of training (same batch size, so the same number of negatives), without
    dropout and augmentation, averaged over full batches.

    Returns:
        The values for `metrics.jsonl`, and the content of `retrieval.json`.
    """
    n = len(source)
    captions = [record["caption"] for record in source]
    images, _ = scorer.embed_images(variables, _batches(source, config, scorer))
    unique = sorted(set(captions))
    row_of = {caption: row for row, caption in enumerate(unique)}
    rows = np.array([row_of[caption] for caption in captions])
    texts = scorer.embed_texts(variables, unique)
    retrieval = metrics.retrieval(images, texts, rows)

    size = min(n, config.global_batch_size)
    losses = [
        contrastive_loss(
            jnp.asarray(images[start : start + size]),
            jnp.asarray(texts[rows[start : start + size]]),
            variables[0]["logit_scale"],
        )
        for start in range(0, n - size + 1, size)
    ]
    values = {"eval/validation/loss": float(np.mean(losses))}
    for direction in ("image_to_text", "text_to_image"):
        values |= {f"eval/validation/{direction}_{k}": v for k, v in retrieval[direction].items()}
    return values, retrieval


def evaluate_zero_shot(
    scorer: Scorer, variables: Variables, task: ZeroShotTask, config: ConfigDict
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Score one dataset.

    Returns:
        Entries for `zero_shot.json`: the dataset's own, and, where its prompts come in groups
        (say referable or not), another named after the last group; and the examples to show.
    """
    images, labels = scorer.embed_images(variables, _batches(task.source, config, scorer))
    known = labels >= 0
    classes = dataclasses.replace(task.prompts, groups=())
    probabilities = scorer.probabilities(variables, images, classes)
    results = {task.name: _entry(classes, probabilities[known], labels[known])}
    if task.prompts.groups:
        group_of = np.empty(len(classes.class_names), int)
        for index, group in enumerate(task.prompts.groups):
            group_of[list(group.members)] = index
        name = f"{task.name}_{task.prompts.groups[-1].name}"
        merged = task.prompts.group(probabilities)
        results[name] = _entry(task.prompts, merged[known], group_of[labels[known]])
    return results, _examples(task.source, labels, probabilities, config)


def _entry(
    prompt_set: prompts.PromptSet, probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    return {
        **metrics.classification(probabilities, labels),
        "classes": list(prompt_set.label_names),
        "prompts": dataclasses.asdict(prompt_set),
    }


def flat_metrics(zero_shot: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of `zero_shot.json` as `eval/DATASET/METRIC`, those that are defined."""
    keys = ("accuracy", "balanced_accuracy", "auc", "kappa", "f1")
    return {
        f"eval/{name}/{key}": result[key]
        for name, result in zero_shot.items()
        for key in keys
        if result[key] is not None
    }


def _batches(source: Any, config: ConfigDict, scorer: Scorer) -> pipeline.DevicePrefetcher:
    batches = pipeline.eval_batches(
        source,
        global_batch_size=config.eval_batch_size,
        size=config.data.image_size,
        fit=config.data.fit,
        decode=config.data.decode,
        enhance=config.data.enhance,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return pipeline.prefetch_to_device(batches, scorer.batch_sharding)


def _examples(
    source: Any, labels: np.ndarray, probabilities: np.ndarray, config: ConfigDict
) -> list[dict[str, Any]]:
    """The most certain right and the most certain wrong answers, half of each, as thumbnails."""
    certainty = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    chosen: list[int] = []
    for kind in (right, ~right & (labels >= 0)):
        rows = np.flatnonzero(kind)
        order = rows[np.argsort(-certainty[rows], kind="stable")]
        # One of each true class before a second of any: the most frequent class is not the story.
        turn = np.array([(labels[order[:i]] == labels[row]).sum() for i, row in enumerate(order)])
        chosen += order[np.argsort(turn, kind="stable")][: EXAMPLES_PER_DATASET // 2].tolist()
    return [
        {
            "image": _thumbnail(source[row]["image"], config.data.fit),
            "label": int(labels[row]),
            "probabilities": [round(float(p), 4) for p in probabilities[row]],
        }
        for row in chosen
    ]


def _thumbnail(data: bytes, fit: str) -> str:
    image = decode(data, THUMBNAIL, fit)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
