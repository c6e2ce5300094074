"""The AUC with the variance of DeLong, also for several images of a patient."""

import math
from dataclasses import dataclass

import numpy as np

from vclip_jax.evaluation.metrics.classification import Z95, Floats, Ints
from vclip_jax.evaluation.metrics.thresholds import Bools, checked


@dataclass(frozen=True)
class Delong:
    """An AUC with DeLong's variance, and the components for differences of AUCs."""

    auc: float
    variance: float

    @property
    def ci95(self) -> tuple[float, float]:
        """The interval auc ± 1.96 standard errors, cut at 0 and 1."""
        half = Z95 * math.sqrt(self.variance)
        return max(0.0, self.auc - half), min(1.0, self.auc + half)


def delong(scores: Floats, positive: Bools, patients: Ints | None = None) -> Delong:
    """Return the AUC with its variance by the method of structural components.

    Sources: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845; for
    several images of a patient, N. A. Obuchowski, Biometrics 53 (1997) 567-578, which sums the
    components of each patient first.

    Args:
      scores: float `[n]`.
      positive: bool `[n]`, with at least two True and two False (or two patients with either).
      patients: a number for the patient of each image, int `[n]`; by default every image is of
        another patient.

    Raises:
      ValueError: as for `curve`, or there are too few images.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.delong import delong
        >>> scores, truth = np.array([1.0, 2, 3, 4, 5]), np.array([0, 0, 1, 0, 1], bool)
        >>> found = delong(scores, truth)
        >>> round(found.auc, 4), round(found.variance, 4)
        (0.8333, 0.0556)
    """
    scores, positive = checked(scores, positive)
    ill, well = scores[positive], scores[~positive]
    of_ill, of_well = _placements(ill, well), 1 - _placements(well, ill)
    area = float(of_ill.mean())
    if patients is None:
        if min(len(ill), len(well)) < 2:
            raise ValueError("a variance needs two images with the disease and two without it")
        spread = of_ill.var(ddof=1) / len(ill) + of_well.var(ddof=1) / len(well)
        return Delong(area, float(spread))
    _, numbers = np.unique(patients, return_inverse=True)
    count = int(numbers.max()) + 1
    sums = [
        np.bincount(numbers[which], components - area, count)
        for which, components in ((positive, of_ill), (~positive, of_well))
    ]
    sizes = [len(np.unique(numbers[which])) for which in (positive, ~positive)]
    if min(sizes) < 2:
        raise ValueError("a variance needs two patients with the disease and two without it")
    parts = [
        size / (size - 1) * np.square(total).sum() / n**2
        for size, total, n in zip(sizes, sums, (len(ill), len(well)), strict=True)
    ]
    both = count / (count - 1) * np.sum(sums[0] * sums[1]) / (len(ill) * len(well))
    return Delong(area, float(max(0.0, parts[0] + parts[1] + 2 * both)))


def _placements(scores: Floats, others: Floats) -> Floats:
    """Return the share of `others` below each score, equal ones counted half, `[len(scores)]`."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    return (below + up_to) / (2 * len(others))
