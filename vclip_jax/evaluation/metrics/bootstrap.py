"""Bootstrap intervals and paired tests, which show how reliable an evaluation's figures are.

Each resample draws n of the n images with replacement, and every figure is computed on each
resample (B. Efron, Annals of Statistics 7 (1979) 1-26). Where patients are known, patients are
drawn, with all of their images: the images of a patient are alike, so that intervals from single
images are too narrow (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application,
1997, section 3.8).

A resample is a vector of weights: how often each image was drawn. With the weights, every figure is
a weighted sum or cumulative sum, so thousands of resamples are a few passes over arrays. The
weights depend only on the seed and the patients, so two systems with the same seed are resampled in
pairs.

A mean over classes is not defined on a resample without one of the classes: it would be the mean of
others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax.evaluation.metrics import classification as metrics
from vclip_jax.evaluation.metrics.classification import SCALARS, Floats, Ints

RESAMPLES = 10_000

MOST_UNDEFINED = 0.05
"""The largest share of resamples that may leave a figure undefined; beyond it, no interval."""

_CHUNK_ELEMENTS = 1 << 17
"""The number of weights held at once; with cumulative sums a few MiB, which fit in a cache."""


def classification(
    probabilities: Floats,
    labels: Ints,
    *,
    ordered: bool = False,
    patients: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute `metrics.classification` with 95 % intervals.

    Args:
      probabilities: float `[n, c]`.
      labels: int `[n]`.
      ordered: as for `metrics.classification`.
      patients: a number for the patient of each image, int `[n]`; by default every image is of
        another patient.
      resamples: the number of resamples; 0 leaves out all bootstrap intervals.
      seed: the seed of the bootstrap.

    Returns:
      The result of `metrics.classification`, with percentile intervals [lo, hi]: `NAME_ci95` for
      its figures, those of a class in its row of `per_class`, `auc_per_class_ci95`, and `bootstrap`
      with `resamples`, `seed`, and what was drawn: `unit` ("patient" or "image") and `units`, their
      number. `accuracy_ci95`, and `sensitivity_ci95` and `specificity_ci95` of the classes, are
      `share_interval`s; `accuracy_bootstrap_ci95` is the bootstrap's. `ece` cannot be
      negative and noise increases it, so its interval is too high and may not contain the figure
      itself. An interval that is not defined is None, with the reason in `undefined`.

    Raises:
      ValueError: as for `metrics.classification`, or `resamples` is negative.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics import bootstrap
        >>> probabilities = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]] * 25)
        >>> labels = np.array([0, 1, 1, 0] * 25)
        >>> figures = bootstrap.classification(probabilities, labels, resamples=500)
        >>> figures["balanced_accuracy"], np.round(figures["balanced_accuracy_ci95"], 2).tolist()
        (0.75, [0.68, 0.82])
    """
    result = metrics.classification(probabilities, labels, ordered=ordered)
    unit = {"unit": "image", "units": result["n"]}
    if patients is not None:
        unit = {"unit": "patient", "units": len(np.unique(patients))}
    answers = np.argmax(probabilities, axis=1)
    result["accuracy_ci95"] = share_interval(answers == labels, patients)
    if not resamples:
        return result
    samples = distributions(
        probabilities, labels, patients=patients, resamples=resamples, seed=seed
    )
    for key in SCALARS:
        name = "accuracy_bootstrap_ci95" if key == "accuracy" else f"{key}_ci95"
        result[name] = None if result[key] is None else interval(samples[key])
        if result[name] is None:
            result["undefined"][name] = result["undefined"].get(key) or _why(samples[key])
    for c, row in enumerate(result["per_class"]):
        for key in ("f1", "auc"):
            values = samples[f"{key}_per_class"][:, c]
            row[f"{key}_ci95"] = interval(values)
            if row[f"{key}_ci95"] is None:
                row.setdefault("undefined", {})[f"{key}_ci95"] = _why(values)
        for key, here in (("sensitivity", labels == c), ("specificity", labels != c)):
            if row[key] is not None:
                right = (answers == c)[here] == (labels == c)[here]
                of_whom = None if patients is None else np.asarray(patients)[here]
                row[f"{key}_ci95"] = share_interval(right, of_whom)
    result["auc_per_class_ci95"] = [row["auc_ci95"] for row in result["per_class"]]
    result["bootstrap"] = {"resamples": resamples, "seed": seed, **unit}
    return result


def effective_size(right: npt.NDArray[np.bool_], patients: Ints) -> float:
    """Return the number of independent images that would measure an accuracy as precisely.

    It is p (1 - p) / v for the accuracy p and its variance v between patients, linearised as for a
    sample of clusters: v = G / (G - 1) * sum over patients of (sum of (right - p))^2 / n^2 (E. L.
    Korn and B. I. Graubard, Survey Methodology 24 (1998) 193-201). It is at most the number of
    images, and the number of patients if all or none are right.

    Args:
      right: bool `[n]`, which images are classified correctly.
      patients: a number for the patient of each image, int `[n]`.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.bootstrap import effective_size
        >>> right = np.array([True, True, False, False] * 10)
        >>> effective_size(right, np.arange(40))  # every image is of another patient
        40.0
        >>> effective_size(right, np.arange(40) // 2)  # both images of a patient say the same
        19.0
    """
    n, share = len(right), float(np.mean(right))
    _, numbers = np.unique(patients, return_inverse=True)
    count = int(numbers.max()) + 1
    if count == n:
        return float(n)
    if share in (0, 1) or count == 1:
        return float(count)
    sums = np.bincount(numbers, right - share)
    variance = count / (count - 1) * np.square(sums).sum() / n**2
    return float(min(n, share * (1 - share) / variance)) if variance > 0 else float(n)


def share_interval(right: npt.NDArray[np.bool_], patients: Ints | None) -> list[float]:
    """Return Wilson's 95 % interval of a share of images, for the `effective_size`.

    It has a width even if all or none are right, which a bootstrap has not.

    Args:
      right: bool `[n]`, at least one image.
      patients: a number for the patient of each image, int `[n]`; None for a patient each.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.bootstrap import share_interval
        >>> low, high = share_interval(np.ones(8, bool), np.arange(8) // 2)  # of four patients
        >>> round(low, 3), high
        (0.51, 1.0)
    """
    size = float(len(right)) if patients is None else effective_size(right, patients)
    return list(metrics.wilson_interval(float(np.mean(right)) * size, size))


def interval(samples: Floats) -> list[float] | None:
    """Return the 2.5 % and 97.5 % quantiles of a figure's resamples `[b]`, without NaN.

    Returns None if more than `MOST_UNDEFINED` of them are NaN.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.bootstrap import interval
        >>> interval(np.arange(1001.0))
        [25.0, 975.0]
    """
    finite = samples[np.isfinite(samples)]
    if len(finite) < (1 - MOST_UNDEFINED) * len(samples):
        return None
    low, high = np.quantile(finite, (0.025, 0.975))
    return [float(low), float(high)]


def _why(samples: Floats) -> str:
    return f"not defined in {np.mean(~np.isfinite(samples)):.0%} of the resamples"


def paired_test(
    first: Floats,
    second: Floats,
    labels: Ints,
    *,
    ordered: bool = False,
    patients: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Test whether one system is better than another on the same images.

    Both are resampled together. p is two-sided: twice the share of resamples in which the
    difference is zero or has the other sign, as (1 + k) / (1 + resamples), so that it is never 0
    (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, chapter 4).
    Without ties, p is below 0.05 exactly if the 95 % interval excludes zero.

    Args:
      first: probabilities `[n, c]` of one system.
      second: probabilities of the other, for the same images and classes in the same order.
      labels: int `[n]`.
      ordered: as for `metrics.classification`.
      patients: as for `classification`.
      resamples: the number of resamples, at least one.
      seed: the seed of the bootstrap.

    Returns:
      Each figure of `metrics.SCALARS` -> `first` and `second` (its values), `difference` (first
      minus second), `difference_ci95`, `p`; None if not defined, with the reason in `undefined`.

    Raises:
      ValueError: shapes differ, or as for `metrics.classification`.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.bootstrap import paired_test
        >>> labels = np.array([0, 1] * 50)
        >>> first = np.eye(2)[labels]  # always right
        >>> second = np.eye(2)[np.where(np.arange(100) < 70, labels, 0)]  # misses 15 of the last 30
        >>> row = paired_test(first, second, labels, resamples=500)["accuracy"]
        >>> round(row["difference"], 2), np.round(row["difference_ci95"], 2).tolist()
        (0.15, [0.08, 0.22])
        >>> row["p"] < 0.05
        True
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"the two systems differ in images or classes: {list(np.shape(first))} and "
            f"{list(np.shape(second))}"
        )
    points = [metrics.classification(p, labels, ordered=ordered) for p in (first, second)]
    samples = [
        distributions(p, labels, patients=patients, resamples=resamples, seed=seed)
        for p in (first, second)
    ]
    out = {}
    for key in SCALARS:
        values = [point[key] for point in points]
        row: dict[str, Any] = {"first": values[0], "second": values[1]}
        differences = samples[0][key] - samples[1][key]
        known = None not in values
        bounds = interval(differences) if known else None
        row["difference"] = values[0] - values[1] if known else None
        row["difference_ci95"] = bounds
        row["p"] = two_sided_p(differences) if bounds else None
        if not known:
            reasons = [point["undefined"].get(key) for point in points]
            row["undefined"] = next(reason for reason in reasons if reason)
        elif not bounds:
            row["undefined"] = _why(differences)
        out[key] = row
    return out


def two_sided_p(differences: Floats) -> float:
    """Return the p of `paired_test` from resampled differences `[b]`, without NaN."""
    finite = differences[np.isfinite(differences)]
    fewer = min(np.sum(finite <= 0), np.sum(finite >= 0))
    return float(min(1.0, 2 * (1 + fewer) / (1 + len(finite))))


# --- resampling ----------------------------------------------------------------------------------


def distributions(
    probabilities: Floats,
    labels: Ints,
    *,
    patients: Ints | None = None,
    within: npt.NDArray[np.bool_] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Floats]:
    """Compute every figure on every resample.

    Time grows as `resamples * n * c`; memory beyond the result does not grow with `resamples`.

    Args:
      probabilities: float `[n, c]`.
      labels: int `[n]`.
      patients: as for `classification`.
      within: bool `[n]`, the images whose figures are computed, by default all. The same images are
        drawn whatever it is, so that figures of two groups can be subtracted.
      resamples: the number of resamples, at least one.
      seed: the seed, which with `patients` or `n` determines the images that are drawn.

    Returns:
      The names of `metrics.SCALARS` -> float64 `[resamples]`, and `NAME_per_class` for those of
      `metrics.PER_CLASS` -> float64 `[resamples, c]`; NaN where a figure is not defined.

    Raises:
      ValueError: as for `metrics.classification`, or `resamples` is below one.
    """
    probabilities, labels = metrics.checked(probabilities, labels)
    if resamples < 1:
        raise ValueError(f"a bootstrap needs at least one resample, got {resamples}")
    unit_of, count = units(len(labels), patients)
    if within is not None:
        probabilities, labels, unit_of = probabilities[within], labels[within], unit_of[within]
        metrics.checked(probabilities, labels)
    n, classes = probabilities.shape
    cells = np.eye(classes**2)[labels * classes + probabilities.argmax(axis=1)]
    gaps = _calibration_gaps(probabilities, labels)
    # Each image has one gap that is not 0; sort these gaps by bin. A matrix product would sum them
    # in an order that depends on the number of resamples in a chunk.
    bins = (gaps != 0).argmax(axis=1)
    by_bin = np.argsort(bins, kind="stable")
    values = gaps[by_bin, bins[by_bin]]
    starts = np.flatnonzero(np.diff(bins[by_bin], prepend=-1))
    losses = np.stack(
        [metrics.surprise(probabilities, labels), metrics.squared_error(probabilities, labels)]
    )
    ranks = [_ranked(probabilities[:, c], labels == c) for c in range(classes)]
    occurs = np.bincount(labels, minlength=classes) > 0
    answered = occurs | (np.bincount(probabilities.argmax(axis=1), minlength=classes) > 0)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ELEMENTS // max(n, count))
    parts: list[dict[str, Floats]] = []
    for start in range(0, resamples, step):
        weights = _draw(rng, min(step, resamples - start), count)
        if patients is not None or within is not None:
            # `take` keeps the order in memory, and so the order of sums and their last digit.
            weights = np.take(weights, unit_of, axis=1)
        drawn = weights.sum(axis=1)
        drawn[drawn == 0] = np.nan  # no image of a small group
        sums = np.add.reduceat(weights[:, by_bin] * values, starts, axis=1)
        confusion = (weights @ cells).reshape(-1, classes, classes)
        nll, brier = (np.einsum("bn,n->b", weights, loss) / drawn for loss in losses)
        areas = np.stack([_weighted_auc(weights, rank) for rank in ranks], axis=1)
        # 1 if the resample has every class of the sample, else NaN.
        whole = np.where((confusion.sum(axis=2) > 0)[:, occurs].all(axis=1), 1.0, np.nan)
        f1 = np.nan_to_num(metrics.class_f1(confusion))[:, answered].mean(axis=1)
        parts.append(
            {
                "accuracy": metrics.accuracy(confusion),
                "balanced_accuracy": whole * metrics.balanced_accuracy(confusion),
                "auc": whole * (areas[:, 1] if classes == 2 else metrics.mean_of_defined(areas)),
                "kappa": metrics.quadratic_kappa(confusion),
                "f1": whole * f1,
                "ece": np.abs(sums).sum(axis=1) / drawn,
                "nll": nll,
                "brier": brier,
                "sensitivity_per_class": metrics.sensitivity(confusion),
                "specificity_per_class": metrics.specificity(confusion),
                "f1_per_class": metrics.class_f1(confusion),
                "auc_per_class": areas,
            }
        )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def resampled(
    n: int, patients: Ints | None, resamples: int, seed: int = 0
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield for each resample how often each image is drawn, float64 `[n]`; see `distributions`."""
    unit_of, count = units(n, patients)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ELEMENTS // max(n, count))
    for start in range(0, resamples, step):
        weights = _draw(rng, min(step, resamples - start), count)
        yield from np.take(weights, unit_of, axis=1)


def units(n: int, patients: Ints | None) -> tuple[Ints, int]:
    """Return the drawn unit of each image, int `[n]`, and the number of units.

    Units are numbered in the order of their first images, so that patients with one image each are
    drawn as images are.
    """
    if patients is None:
        return np.arange(n), n
    if np.shape(patients) != (n,):
        raise ValueError(f"expected a patient for each of {n} images, got {np.shape(patients)}")
    _, first, inverse = np.unique(patients, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse], len(first)


def _draw(rng: np.random.Generator, resamples: int, n: int) -> npt.NDArray[np.float64]:
    """Draw how often each of `n` units is used: `[resamples, n]`; each row sums to n."""
    drawn = rng.integers(0, n, (resamples, n))
    drawn += n * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)


def _calibration_gaps(probabilities: Floats, labels: Ints) -> Floats:
    """Return `[n, bins]`: 1 or 0 (right or wrong) minus confidence in an image's bin, else 0.

    Weighted sums over images are the terms of the calibration error times n.
    """
    bins = metrics.calibration_bins(probabilities.max(axis=1))
    right = probabilities.argmax(axis=1) == labels
    gap = right - probabilities.max(axis=1)
    if not metrics.reliability(probabilities, labels):
        gap = np.full(len(labels), np.nan)
    return np.eye(metrics.CALIBRATION_BINS)[bins] * gap[:, None]


@dataclass(frozen=True)
class _Ranked:
    """A class against the rest, sorted once for all resamples."""

    positive: Ints
    """Rows `[p]` of the images of the class."""
    negative: Ints
    """Rows `[q]` of the other images, by rising score."""
    below: Ints
    """The number of negatives with a lower score, for each positive `[p]`."""
    up_to: Ints
    """The number of negatives with a lower or equal score, for each positive `[p]`."""


def _ranked(scores: Floats, is_positive: npt.NDArray[np.bool_]) -> _Ranked:
    positive, negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    up_to = np.searchsorted(scores[negative], scores[positive], side="right")
    return _Ranked(positive, negative, below, up_to)


def _weighted_auc(weights: npt.NDArray[np.float64], rank: _Ranked) -> Floats:
    """Return the AUC of each resample: `[b, n]` to `[b]`, NaN without positives or negatives.

    A positive wins against the weight of the negatives below it and half the weight of its equals.
    """
    lost = np.zeros((len(weights), len(rank.negative) + 1))
    np.cumsum(np.take(weights, rank.negative, axis=1), axis=1, out=lost[:, 1:])
    positive = np.take(weights, rank.positive, axis=1)
    wins = np.take(lost, rank.below, axis=1) + np.take(lost, rank.up_to, axis=1)
    pairs = positive.sum(axis=1) * lost[:, -1]
    with np.errstate(invalid="ignore"):
        return np.einsum("bp,bp->b", positive, wins) / 2 / np.where(pairs > 0, pairs, np.nan)
