"""Classification metrics, in NumPy.

Everything is computed in float64 from arrays on the host, so that the figures do not depend on the
accelerator that made the scores. A figure that is not defined (an AUC when only one class occurs)
is `None` with a reason, never NaN and never a number that looks like a result. Intervals and tests
are in `vclip_jax.evaluation.metrics.bootstrap`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

SCALARS = ("accuracy", "balanced_accuracy", "auc", "kappa", "f1", "ece", "nll", "brier")
"""The figures of a classification that are one number."""

PER_CLASS = ("sensitivity", "specificity", "f1", "auc")
"""The figures of a class that are one number."""

CALIBRATION_BINS = 15
"""The number of bins, of equal width, of the expected calibration error."""

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def classification(probabilities: Floats, labels: Ints, *, ordered: bool = False) -> dict[str, Any]:
    """Compute all figures of a classification.

    Args:
      probabilities: float `[n, c]`, one row for each image; only `ece`, `nll` and `brier` depend on
        more than the order.
      labels: int `[n]`, the true class, `0 <= label < c`.
      ordered: True if the classes are grades in rising order; otherwise there is no `kappa`, unless
        there are two classes.

    Returns:
      A dict that `json` can write. The prediction is the class of the highest probability, the
      first one in a tie. A figure that is not defined is None, with the reason in `undefined`.

      - `n`, `accuracy`, `accuracy_ci95` ([lo, hi], Wilson), `balanced_accuracy`, `auc`, `kappa`
        (quadratic weights), `f1` (macro), `ece` (`expected_calibration_error`), `nll` and `brier`
        (means of `surprise` and `squared_error`).
      - `auc_per_class`: `[c]`, each class against the rest.
      - `per_class`: `[c]` dicts of `n` (images), `predicted` (images), `sensitivity`,
        `specificity`, `f1`, `auc`, and `undefined` if one of them is not defined.
      - `reliability`: a dict for each of the `CALIBRATION_BINS` bins: `n`, and the mean
        `confidence` and `accuracy` of its images, None without images. Empty if `ece` is None.
      - `confusion`: lists of counts, rows are the truth.
      - `undefined`: figure -> reason.

    Raises:
      ValueError: n is 0, shapes do not match, there are fewer than two classes, labels are out of
        range (drop images without a label, -1, first), or scores are not finite.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.classification import classification
        >>> probabilities = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
        >>> figures = classification(probabilities, np.array([0, 1, 1]))
        >>> round(figures["accuracy"], 3), round(figures["auc"], 3), figures["confusion"]
        (0.667, 1.0, [[1, 0], [1, 1]])
    """
    probabilities, labels = checked(probabilities, labels)
    n, classes = probabilities.shape
    counts = confusion_matrix(probabilities.argmax(axis=1), labels, classes)
    right = int(np.trace(counts))
    aucs = [
        binary_auc(probabilities[:, c], labels == c) if 0 < counts[c].sum() < n else None
        for c in range(classes)
    ]
    bins = reliability(probabilities, labels)
    figures = {
        "accuracy": right / n,
        "balanced_accuracy": float(balanced_accuracy(counts)),
        "auc": auc(probabilities, labels),
        "kappa": _defined(quadratic_kappa(counts)) if has_kappa(ordered, classes) else None,
        "f1": float(macro_f1(counts)),
        "ece": expected_calibration_error(bins, n),
        "nll": _defined(surprise(probabilities, labels).mean()),
        "brier": _defined(squared_error(probabilities, labels).mean()),
    }
    return {
        "n": n,
        **figures,
        "accuracy_ci95": list(wilson_interval(right, n)),
        "auc_per_class": aucs,
        "per_class": _per_class(counts, aucs),
        "reliability": bins,
        "confusion": counts.tolist(),
        "undefined": {
            key: _WHY[key] if key != "kappa" or has_kappa(ordered, classes) else NO_ORDER
            for key, value in figures.items()
            if value is None
        },
    }


def calibration_figures(probabilities: Floats, labels: Ints) -> dict[str, Any]:
    """Return `ece`, `nll`, `brier` and `reliability` of `classification`, for comparison."""
    probabilities, labels = checked(probabilities, labels)
    bins = reliability(probabilities, labels)
    return {
        "ece": expected_calibration_error(bins, len(labels)),
        "nll": _defined(surprise(probabilities, labels).mean()),
        "brier": _defined(squared_error(probabilities, labels).mean()),
        "reliability": bins,
    }


NO_ORDER = "the classes have no order"
"""The reason for a missing kappa."""


def has_kappa(ordered: bool, classes: int) -> bool:
    """Return whether a kappa with quadratic weights is meaningful.

    Two classes have the same weights in either order.
    """
    return ordered or classes == 2


_WHY = {
    "auc": "only one class occurs in the labels",
    "kappa": "all labels and predictions are of the same class",
    "ece": "the highest scores are not all between 0 and 1, so they are not probabilities",
    "nll": "a true class has the score 0, or the scores are not probabilities",
    "brier": "the scores are not probabilities: a row is not from 0 to 1, or its sum is not 1",
}


def checked(scores: Floats, labels: Ints) -> tuple[npt.NDArray[np.float64], Ints]:
    """Check scores and labels, and return float64 `[n, c]` and int `[n]`.

    Raises:
      ValueError: as for `classification`.
    """
    probabilities = np.asarray(scores, np.float64)
    labels = np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"expected probabilities [n, c] and labels [n], got {list(probabilities.shape)} and "
            f"{list(labels.shape)}"
        )
    n, classes = probabilities.shape
    if n == 0:
        raise ValueError("no images to evaluate: probabilities has no rows")
    if classes < 2:
        raise ValueError(f"classification needs at least two classes, got {classes}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if bad.size:
        raise ValueError(
            f"label {labels[bad[0]]} in row {bad[0]} is not in 0..{classes - 1}; leave out images "
            "without a label before computing metrics"
        )
    rows = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if rows.size:
        raise ValueError(
            f"{rows.size} rows of probabilities are not finite, the first is {rows[0]}"
        )
    return probabilities, labels


def _per_class(counts: Ints, aucs: Sequence[float | None]) -> list[dict[str, Any]]:
    columns = {
        "sensitivity": sensitivity(counts),
        "specificity": specificity(counts),
        "f1": class_f1(counts),
    }
    rows = []
    for c, area in enumerate(aucs):
        row: dict[str, Any] = {"n": int(counts[c].sum()), "predicted": int(counts[:, c].sum())}
        row |= {key: _defined(values[c]) for key, values in columns.items()} | {"auc": area}
        if missing := [key for key in PER_CLASS if row[key] is None]:
            none = "no image is of this class"
            all_ = "every image is of this class"
            row["undefined"] = dict.fromkeys(missing, none if row["n"] == 0 else all_)
        rows.append(row)
    return rows


def confusion_matrix(predicted: Ints, labels: Ints, classes: int) -> npt.NDArray[np.int64]:
    """Count `[classes, classes]`: rows are true, columns predicted classes (both int `[n]`)."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def wilson_interval(right: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion, `right` of `n`, whole numbers or not.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212. Unlike the normal approximation
    it stays within [0, 1] and has a positive width if all or none are right.

    Examples:
        >>> from vclip_jax.evaluation.metrics.classification import wilson_interval
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= right <= n and n > 0, got {right} of {n}")
    share, z = right / n, Z95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1, without a rounding error.
    return (
        0.0 if right == 0 else max(0.0, centre - half),
        1.0 if right == n else min(1.0, centre + half),
    )


# Figures of confusion matrices `[..., c, c]`: of one matrix, or of one for each resample. They
# return float64 `[...]`, or `[..., c]` for a figure of each class, NaN where it is not defined.


def accuracy(confusion: npt.NDArray[Any]) -> Floats:
    """Return the share of correctly classified images, `[...]`."""
    return _ratio(_diagonal(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def sensitivity(confusion: npt.NDArray[Any]) -> Floats:
    """Return TP / (TP + FN), also called recall, of each class, `[..., c]`."""
    return _ratio(_diagonal(confusion), confusion.sum(axis=-1))


def specificity(confusion: npt.NDArray[Any]) -> Floats:
    """Return TN / (TN + FP) of each class, `[..., c]`."""
    others = confusion.sum(axis=(-2, -1))[..., None] - confusion.sum(axis=-1)
    wrong = confusion.sum(axis=-2) - _diagonal(confusion)
    return _ratio(others - wrong, others)


def class_f1(confusion: npt.NDArray[Any]) -> Floats:
    """Return 2 TP / (2 TP + FP + FN) of each class, `[..., c]`.

    Not defined for a class with neither true nor predicted images. Source: C. J. van Rijsbergen,
    Information Retrieval, 1979.
    """
    return _ratio(2 * _diagonal(confusion), confusion.sum(axis=-2) + confusion.sum(axis=-1))


def balanced_accuracy(confusion: npt.NDArray[Any]) -> Floats:
    """Return the mean recall over the classes with true images (FLAIR's "ACA"), `[...]`.

    Source: K. H. Brodersen et al., The balanced accuracy and its posterior distribution, ICPR 2010.
    """
    return mean_of_defined(sensitivity(confusion))


def macro_f1(confusion: npt.NDArray[Any]) -> Floats:
    """Return the mean F1 over the classes with true or predicted images, `[...]`."""
    return mean_of_defined(class_f1(confusion))


def quadratic_kappa(confusion: npt.NDArray[Any]) -> Floats:
    """Return Cohen's kappa with quadratic weights, for ordered classes such as grades.

    kappa = 1 - sum(w * observed) / sum(w * expected), w[i, j] = (i - j)^2 and `expected` the
    product of the margins. Not defined if all truth and predictions are of the same class.

    Source: J. Cohen, Psychological Bulletin 70 (1968) 213-220.
    """
    index = np.arange(confusion.shape[-1])
    weights = (index[:, None] - index[None, :]) ** 2.0
    truth, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    observed = (weights * confusion).sum(axis=(-2, -1)) * confusion.sum(axis=(-2, -1))
    return 1 - _ratio(observed, np.einsum("...i,ij,...j->...", truth, weights, predicted))


def _diagonal(confusion: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / np.asarray(whole, np.float64), np.nan)


def mean_of_defined(values: Floats) -> Floats:
    """Return the mean over the last axis without NaN; NaN if all values are NaN."""
    finite = np.isfinite(values)
    return _ratio(np.where(finite, values, 0).sum(axis=-1), finite.sum(axis=-1))


def _defined(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def auc(probabilities: Floats, labels: Ints) -> float | None:
    """Return the area under the ROC curve, or None if fewer than two classes occur.

    For two classes it is that of class 1; for more, the mean over the classes in `labels`, each
    against the rest. `probabilities` is float `[n, c]`, `labels` int `[n]`.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    positives = [1] if np.shape(probabilities)[1] == 2 else [int(c) for c in present]
    return float(np.mean([binary_auc(probabilities[:, c], labels == c) for c in positives]))


def binary_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative; ties count one half.

    (R - p (p + 1) / 2) / (p q), where R is the sum of the positives' mid-ranks among p positives
    and q negatives: J. A. Hanley and B. J. McNeil, Radiology 143 (1982) 29-36.

    Args:
      scores: float `[n]`.
      positive: bool `[n]`, with at least one True and one False.
    """
    positive = np.asarray(positive, bool)
    p = int(positive.sum())
    q = len(positive) - p
    if p == 0 or q == 0:
        raise ValueError(f"an AUC needs positives and negatives, got {p} and {q}")
    _, group, size = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(size) - (size - 1) / 2
    return float((mid_rank[group][positive].sum() - p * (p + 1) / 2) / (p * q))


def calibration_bins(confidence: Floats) -> Ints:
    """Return the bin of each top probability, int `[n]`.

    Bin k holds (k / 15, (k + 1) / 15]; 0 is in the first bin.
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return np.searchsorted(edges[1:-1], confidence, side="left")


def reliability(probabilities: Floats, labels: Ints) -> list[dict[str, Any]]:
    """Return the bins of a reliability diagram, see `classification`.

    The list is empty if the top scores are not all within [0, 1].
    """
    confidence = probabilities.max(axis=1)
    if confidence.min() < 0 or confidence.max() > 1 + 1e-5:  # float32 sums of groups
        return []
    bins = calibration_bins(confidence)
    right = probabilities.argmax(axis=1) == labels
    sizes = np.bincount(bins, minlength=CALIBRATION_BINS)
    sums = [np.bincount(bins, values, CALIBRATION_BINS) for values in (confidence, right)]
    return [
        {
            "n": int(size),
            "confidence": float(certain / size) if size else None,
            "accuracy": float(correct / size) if size else None,
        }
        for size, certain, correct in zip(sizes, *sums, strict=True)
    ]


def expected_calibration_error(bins: Sequence[Mapping[str, Any]], n: int) -> float | None:
    """Return the sum over bins of their share of the `n` images times |accuracy - confidence|.

    The bins are those of `reliability`: `CALIBRATION_BINS` of equal width over the top probability.
    None without bins. Source: C. Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if not bins:
        return None
    return sum(b["n"] / n * abs(b["accuracy"] - b["confidence"]) for b in bins if b["n"])


def surprise(probabilities: Floats, labels: Ints) -> Floats:
    """Return minus the logarithm of the true class's probability, float64 `[n]`, in nats.

    The mean is the negative log-likelihood (`nll`), or cross-entropy. All values are NaN if one is
    infinite, or if the scores are not probabilities.
    """
    true = probabilities[np.arange(len(labels)), labels]
    if not _are_probabilities(probabilities) or not true.min() > 0:
        return np.full(len(labels), np.nan)
    return -np.log(true)


def squared_error(probabilities: Floats, labels: Ints) -> Floats:
    """Return the sum over the classes of (probability - truth)^2, float64 `[n]`, from 0 to 2.

    The mean is the score of G. W. Brier, Monthly Weather Review 78 (1950) 1-3. All values are NaN
    if the scores are not probabilities.
    """
    if not _are_probabilities(probabilities):
        return np.full(len(labels), np.nan)
    truth = np.eye(probabilities.shape[1])[labels]
    return np.square(probabilities - truth).sum(axis=1)


def _are_probabilities(scores: Floats) -> bool:
    """Return whether each row is from 0 to 1 and adds up to 1, within 0.001 for rounded scores."""
    inside = scores.min() >= 0 and scores.max() <= 1 + 1e-5
    return bool(inside and np.abs(scores.sum(axis=1) - 1).max() < 1e-3)


def mean_over(
    results: Mapping[str, Mapping[str, Any]], key: str, names: Sequence[str]
) -> float | None:
    """Return the mean of `results[name][key]` over `names`, or None if one is not defined."""
    values = [results[name].get(key) for name in names]
    if not values or any(value is None for value in values):
        return None
    return float(np.mean(np.asarray(values, np.float64)))
