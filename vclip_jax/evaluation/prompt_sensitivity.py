"""The sensitivity of an evaluation to the wording of its prompts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax.evaluation.metrics import classification
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import Calibration

Choice = tuple[npt.NDArray[np.int64], ...]
"""The row numbers of the prompts that are used, for each class."""

METRICS = ("accuracy", "balanced_accuracy", "auc")
MOST_CHOICES = 128
"""The largest number of choices of a kind; of more, evenly spaced ones are taken."""


def prompt_sensitivity(
    images: npt.NDArray[np.float32],
    parts: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.integer],
    prompts: PromptSet,
    logit_scale: float,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Repeat an evaluation with subsets of the prompts; the wording should not matter much.

    There are three kinds of choices, see `choices`. The embeddings are computed once, before; a
    choice takes means of cosines. (FLAIR's texts keep the padding to the longest prompt of their
    class.)

    Args:
        images: unit vectors `[n, d]`.
        parts: the unit vectors of each class's prompts, from `Scorer.prompt_embeddings`.
        labels: int `[n]`, labels of the groups if the prompts have groups.
        prompts: the prompt set: its templates and phrases, and whether means are normalised.
        logit_scale: the logarithm of the factor of cosines.
        calibration: the calibration of the whole prompt set, or None.

    Returns:
        Kind -> `choices` (their number), and for each of `METRICS` its `min`, `median` and `max`
        over the choices, None if it is not defined for these labels. The kind `template` also has
        `values`, a list of dicts of `template` and the metrics. A kind with a single choice is left
        out.
    """
    cosines = images @ np.concatenate(parts).T  # [n, texts]
    result: dict[str, Any] = {}
    for kind, options in choices(prompts).items():
        if len(options) < 2:
            continue
        rows = []
        for choice in options:
            found = _probabilities(
                cosines, parts, choice, prompts.renormalise, logit_scale, calibration
            )
            rows.append(_scores(prompts.group(found), labels))
        result[kind] = {"choices": len(rows), **{key: _spread(rows, key) for key in METRICS}}
        if kind == "template":
            result[kind]["values"] = [
                {"template": template, **row}
                for template, row in zip(prompts.templates, rows, strict=True)
            ]
    return result


def answers(
    images: npt.NDArray[np.float32],
    parts: Sequence[npt.NDArray[np.float32]],
    prompts: PromptSet,
    logit_scale: float,
    kind: str,
    calibration: Calibration | None = None,
) -> npt.NDArray[np.float64]:
    """Return class probabilities `[choices, n, classes]` for each choice of a kind, see `choices`.

    Args:
        images, parts, prompts, logit_scale, calibration: as for `prompt_sensitivity`.
        kind: a key of `choices`.
    """
    cosines = images @ np.concatenate(parts).T
    options = choices(prompts)[kind]
    return np.stack(
        [
            _probabilities(cosines, parts, choice, prompts.renormalise, logit_scale, calibration)
            for choice in options
        ]
    )


def choices(prompts: PromptSet) -> dict[str, list[Choice]]:
    """Return subsets of the prompts by kind; a function of the prompts alone.

    - `template`: one template, with all phrases of each class.
    - `phrase`: one phrase for each class, in all templates. Choice k takes phrase k of each class,
      and starts again from the first in a class that has fewer phrases.
    - `single`: one template and one phrase, so one prompt for each class.

    There are at most `MOST_CHOICES` of a kind.
    """
    templates = len(prompts.templates)
    phrases = [len(texts) // templates for texts in prompts.prompts]
    every = range(templates)
    kinds: dict[str, Iterator[tuple[Sequence[int], Sequence[Sequence[int]]]]] = {
        "template": (([t], [range(p) for p in phrases]) for t in every),
        "phrase": ((every, [[k % p] for p in phrases]) for k in range(max(phrases))),
        "single": (([t], [[k % p] for p in phrases]) for k in range(max(phrases)) for t in every),
    }
    return {
        kind: _thinned([_choice(t, chosen, phrases) for t, chosen in options])
        for kind, options in kinds.items()
    }


def _choice(
    templates: Sequence[int], chosen: Sequence[Sequence[int]], phrases: Sequence[int]
) -> Choice:
    """Return row numbers in the classes' lists of prompts, which are sorted by template."""
    return tuple(
        np.array([t * count + k for t in templates for k in numbers], np.int64)
        for numbers, count in zip(chosen, phrases, strict=True)
    )


def _thinned(options: list[Choice]) -> list[Choice]:
    if len(options) <= MOST_CHOICES:
        return options
    return [options[i] for i in np.linspace(0, len(options) - 1, MOST_CHOICES).round().astype(int)]


def _probabilities(
    cosines: npt.NDArray[np.float32],
    parts: Sequence[npt.NDArray[np.float32]],
    choice: Choice,
    renormalise: bool,
    logit_scale: float,
    calibration: Calibration | None = None,
) -> npt.NDArray[np.float64]:
    """Return `[n, classes]`; the cosine with a mean is the mean cosine over the mean's length."""
    logits = np.empty((len(cosines), len(parts)))
    first = 0
    for c, (part, places) in enumerate(zip(parts, choice, strict=True)):
        logits[:, c] = cosines[:, first + places].mean(axis=1, dtype=np.float64)
        if renormalise:
            logits[:, c] /= np.linalg.norm(part[places].mean(axis=0, dtype=np.float64))
        first += len(part)
    logits *= np.exp(logit_scale)
    shares: npt.NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares if calibration is None else np.asarray(calibration.apply(shares), np.float64)


def _scores(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> dict[str, float | None]:
    counts = classification.confusion_matrix(
        probabilities.argmax(axis=1), labels, probabilities.shape[1]
    )
    return {
        "accuracy": float(classification.accuracy(counts)),
        "balanced_accuracy": float(classification.balanced_accuracy(counts)),
        "auc": classification.auc(probabilities, labels),
    }


def _spread(rows: Sequence[dict[str, float | None]], key: str) -> dict[str, float] | None:
    values = [row[key] for row in rows]
    if None in values:
        return None
    known = np.array(values, np.float64)
    return {
        "min": float(known.min()),
        "median": float(np.median(known)),
        "max": float(known.max()),
    }
