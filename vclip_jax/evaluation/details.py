"""The details of a final evaluation: operating points, curves and subgroups."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax import prompts
from vclip_jax.evaluation.metrics import operating, subgroups
from vclip_jax.evaluation.metrics.predictions import Rows

MOST_RESAMPLES = 1000
"""Resamples of the bands of curves."""


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The answers of an evaluation for the classes of its prompts, or for their groups."""

    name: str
    """The name of its entry in `zero_shot.json`."""
    prompts: prompts.PromptSet
    probabilities: npt.NDArray[np.floating]
    """`[n, c]`, of `prompts.label_names`."""
    labels: npt.NDArray[np.integer]
    """int `[n]`, -1 for no label."""

    def only(self, which: npt.NDArray[np.bool_]) -> "LabelSet":
        """Return the images that are True in bool `[n]`."""
        return dataclasses.replace(
            self, probabilities=self.probabilities[which], labels=self.labels[which]
        )


def describe(
    scored: LabelSet,
    rows: Rows | None,
    *,
    chosen_on: LabelSet | None = None,
    split: str = "",
    prevalence: float | None = None,
    resamples: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe the answers in detail.

    Args:
      scored: the answers; every image has a label.
      rows: the images by name, for patients and subgroups; None if they are not known.
      chosen_on: the answers for the development split, which choose the thresholds.
      split: the name of that split.
      prevalence: the share of people with the second of two classes; None for that of the images.
      resamples: the number of resamples of the intervals; 0 for none.

    Returns:
      The entries `operating_points` and, with facts, `subgroups` of a result in `zero_shot.json`,
      and its entry in `curves.json`. Both name classes; one that no image, or every image, is of
      has no curve.
    """
    patients = rows.people if rows is not None else None
    classes: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    names = scored.prompts.label_names
    own = None if chosen_on is None else chosen_on.only(chosen_on.labels >= 0)
    for number in operating.positives(len(names)):
        scores, positive = scored.probabilities[:, number].astype(float), scored.labels == number
        if not 0 < positive.sum() < len(positive):
            continue
        development = None
        if own is not None:
            development = own.probabilities[:, number].astype(float), own.labels == number
            if not 0 < development[1].sum() < len(development[1]):
                continue
        classes[names[number]] = operating.operating_points(
            scores,
            positive,
            development=development,
            patients=patients,
            prevalence=prevalence if len(names) == 2 else None,
        )
        curves[names[number]] = operating.curves(
            scores, positive, patients=patients, resamples=min(resamples, MOST_RESAMPLES)
        )
    chosen = {"split": split, "n": len(own.labels)} if own is not None else None
    more: dict[str, Any] = {"operating_points": {"chosen_on": chosen, "classes": classes}}
    if rows is not None and rows.facts and resamples:
        more["subgroups"] = subgroups.by_fact(
            scored.probabilities,
            scored.labels,
            rows.facts,
            patients=patients,
            resamples=min(resamples, subgroups.RESAMPLES),
        )
    return more, curves
