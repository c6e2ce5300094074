"""A class against the rest, for `zero_shot.json` and `curves.json`: thresholds, areas and curves.

Thresholds are chosen on a development split and applied to the scored images. Without such a split
they are chosen on the scored images themselves, where their figures are too good; the entry says
which.
"""

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.brier import brier_parts
from vclip_jax.evaluation.metrics.classification import Floats, Ints
from vclip_jax.evaluation.metrics.delong import delong
from vclip_jax.evaluation.metrics.thresholds import (
    Bools,
    OperatingPoint,
    Rule,
    at_threshold,
    choose_threshold,
    curve,
    curve_bands,
    net_benefit,
    net_benefit_of_all,
)

POINTS: Final[tuple[tuple[Rule, float], ...]] = (
    ("youden", 0.0),
    ("sensitivity", 0.9),
    ("specificity", 0.9),
)
"""The rules of the operating points, and the least value of the figure that the rule names."""
_ACTED_ON: Final = np.arange(1, 100) / 100
"""The probabilities from which one would act, of a decision curve."""


def positives(classes: int) -> range:
    """Return the classes that are put against the rest: the second of two, else all."""
    return range(1, 2) if classes == 2 else range(classes)


def operating_points(
    scores: Floats,
    positive: Bools,
    *,
    development: tuple[Floats, Bools] | None = None,
    patients: Ints | None = None,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Describe a class against the rest at the thresholds of `POINTS`.

    Args:
      scores: the probability of the class, float `[n]`.
      positive: which images are of the class, bool `[n]`, at least one and not all.
      development: scores and truth of the images that choose the thresholds; None for the images
        themselves.
      patients: a number for the patient of each image, int `[n]`, for the intervals.
      prevalence: the share of people with the class, for the predictive values; None for that of
        the images.

    Returns:
      `n`, `n_positive`, `prevalence`, `auc_delong_ci95`, `brier` (with its parts, see
      `brier.BrierParts`), and `points`: dicts of `rule`, `least`, `threshold` (None if nobody
      may be called diseased), the four counts, `sensitivity` and `specificity` with `..._ci95`,
      `ppv`, `npv`, and `likelihood_ratio_positive` and `..._negative`, None where not defined.

    Raises:
      ValueError: as for `thresholds.curve`.
    """
    chosen_on = (scores, positive) if development is None else development
    share = float(np.mean(positive)) if prevalence is None else prevalence
    points = []
    for rule, least in POINTS:
        point = at_threshold(scores, positive, choose_threshold(*chosen_on, rule, least))
        points.append({"rule": rule, "least": least, **_described(point, share)})
        called = scores >= point.threshold
        for figure, which in (("sensitivity", positive), ("specificity", ~positive)):
            right = called[which] == positive[which]
            points[-1][f"{figure}_ci95"] = bootstrap.share_interval(
                right, None if patients is None else patients[which]
            )
    result: dict[str, Any] = {
        "n": len(scores),
        "n_positive": int(positive.sum()),
        "prevalence": share,
        "auc_delong_ci95": _delong_interval(scores, positive, patients),
        "points": points,
    }
    if scores.min() >= 0 and scores.max() <= 1:
        whole = float(np.square(scores - positive).mean())
        result["brier"] = {"score": whole, **asdict(brier_parts(scores, positive))}
    return result


def _described(point: OperatingPoint, prevalence: float) -> dict[str, Any]:
    ppv, npv = point.predictive_values(prevalence)
    up, down = point.likelihood_ratios
    return {
        "threshold": point.threshold if np.isfinite(point.threshold) else None,
        "true_positives": point.true_positives,
        "false_positives": point.false_positives,
        "true_negatives": point.true_negatives,
        "false_negatives": point.false_negatives,
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "ppv": ppv,
        "npv": npv,
        "likelihood_ratio_positive": up,
        "likelihood_ratio_negative": down,
    }


def _delong_interval(scores: Floats, positive: Bools, patients: Ints | None) -> list[float] | None:
    try:
        return list(delong(scores, positive, patients).ci95)
    except ValueError:  # a single image or patient with, or without, the disease
        return None


def curves(
    scores: Floats,
    positive: Bools,
    *,
    patients: Ints | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the curves of a class against the rest, with 95 % bands, for `curves.json`.

    Args:
      scores, positive, patients: as for `operating_points`.
      resamples: the number of resamples of the bands; 0 for no bands.
      seed: their seed.

    Returns:
      `roc` and `precision_recall`, see `thresholds.curve_bands`; `average_precision` and its
      `..._ci95`; and `decision`: `thresholds`, `net_benefit` and `net_benefit_of_all`, if the
      scores are probabilities. Numbers have five decimals.
    """
    bands = curve_bands(scores, positive, patients=patients, resamples=resamples, seed=seed)
    samples = bands.pop("average_precision", None)
    result: dict[str, Any] = {
        "n": len(scores),
        "n_positive": int(positive.sum()),
        "average_precision": curve(scores, positive).average_precision,
        "average_precision_ci95": None if samples is None else bootstrap.interval(samples),
        **{name: {key: _rounded(row) for key, row in band.items()} for name, band in bands.items()},
    }
    if scores.min() >= 0 and scores.max() <= 1:
        result["decision"] = {
            "thresholds": _rounded(_ACTED_ON),
            "net_benefit": _rounded(net_benefit(scores, positive, _ACTED_ON)),
            "net_benefit_of_all": _rounded(net_benefit_of_all(float(np.mean(positive)), _ACTED_ON)),
        }
    return result


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 5) for value in values]
