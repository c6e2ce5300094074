"""The parts of a page about an evaluation: figures with intervals, classes, calibration, prompts.

The input is the checked entries of `zero_shot.json`. Their newer keys may be missing (in runs of
earlier versions) or damaged; then the parts that need them are left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from markupsafe import Markup

from vclip_jax.evaluation.metrics import paper
from vclip_jax.evaluation.metrics.classification import CALIBRATION_BINS, PER_CLASS
from vclip_jax.evaluation.metrics.table import chance, majority, number
from vclip_jax.report import plots

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "kappa": "Quadratic kappa",
    "f1": "Macro F1",
    "ece": "Calibration error",
    "nll": "Negative log-likelihood",
    "brier": "Brier score",
}
_KINDS = {
    "template": "one template, all phrases",
    "phrase": "one phrase per class, all templates",
    "single": "one prompt per class",
}
_SPREAD = ("accuracy", "balanced_accuracy", "auc")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def bounds(value: Any) -> tuple[float, float] | None:
    """Return an interval [lo, hi] if it is valid, else None."""
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
        return value[0], value[1]
    return None


def span(value: Any, digits: int = 3) -> str:
    """Format an interval; "" if there is none."""
    pair = bounds(value)
    return f"{number(pair[0], digits)} – {number(pair[1], digits)}" if pair else ""


def zero_shot_rows(zero_shot: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each evaluation, with a picture of its accuracy."""
    rows = []
    for name, result in zero_shot.items():
        lo, hi = result["accuracy_ci95"]
        marks = (chance(result), majority(result))
        rows.append(
            {
                **result,
                "name": name,
                "ece": result["ece"] if is_number(result.get("ece")) else None,
                "chance": marks[0],
                "majority": marks[1],
                "picture": plots.interval(result["accuracy"], lo, hi, marks),
                "spans": {key: span(result.get(f"{key}_ci95")) for key in METRICS},
                "notes": notes(result),
            }
        )
    return rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return notes on patients, refused photographs and calibrated answers, a few words each."""
    found = []
    gate, calibration = result.get("gate"), result.get("calibration")
    resampled = result.get("bootstrap")
    if isinstance(resampled, Mapping) and resampled.get("unit") == "patient":
        units = resampled.get("units")
        if is_number(units):
            found.append(f"{units:,} patients; intervals are over patients")
    if isinstance(gate, Mapping) and is_number(gate.get("refused")) and gate["refused"]:
        left = " and left out" if gate.get("excluded") is True else ""
        found.append(f"{gate['refused']:,} refused by the gate{left}")
    if isinstance(calibration, Mapping):
        same = calibration.get("same_images") is True
        words = f"{calibration.get('method')}, {calibration.get('data')}"
        found.append(f"calibrated ({words}{', on these very images' if same else ''})")
    return found


def undefined(zero_shot: Mapping[str, Any]) -> list[str]:
    """Return a line about each figure that is not defined, with the reason."""
    lines = []
    for name, result in zero_shot.items():
        reasons = result.get("undefined")
        for key, reason in reasons.items() if isinstance(reasons, Mapping) else ():
            if str(key).removesuffix("_ci95") != key and str(key).removesuffix("_ci95") in reasons:
                continue  # without a figure there is no interval
            figure = METRICS.get(str(key).removesuffix("_ci95"), str(key))
            what = f"interval of {figure}" if str(key).endswith("_ci95") else figure
            lines.append(f"{name}, {what}: {reason}")
    return lines


def table_1(zero_shot: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return this run's rows for Table 1: for the paper's datasets, then for their stand-ins.

    A cell is None, or the dataset's name, the figure and its formatted interval.
    """
    rows = []
    kinds: tuple[paper.Kind, ...] = ("real", "stand-in")
    for kind in kinds:
        columns = paper.columns(zero_shot, kind)
        for key, label in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy")):
            cells = [
                _cell(columns[d], zero_shot, key) if d in columns else None for d in paper.DATASETS
            ]
            if any(cells):
                rows.append({"kind": kind, "label": label, "cells": cells})
    return rows


def _cell(name: str, zero_shot: Mapping[str, Any], key: str) -> tuple[str, float, str]:
    result = zero_shot[name]
    return name, result[key], span(result.get(f"{key}_ci95"))


def confusions(zero_shot: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return dataset -> rows: class name, total, and (count, share of the row) per column."""
    out = {}
    for name, result in zero_shot.items():
        rows = []
        for label, counts in zip(class_names(result), result["confusion"], strict=True):
            total = sum(counts)
            cells = [(count, count / total if total else 0.0) for count in counts]
            rows.append({"label": label, "total": total, "cells": cells})
        out[name] = rows
    return out


def class_names(result: Mapping[str, Any]) -> list[str]:
    """Return the names of a result's classes."""
    names = result.get("classes")
    count = len(result["confusion"])
    if isinstance(names, list) and len(names) == count:
        return [str(name) for name in names]
    return [f"class {index}" for index in range(count)]


def class_tables(zero_shot: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return dataset -> rows: class name, images, predictions, and figures.

    The figures are (figure, formatted interval) for each of `metrics.PER_CLASS`.
    """
    out = {}
    for name, result in zero_shot.items():
        rows = result.get("per_class")
        if not isinstance(rows, list) or len(rows) != len(result["confusion"]):
            continue
        if not all(isinstance(row, Mapping) and {"n", "predicted"} <= row.keys() for row in rows):
            continue
        out[name] = [
            {
                "label": label,
                "n": row["n"],
                "predicted": row["predicted"],
                "cells": [
                    (row[key] if is_number(row.get(key)) else None, span(row.get(f"{key}_ci95")))
                    for key in PER_CLASS
                ],
            }
            for label, row in zip(class_names(result), rows, strict=True)
        ]
    return out


def reliability(zero_shot: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a reliability diagram for each evaluation that has the bins for it."""
    charts = []
    for name, result in zero_shot.items():
        bins = result.get("reliability")
        if (
            not isinstance(bins, list)
            or len(bins) != CALIBRATION_BINS
            or not all(map(_is_bin, bins))
        ):
            continue
        if not is_number(result.get("ece")) or not sum(b["n"] for b in bins):
            continue
        interval = span(result.get("ece_ci95"))
        error = f"error {number(result['ece'])}{f' ({interval})' if interval else ''}"
        chart = plots.reliability(bins, name)
        charts.append({"title": name, "aside": error, "chart": chart, "legend": Markup()})
    return charts


def _is_bin(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or type(entry.get("n")) is not int or entry["n"] < 0:
        return False
    shares = [entry.get(key) for key in ("confidence", "accuracy")]
    return not entry["n"] or all(is_number(s) and -1e-4 < float(s or 0) < 1 + 1e-4 for s in shares)


def sensitivity(zero_shot: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return dataset -> `all`, `rows` and `templates`.

    `all` has the figures with all prompts. `rows` has a row for each kind of choice: its label, the
    number of choices, a picture, and (median, formatted range) of each figure. `templates` has
    (template, figures).
    """
    out = {}
    for name, result in zero_shot.items():
        kinds = result.get("prompt_sensitivity")
        if not isinstance(kinds, Mapping):
            continue
        rows = []
        for kind, label in _KINDS.items():
            entry = kinds.get(kind)
            if not isinstance(entry, Mapping) or not _spread(entry.get("balanced_accuracy")):
                continue
            low, median, high = _spread(entry["balanced_accuracy"]) or (0.0, 0.0, 0.0)
            rows.append(
                {
                    "label": label,
                    "choices": entry.get("choices"),
                    "picture": plots.interval(median, low, high, [result["balanced_accuracy"]]),
                    "cells": [_spread_cell(entry.get(key)) for key in _SPREAD],
                }
            )
        if rows:
            out[name] = {
                "all": [result[key] for key in _SPREAD],
                "rows": rows,
                "templates": _templates(kinds.get("template")),
            }
    return out


def _spread(value: Any) -> tuple[float, float, float] | None:
    """Return minimum, median and maximum if they are valid, else None."""
    if not isinstance(value, Mapping):
        return None
    figures = [value.get(key) for key in ("min", "median", "max")]
    if not all(is_number(figure) for figure in figures):
        return None
    low, median, high = (float(figure) for figure in figures if figure is not None)
    return low, median, high


def _spread_cell(value: Any) -> tuple[float | None, str]:
    spread = _spread(value)
    return (spread[1], span([spread[0], spread[2]])) if spread else (None, "")


def _templates(entry: Any) -> list[tuple[str, list[float | None]]]:
    values = entry.get("values") if isinstance(entry, Mapping) else None
    if not isinstance(values, list) or not all(isinstance(row, Mapping) for row in values):
        return []
    return [
        (str(row.get("template")), [row[k] if is_number(row.get(k)) else None for k in _SPREAD])
        for row in values
    ]


def comparison_tables(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prepare the results of `paired.compare_each` for the page."""
    return [
        {
            **row,
            "tests": [
                {
                    "label": label,
                    **row["tests"][key],
                    "span": _signed_span(row["tests"][key]["difference_ci95"]),
                    "sure": (row["tests"][key]["p"] or 1) < 0.05,
                }
                for key, label in METRICS.items()
            ],
        }
        for row in rows
    ]


def signed(value: float | None) -> str:
    """Format a difference with its sign, or a dash if it is not defined."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _signed_span(value: Sequence[float] | None) -> str:
    return f"{signed(value[0])} to {signed(value[1])}" if value else ""


def prompt_lists(result: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare a result's `prompts`: the fields of a `PromptSet`, its name, or bare lists."""
    prompts = result["prompts"]
    source = ""
    if isinstance(prompts, Mapping) and "prompts" in prompts:
        names, lists = prompts.get("class_names"), prompts["prompts"]
        heading, language = str(prompts.get("name", "")), str(prompts.get("language", ""))
        source = str(prompts.get("source", ""))
    else:
        names, lists, heading, language = None, prompts, "", ""
    if not isinstance(lists, list):
        return {"heading": str(lists), "language": "", "source": "", "classes": []}
    names = names if isinstance(names, list) else class_names(result)
    names = [*names, *(f"class {i}" for i in range(len(names), len(lists)))]
    classes = [
        (name, phrases if isinstance(phrases, list) else [phrases])
        for name, phrases in zip(names, lists, strict=False)
    ]
    return {"heading": heading, "language": language, "source": source, "classes": classes}
