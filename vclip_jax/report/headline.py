"""The first lines of a report: how good the model is, and whether to believe it."""

from collections.abc import Mapping
from typing import Any

from vclip_jax.evaluation.metrics.table import chance, number
from vclip_jax.report.figures import bounds, is_number
from vclip_jax.report.reader import Run

FEW = 100
"""Images below which a figure says little, whatever its interval."""


def headline(run: Run, rendered: set[str]) -> list[str]:
    """Return at most three sentences about the evaluation that says most.

    That is the one with the most photographs, before any of rendered images.

    Args:
      run: the run.
      rendered: the names of evaluations of rendered images.
    """
    results = {name: one for name, one in run.zero_shot.items() if is_number(one.get("auc"))}
    if not results:
        return []
    real = {name: one for name, one in results.items() if name not in rendered}
    name, result = max((real or results).items(), key=lambda item: int(item[1]["n"]))
    return [
        _quality(name, result, real=bool(real)),
        _belief(result, real=bool(real), evaluations=len(results)),
        _answers(result),
    ]


def _quality(name: str, result: Mapping[str, Any], *, real: bool) -> str:
    interval = bounds(result.get("auc_ci95"))
    span = f" (95% interval {number(interval[0])} to {number(interval[1])})" if interval else ""
    what = "photographs" if real else "rendered images"
    return (
        f"On the {result['n']:,} {what} of {name}, the AUC is {number(result['auc'])}{span}; "
        f"accuracy is {number(result['accuracy'])} where guessing gives {number(chance(result))}."
    )


def _belief(result: Mapping[str, Any], *, real: bool, evaluations: int) -> str:
    if not real:
        return (
            "No real photograph was scored: the images were rendered by this program, so the "
            "figures say nothing about patients."
        )
    doubts = []
    if result["n"] < FEW:
        doubts.append(f"{result['n']:,} photographs are too few to judge a model")
    interval = bounds(result.get("auc_ci95"))
    if interval and interval[0] <= 0.5:
        doubts.append("the interval reaches chance, 0.5")
    calibration = result.get("calibration")
    if isinstance(calibration, Mapping) and calibration.get("same_images") is True:
        doubts.append("the calibration was fitted on these photographs")
    spread = _spread(result)
    if spread and spread[1] - spread[0] > 0.1:
        doubts.append(
            f"with other words for the classes, the AUC is from {number(spread[0])} to "
            f"{number(spread[1])}"
        )
    unit = result.get("bootstrap")
    patients = isinstance(unit, Mapping) and unit.get("unit") == "patient"
    over = "patients" if patients else "images, as no patients are known"
    if doubts:
        return f"Believe it with care: {'; '.join(doubts)}. Intervals are over {over}."
    more = f" {evaluations} evaluations are below." if evaluations > 1 else ""
    return f"Intervals are over {over}; they hold for this model, not for another seed.{more}"


def _spread(result: Mapping[str, Any]) -> tuple[float, float] | None:
    kinds = result.get("prompt_sensitivity")
    entry = kinds.get("single") if isinstance(kinds, Mapping) else None
    values = entry.get("auc") if isinstance(entry, Mapping) else None
    if not isinstance(values, Mapping):
        return None
    low, high = values.get("min"), values.get("max")
    return (float(low), float(high)) if is_number(low) and is_number(high) else None


def _answers(result: Mapping[str, Any]) -> str:
    error, gate = result.get("ece"), result.get("gate")
    words = []
    if is_number(error):
        words.append(f"its probabilities are off by {error:.0%} on average")
    if isinstance(gate, Mapping) and is_number(gate.get("refused")) and gate["refused"]:
        left = " and left out" if gate.get("excluded") is True else ""
        words.append(f"{gate['refused']:,} photographs were refused as unusable{left}")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text else ""
