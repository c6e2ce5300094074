"""A disease against the rest at every threshold: curves, operating points, and their usefulness.

Scores are those of the disease, and an image is called diseased if its score is at or above the
threshold. Everything is float64 on the host.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vclip_jax.evaluation.metrics.bootstrap import resampled
from vclip_jax.evaluation.metrics.classification import Floats, Ints

Bools = npt.NDArray[np.bool_]

Rule = Literal["youden", "sensitivity", "specificity"]


@dataclass(frozen=True)
class Curve:
    """The counts at every different score as threshold, from none called diseased to all.

    Row 0 has the threshold infinity. All arrays are float64 `[m]`.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats
    positives: int
    negatives: int

    @property
    def sensitivity(self) -> Floats:
        """Share of the diseased that are called so, `[m]`, from 0 to 1."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> Floats:
        """Share of the others that are not called diseased, `[m]`, from 1 to 0."""
        return 1 - self.false_positives / self.negatives

    @property
    def precision(self) -> Floats:
        """Share of the diseased among those called so, `[m]`; 1 where nobody is."""
        called = self.true_positives + self.false_positives
        return np.where(called > 0, self.true_positives / np.maximum(called, 1), 1.0)

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve, as the sum of precision times recall gained.

        Source: M. Zhu, "Recall, precision and average precision", University of Waterloo, 2004. It
        does not interpolate between thresholds, which would be too optimistic.
        """
        return float(np.sum(np.diff(self.sensitivity) * self.precision[1:]))


def curve(scores: Floats, positive: Bools) -> Curve:
    """Return the counts at every threshold.

    Args:
      scores: float `[n]`, finite.
      positive: bool `[n]`, with at least one True and one False.

    Raises:
      ValueError: shapes differ, scores are not finite, or one of the two is missing.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.thresholds import curve
        >>> found = curve(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True]))
        >>> found.thresholds.tolist(), found.sensitivity.tolist(), found.specificity.tolist()
        ([inf, 0.9, 0.4, 0.1], [0.0, 0.5, 1.0, 1.0], [1.0, 1.0, 0.5, 0.0])
    """
    scores, positive = checked(scores, positive)
    levels, group = np.unique(-scores, return_inverse=True)
    right = np.cumsum(np.bincount(group, positive, len(levels)))
    wrong = np.cumsum(np.bincount(group, ~positive, len(levels)))
    return Curve(
        np.concatenate([[np.inf], -levels]),
        np.concatenate([[0.0], right]),
        np.concatenate([[0.0], wrong]),
        int(positive.sum()),
        int((~positive).sum()),
    )


def checked(scores: Floats, positive: Bools) -> tuple[Floats, Bools]:
    """Return scores float64 `[n]` and truth bool `[n]`; raises ValueError as `curve` does."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"expected scores and truth [n], got {scores.shape} and {positive.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if positive.all() or not positive.any():
        raise ValueError("a curve needs images with the disease and images without it")
    return scores, positive


_GRID: Final = np.linspace(0, 1, 101)
"""The false positive rates, and the sensitivities, at which curves are tabulated."""


def curve_bands(
    scores: Floats,
    positive: Bools,
    *,
    patients: Ints | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Tabulate the ROC and the precision-recall curve, with pointwise 95 % bands.

    The ROC is linear between thresholds. The precision at a sensitivity is that of the highest
    threshold which reaches it. The bands are quantiles over resamples of images, or of patients.

    Args:
      scores: float `[n]`.
      positive: bool `[n]`.
      patients: a number for the patient of each image, int `[n]`.
      resamples: the number of resamples; 0 for no bands.
      seed: their seed.

    Returns:
      `roc` with `false_positive_rate` (0 to 1 by 0.01) and `sensitivity`; `precision_recall` with
      `sensitivity` and `precision`; each with `low` and `high`, float64 `[101]`; and
      `average_precision` `[resamples]`. The last three only with resamples.

    Raises:
      ValueError: as for `curve`.
    """
    scores, positive = checked(scores, positive)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    truth = positive[order]

    def tabulated(weights: Floats) -> tuple[Floats, Floats, float]:
        right = np.append(0.0, np.cumsum(weights * truth)[ends])
        wrong = np.append(0.0, np.cumsum(weights * ~truth)[ends])
        if not (right[-1] and wrong[-1]):
            return np.full(len(_GRID), np.nan), np.full(len(_GRID), np.nan), np.nan
        sensitivity, rate = right / right[-1], wrong / wrong[-1]
        # At one rate several sensitivities may be reached: the highest counts.
        last = np.flatnonzero(np.diff(rate, append=2))
        roc = np.interp(_GRID, rate[last], sensitivity[last])
        precision = np.divide(
            right, right + wrong, out=np.ones_like(right), where=right + wrong > 0
        )
        reached = np.searchsorted(sensitivity, _GRID * (1 - 1e-12), side="left")
        # At sensitivity 0 the curve starts with the precision of the highest scores.
        at = np.maximum(reached, 1)
        area = float(np.sum(np.diff(sensitivity) * precision[1:]))
        return roc, precision[at], area

    roc, precision, _ = tabulated(np.ones(len(scores)))
    found: dict[str, Any] = {
        "roc": {"false_positive_rate": _GRID, "sensitivity": roc},
        "precision_recall": {"sensitivity": _GRID, "precision": precision},
    }
    if not resamples:
        return found
    samples = [
        tabulated(weights[order]) for weights in resampled(len(scores), patients, resamples, seed)
    ]
    for name, column in (("roc", 0), ("precision_recall", 1)):
        drawn = np.stack([sample[column] for sample in samples])
        found[name]["low"], found[name]["high"] = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    found["average_precision"] = np.array([sample[2] for sample in samples])
    return found


def weighted_areas(scores: Floats, positive: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Return the AUC and the average precision of each resample, NaN where not defined.

    Args:
      scores: float `[n]`.
      positive: bool `[n]`.
      weights: how often each image is drawn, `[b, n]`, as `bootstrap.resampled` yields it.

    Returns:
      Two arrays `[b]`.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ends = np.flatnonzero(np.diff(np.asarray(scores)[order], append=np.nan) != 0)
    truth, weights = positive[order], weights[:, order]

    def cumulated(which: Bools) -> Floats:
        return np.cumsum(weights * which, axis=1)[:, ends]

    right, wrong = cumulated(truth), cumulated(~truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = right / right[:, -1:]
        gained = np.diff(sensitivity, axis=1, prepend=0)
        lost = np.diff(wrong / wrong[:, -1:], axis=1, prepend=0)
        precision = np.where(right + wrong > 0, right / (right + wrong), 1.0)
        return np.sum(lost * (sensitivity - gained / 2), axis=1), np.sum(gained * precision, axis=1)


def choose_threshold(scores: Floats, positive: Bools, rule: Rule, least: float = 0.9) -> float:
    """Return the threshold of an operating point; choose it on a development split.

    Args:
      scores: float `[n]`.
      positive: bool `[n]`.
      rule: "youden", the largest sum of sensitivity and specificity (W. J. Youden, Cancer 3 (1950)
        32-35); "sensitivity", the highest specificity among thresholds with at least `least` of
        sensitivity; "specificity", the reverse.
      least: see `rule`, between 0 and 1.

    Returns:
      The highest threshold of the best; infinity if nobody may be called diseased.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.thresholds import choose_threshold
        >>> scores, truth = np.array([0.1, 0.3, 0.2, 0.9]), np.array([False, True, False, True])
        >>> choose_threshold(scores, truth, "youden")
        0.3
        >>> choose_threshold(scores, truth, "sensitivity", 0.5)
        0.9
    """
    if not 0 <= least <= 1:
        raise ValueError(f"the least {rule} lies between 0 and 1, got {least}")
    found = curve(scores, positive)
    if rule == "youden":
        # Whole numbers: equal sums must not differ by rounding.
        gain = found.true_positives * found.negatives - found.false_positives * found.positives
        return float(found.thresholds[int(gain.argmax())])
    if rule == "sensitivity":
        enough = found.true_positives >= math.ceil(least * found.positives - 1e-9)
        return float(found.thresholds[int(enough.argmax())])
    most = found.negatives - math.ceil(least * found.negatives - 1e-9)
    within = np.flatnonzero(found.false_positives <= most)
    best = within[found.true_positives[within].argmax()]
    return float(found.thresholds[int(best)])


@dataclass(frozen=True)
class OperatingPoint:
    """The figures at one threshold, with Wilson's 95 % intervals; None where not defined."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the diseased that are called so."""
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the others that are not called diseased."""
        return self.true_negatives / (self.true_negatives + self.false_positives)

    @property
    def likelihood_ratios(self) -> tuple[float | None, float | None]:
        """Sensitivity / (1 - specificity), and (1 - sensitivity) / specificity.

        They are the factors by which the odds of disease change after either answer.
        """
        wrong, right = 1 - self.specificity, self.specificity
        return (
            self.sensitivity / wrong if self.false_positives else None,
            (1 - self.sensitivity) / right if self.true_negatives else None,
        )

    def predictive_values(self, prevalence: float) -> tuple[float | None, float | None]:
        """Return PPV and NPV where this share of people has the disease, by Bayes' theorem.

        Raises:
          ValueError: `prevalence` is not between 0 and 1.
        """
        if not 0 <= prevalence <= 1:
            raise ValueError(f"a prevalence lies between 0 and 1, got {prevalence}")
        ill, well = prevalence * self.sensitivity, (1 - prevalence) * (1 - self.specificity)
        missed, cleared = (
            prevalence * (1 - self.sensitivity),
            (1 - prevalence) * self.specificity,
        )
        return (
            ill / (ill + well) if ill + well > 0 else None,
            cleared / (cleared + missed) if cleared + missed > 0 else None,
        )


def at_threshold(scores: Floats, positive: Bools, threshold: float) -> OperatingPoint:
    """Return the figures at a threshold, for example one that another split chose.

    Raises:
      ValueError: as for `curve`.
    """
    scores, positive = checked(scores, positive)
    called = scores >= threshold
    return OperatingPoint(
        threshold,
        int((called & positive).sum()),
        int((called & ~positive).sum()),
        int((~called & ~positive).sum()),
        int((~called & positive).sum()),
    )


def net_benefit(scores: Floats, positive: Bools, thresholds: Floats) -> Floats:
    """Return the net benefit of acting on the answers, float64 `[t]`.

    TP / n - FP / n * t / (1 - t), for probabilities as scores: whoever acts from the probability t
    on says that a missed disease is (1 - t) / t times as bad as a needless action. Compare it with
    `net_benefit_of_all` and with 0, that of acting on nobody. Source: A. J. Vickers and E. B.
    Elkin, Medical Decision Making 26 (2006) 565-574.

    Args:
      scores: probabilities of the disease, float `[n]`.
      positive: bool `[n]`.
      thresholds: float `[t]`, each in [0, 1).

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.thresholds import net_benefit
        >>> scores, truth = np.array([0.8, 0.6, 0.3, 0.1]), np.array([True, False, True, False])
        >>> net_benefit(scores, truth, np.array([0.2, 0.5])).round(4).tolist()
        [0.4375, 0.0]
    """
    scores, positive = checked(scores, positive)
    called = scores[None] >= _odds(thresholds)[0][:, None]
    right, wrong = (called & positive).mean(axis=1), (called & ~positive).mean(axis=1)
    return np.asarray(right - wrong * _odds(thresholds)[1])


def net_benefit_of_all(prevalence: float, thresholds: Floats) -> Floats:
    """Return the net benefit of acting on everybody, float64 `[t]`, see `net_benefit`."""
    return np.asarray(prevalence - (1 - prevalence) * _odds(thresholds)[1])


def _odds(thresholds: Floats) -> tuple[Floats, Floats]:
    """Return thresholds as an array, and t / (1 - t)."""
    t = np.asarray(thresholds, np.float64)
    if t.size and not (t.min() >= 0 and t.max() < 1):
        raise ValueError("thresholds of a decision curve are probabilities below 1")
    return t, t / (1 - t)
