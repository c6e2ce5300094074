"""The figures of several diseases an eye, each present, absent or not rated."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.classification import Floats, Ints, binary_auc, mean_of_defined
from vclip_jax.evaluation.metrics.thresholds import curve, weighted_areas

FIGURES: Final = ("auc", "average_precision", "sensitivity", "specificity")
"""The figures of a finding. The last two are those of the answer: present from a threshold of the
probability on."""
_SHARES: Final = {"sensitivity": 1, "specificity": 0}
"""The figures that are shares of the images with this truth."""
RESAMPLES: Final = 2000
_AT_ONCE: Final = 64
"""Resamples held in memory at a time."""
_NONE_RATED: Final = "no image is rated both present and absent"


def findings(
    probabilities: Floats,
    truth: Ints,
    names: Sequence[str],
    *,
    thresholds: Floats | None = None,
    patients: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the figures of each finding, their means, and those of all together.

    Args:
      probabilities: of presence, float `[n, k]`, from 0 to 1.
      truth: int `[n, k]`: 1 present, 0 absent, -1 not rated.
      names: the `k` names.
      thresholds: the probability from which each finding counts as present, float `[k]`, such as
        those that another split has chosen; by default 0.5.
      patients: a number for the patient of each image, int `[n]`.
      resamples: the number of resamples of the 95 % intervals; 0 for none.
      seed: their seed.

    Returns:
      - `n` images, and `findings`: a row for each with `name`, `present`, `absent` and `unrated`
        images, `threshold`, and `FIGURES` with `..._ci95` (of sensitivity and specificity:
        `bootstrap.share_interval`); None where not defined, with the reason in `undefined`;
      - `macro`: the means over the findings that have the figure, and `of`, how many these are. A
        finding that a resample lacks keeps its own figure there, so that the mean is of the same
        findings: with findings of one or two images the interval is too narrow;
      - `micro`: the figures of all rated pairs of image and finding as one list;
      - `subset_accuracy`: the share of images with all answers right, among the `fully_rated`;
      - `bootstrap` with `resamples`, `seed`, `unit` and `units`.

    Raises:
      ValueError: shapes differ, values are out of range, or nothing is rated.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.findings import findings
        >>> p = np.array([[0.9, 0.2], [0.4, 0.8], [0.2, 0.6], [0.6, 0.1]])
        >>> truth = np.array([[1, 0], [0, 1], [0, 1], [1, -1]])
        >>> found = findings(p, truth, ["DR", "AMD"], resamples=0)
        >>> found["macro"]["auc"], found["subset_accuracy"], found["fully_rated"]
        (1.0, 1.0, 3)
    """
    p, truth = np.asarray(probabilities, np.float64), np.asarray(truth)
    if p.ndim != 2 or p.shape != truth.shape or p.shape[1] != len(names) or not p.size:
        raise ValueError(
            f"expected probabilities and truth [n, {len(names)}], got {p.shape} and {truth.shape}"
        )
    if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1:
        raise ValueError("the probability of a finding lies between 0 and 1")
    if not np.isin(truth, (-1, 0, 1)).all():
        raise ValueError("a finding is 1 present, 0 absent or -1 not rated")
    if not (truth >= 0).any():
        raise ValueError("no finding is rated")
    cuts = np.full(p.shape[1], 0.5) if thresholds is None else np.asarray(thresholds, np.float64)
    if cuts.shape != p.shape[1:]:
        raise ValueError(
            f"expected a threshold for each of {p.shape[1]} findings, got {cuts.shape}"
        )
    called = p >= cuts
    point = _figures(p, called, truth, np.ones((1, len(p))))
    rated: npt.NDArray[np.bool_] = np.all(truth >= 0, axis=1)
    right = (called == (truth == 1)).all(axis=1)
    rows = []
    for k, name in enumerate(names):
        row: dict[str, Any] = {"name": name}
        for word, value in (("present", 1), ("absent", 0), ("unrated", -1)):
            row[word] = int((truth[:, k] == value).sum())
        row["threshold"] = _defined(cuts[k])
        row |= {key: _defined(point[key][0, k]) for key in FIGURES}
        if None in (row["auc"], row["average_precision"]):
            row["undefined"] = _NONE_RATED
        rows.append(row)
    result: dict[str, Any] = {
        "n": len(p),
        "findings": rows,
        "macro": {key: _defined(mean_of_defined(point[key])[0]) for key in FIGURES},
        "micro": {key: _defined(point[f"micro_{key}"][0]) for key in FIGURES},
        "subset_accuracy": float(right[rated].mean()) if rated.any() else None,
        "fully_rated": int(rated.sum()),
    }
    result["macro"]["of"] = {key: int(np.isfinite(point[key]).sum()) for key in FIGURES}
    if resamples:
        _add_intervals(result, point, p, called, truth, right, rated, patients, resamples, seed)
    return result


def _add_intervals(
    result: dict[str, Any],
    point: dict[str, Floats],
    p: Floats,
    called: npt.NDArray[np.bool_],
    truth: Ints,
    right: npt.NDArray[np.bool_],
    rated: npt.NDArray[np.bool_],
    patients: Ints | None,
    resamples: int,
    seed: int,
) -> None:
    drawn = bootstrap.resampled(len(p), patients, resamples, seed)
    parts: list[dict[str, Floats]] = []
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        weights = np.stack([next(drawn) for _ in range(count)])
        part = _figures(p, called, truth, weights)
        with np.errstate(invalid="ignore"):
            part["subset"] = weights[:, rated] @ right[rated] / weights[:, rated].sum(axis=1)
        parts.append(part)
    samples = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for key in FIGURES:
        for k, row in enumerate(result["findings"]):
            known = row[key] is not None
            row[f"{key}_ci95"] = bootstrap.interval(samples[key][:, k]) if known else None
            if known and key in _SHARES:
                here = truth[:, k] == _SHARES[key]
                right = called[here, k] == _SHARES[key]
                of_whom = None if patients is None else np.asarray(patients)[here]
                row[f"{key}_ci95"] = bootstrap.share_interval(right, of_whom)
        own = point[key][0]
        macro = mean_of_defined(np.where(np.isfinite(samples[key]), samples[key], own))
        result["macro"][f"{key}_ci95"] = bootstrap.interval(macro)
        result["micro"][f"{key}_ci95"] = bootstrap.interval(samples[f"micro_{key}"])
    known = result["subset_accuracy"] is not None
    result["subset_accuracy_ci95"] = bootstrap.interval(samples["subset"]) if known else None
    unit = "image" if patients is None else "patient"
    units = len(p) if patients is None else len(np.unique(patients))
    result["bootstrap"] = {"resamples": resamples, "seed": seed, "unit": unit, "units": units}


def _figures(
    p: Floats, called: npt.NDArray[np.bool_], truth: Ints, weights: Floats
) -> dict[str, Floats]:
    """Return each figure of each finding `[b, k]`, and of all together `[b]`, for weights `[b, n]`.

    NaN where not defined.
    """
    columns = [_of_one(p[:, k], called[:, k], truth[:, k], weights) for k in range(p.shape[1])]
    found = {key: np.stack([column[key] for column in columns], axis=1) for key in FIGURES}
    weights = np.repeat(weights, p.shape[1], axis=1)
    pooled = _of_one(p.ravel(), called.ravel(), truth.ravel(), weights)
    return found | {f"micro_{key}": pooled[key] for key in FIGURES}


def _of_one(
    p: Floats, called: npt.NDArray[np.bool_], truth: Ints, weights: Floats
) -> dict[str, Floats]:
    rated = truth >= 0
    p, called, positive = p[rated], called[rated], truth[rated] == 1
    weights = weights[:, rated]
    if positive.all() or not positive.any():
        nothing = np.full(len(weights), np.nan)
        areas = nothing, nothing
    elif len(weights) == 1 and (weights == 1).all():  # exactly as for single evaluations
        areas = (
            np.array([binary_auc(p, positive)]),
            np.array([curve(p, positive).average_precision]),
        )
    else:
        areas = weighted_areas(p, positive, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "auc": areas[0],
            "average_precision": areas[1],
            "sensitivity": weights @ (called & positive) / (weights @ positive),
            "specificity": weights @ (~called & ~positive) / (weights @ ~positive),
        }


def _defined(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
