"""Charts of what a run logged, step by step."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from vclip_jax.report import plots
from vclip_jax.report.evaluation import METRICS

_CURVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "loss": ("Loss", {"from_zero": True}),
    "learning_rate": ("Learning rate", {"from_zero": True}),
    "logit_scale": ("Logit scale", {}),
    "grad_norm": ("Gradient norm", {"log": True}),
    "examples_per_second": ("Examples per second", {"from_zero": True}),
    "data_wait_fraction": ("Data wait, share of time", {"from_zero": True}),
}
_CURVE_METRICS = {"loss": "Loss", **METRICS}
_UNIT_METRICS = {"accuracy", "balanced_accuracy", "auc", "f1", "ece", "r1", "r5", "r10"}
_NOT_CURVES = {"step", "time", "n"}


def _series(
    metrics: Iterable[Mapping[str, Any]], key: str, label: str
) -> tuple[plots.Series | None, int]:
    """The finite values of one key, and how many others there were."""
    rows = [(row["step"], row[key]) for row in metrics if type(row.get(key)) in (int, float)]
    finite = [(step, value) for step, value in rows if np.isfinite(value)]
    if not finite:
        return None, len(rows)
    steps, values = np.asarray(finite, np.float64).T
    return plots.Series(label, steps, values), len(rows) - len(finite)


def training_curves(metrics: tuple[Mapping[str, Any], ...]) -> tuple[list[dict[str, Any]], int]:
    """Charts of what the trainer logged, the known keys first; and the values left out."""
    keys = dict.fromkeys(key for row in metrics for key in row)
    others = [k for k in keys if k not in _CURVES and k not in _NOT_CURVES and "/" not in k]
    charts, lost = [], 0
    for key in [*_CURVES, *others]:
        title, options = _CURVES.get(key, (key.replace("_", " "), {}))
        series, bad = _series(metrics, key, title)
        lost += bad
        if series is not None:
            chart = plots.line_chart([series], title, **options)
            last = plots.compact(float(f"{series.values[-1]:.4g}"))
            charts.append(
                {"title": title, "aside": f"last {last}", "chart": chart, "legend": Markup("")}
            )
    return charts, lost


def validation_curves(
    metrics: tuple[Mapping[str, Any], ...], datasets: Iterable[str]
) -> tuple[list[dict[str, Any]], int]:
    """One chart a metric, one line a dataset, of the keys `eval/DATASET/METRIC`."""
    keys = dict.fromkeys(key for row in metrics for key in row if key.startswith("eval/"))
    by_metric: dict[str, list[plots.Series]] = {}
    lost = 0
    for key in keys:
        dataset, metric = _split_key(key, datasets)
        if metric in _NOT_CURVES:
            continue
        series, bad = _series(metrics, key, dataset)
        lost += bad
        if series is not None:
            by_metric.setdefault(metric, []).append(series)
    known = [m for m in _CURVE_METRICS if m in by_metric]
    charts = []
    for metric in [*known, *(m for m in by_metric if m not in known)]:
        series_list = by_metric[metric]
        title = _CURVE_METRICS.get(metric, metric.replace("_", " "))
        limits = (0.0, 1.0) if metric in _UNIT_METRICS else None
        chart = plots.line_chart(series_list, title, limits=limits, from_zero=metric == "loss")
        legend = plots.legend([s.label for s in series_list])
        charts.append({"title": title, "aside": "", "chart": chart, "legend": legend})
    return charts, lost


def _split_key(key: str, datasets: Iterable[str]) -> tuple[str, str]:
    """`eval/DATASET/METRIC` where either name may hold a slash; known datasets decide."""
    rest = key.removeprefix("eval/")
    for dataset in datasets:
        if rest.startswith(f"{dataset}/"):
            return dataset, rest.removeprefix(f"{dataset}/")
    dataset, _, metric = rest.rpartition("/")
    return dataset or metric, metric
