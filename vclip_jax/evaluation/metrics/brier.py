"""The parts of the Brier score of one disease: reliability, resolution and uncertainty."""

from dataclasses import dataclass

import numpy as np

from vclip_jax.evaluation.metrics.classification import Floats
from vclip_jax.evaluation.metrics.thresholds import Bools, checked


@dataclass(frozen=True)
class BrierParts:
    """The parts of a Brier score: `reliability - resolution + uncertainty`, and what is left.

    `within` is what the variation inside the bins adds; it is 0 if all probabilities of a bin are
    equal.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_parts(scores: Floats, positive: Bools, bins: int = 10) -> BrierParts:
    """Decompose the mean squared error of probabilities of a disease.

    Source: A. H. Murphy, Journal of Applied Meteorology 12 (1973) 595-600; the remainder within
    bins as in D. B. Stephenson et al., Weather and Forecasting 23 (2008) 752-757.

    Args:
      scores: probabilities, float `[n]`, from 0 to 1.
      positive: bool `[n]`.
      bins: the number of bins of equal width.

    Raises:
      ValueError: as for `curve`, or the scores are not probabilities.
    """
    scores, positive = checked(scores, positive)
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("a Brier score is of probabilities from 0 to 1")
    number = np.minimum((scores * bins).astype(int), bins - 1)
    sizes = np.bincount(number, minlength=bins)
    full = sizes > 0
    said = np.bincount(number, scores, bins)[full] / sizes[full]
    seen = np.bincount(number, positive, bins)[full] / sizes[full]
    weight, base = sizes[full] / len(scores), positive.mean()
    reliability = float(np.sum(weight * np.square(said - seen)))
    resolution = float(np.sum(weight * np.square(seen - base)))
    uncertainty = float(base * (1 - base))
    whole = float(np.square(scores - positive).mean())
    return BrierParts(
        reliability, resolution, uncertainty, whole - reliability + resolution - uncertainty
    )
