"""The curves of `curves.json` as charts: ROC, precision-recall and net benefit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vclip_jax.evaluation.metrics.table import number
from vclip_jax.report import plots, unit_plots
from vclip_jax.report.figures import is_number
from vclip_jax.report.unit_plots import Axes, Line

_ROC = Axes("1 − specificity", "Sensitivity", even=((0, 0), (1, 1)))
_PRECISION = Axes("Sensitivity", "Precision")


def charts(
    curves: Mapping[str, Any], zero_shot: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return evaluation -> its charts: `kind`, `title`, `aside`, `chart` and `legend`.

    Args:
      curves: the content of `curves.json`; damaged parts are left out.
      zero_shot: the checked content of `zero_shot.json`, for areas and operating points.
    """
    found = {}
    for name, classes in curves.items():
        if name in zero_shot and isinstance(classes, Mapping):
            good = {label: one for label, one in classes.items() if isinstance(one, Mapping)}
            drawn = [*_roc(good, zero_shot[name]), *_precision(good), *_decision(good)]
            if drawn:
                found[name] = drawn
    return found


def _roc(classes: Mapping[str, Any], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for label, one in classes.items():
        line = _line(label, one.get("roc"), "false_positive_rate", "sensitivity")
        if line is not None:
            points = _points(result, label) if len(classes) == 1 else ()
            lines.append(Line(label, line.x, line.y, line.low, line.high, points))
    area = number(result["auc"]) if is_number(result.get("auc")) else "–"
    return _chart("roc", "ROC", f"area {area}", lines, _ROC)


def _points(result: Mapping[str, Any], label: str) -> tuple[tuple[float, float], ...]:
    """Return the operating points of a class as (1 - specificity, sensitivity)."""
    try:
        points = result["operating_points"]["classes"][label]["points"]
        return tuple((1 - float(p["specificity"]), float(p["sensitivity"])) for p in points)
    except (KeyError, TypeError, ValueError):
        return ()


def _precision(classes: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = [
        line
        for label, one in classes.items()
        if (line := _line(label, one.get("precision_recall"), "sensitivity", "precision"))
    ]
    areas = [one.get("average_precision") for one in classes.values()]
    known = [area for area in areas if is_number(area)]
    aside = f"average precision {number(float(np.mean(known)))}" if known else ""
    return _chart("precision-recall", "Precision and recall", aside, lines, _PRECISION)


def _decision(classes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the net benefit of a single class, against acting on everybody."""
    if len(classes) != 1:
        return []
    entry = next(iter(classes.values())).get("decision")
    if not isinstance(entry, Mapping):
        return []
    model = _line("the model", entry, "thresholds", "net_benefit")
    everybody = _line("everybody", entry, "thresholds", "net_benefit_of_all")
    if model is None or everybody is None:
        return []
    most = max(0.05, float(model.y.max()), float(everybody.y.max()))
    axes = Axes("Probability to act from", "Net benefit", -0.1 * most, most, ((0, 0), (1, 0)))
    return _chart("net-benefit", "Net benefit", "", [model, everybody], axes)


def _chart(
    kind: str, title: str, aside: str, lines: Sequence[Line], axes: Axes
) -> list[dict[str, Any]]:
    if not lines:
        return []
    labels = [line.label for line in lines] if len(lines) > 1 else []
    return [
        {
            "kind": kind,
            "title": title,
            "aside": aside,
            "chart": unit_plots.chart(lines, axes, title),
            "legend": plots.legend(labels) if labels else Markup(""),
            "labels": labels,
        }
    ]


def _line(label: str, entry: Any, x: str, y: str) -> Line | None:
    """Return a curve if its values are valid, else None."""
    if not isinstance(entry, Mapping):
        return None
    columns = [_numbers(entry.get(key)) for key in (x, y)]
    if columns[0] is None or columns[1] is None or len(columns[0]) != len(columns[1]):
        return None
    low, high = (_numbers(entry.get(key)) for key in ("low", "high"))
    band = low is not None and high is not None and len(low) == len(high) == len(columns[0])
    return Line(label, columns[0], columns[1], low if band else None, high if band else None)


def _numbers(values: Any) -> plots.Floats | None:
    if not isinstance(values, list) or len(values) < 2 or not all(map(is_number, values)):
        return None
    return np.asarray(values, np.float64)
