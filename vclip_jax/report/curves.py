"""Charts of a run's metrics by step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from vclip_jax.report import plots
from vclip_jax.report.figures import METRICS
from vclip_jax.tracking.metrics_log import NO_VALUES

Log = Sequence[Mapping[str, Any]]
"""The rows of `metrics.jsonl`, ordered by step."""

_CURVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "loss": ("Loss", {"from_zero": True}),
    "learning_rate": ("Learning rate", {"from_zero": True}),
    "logit_scale": ("Logit scale", {}),
    "grad_norm": ("Gradient norm", {"log": True}),
    "examples_per_second": ("Examples per second", {"from_zero": True}),
    "data_wait_fraction": ("Data wait, share of time", {"from_zero": True}),
}
_CURVE_METRICS = {"loss": "Loss", **METRICS}
_UNIT_METRICS = {"accuracy", "balanced_accuracy", "auc", "f1", "ece"}
_NOT_CURVES = {*NO_VALUES, "n"}


def _series(metrics: Log, key: str, label: str) -> tuple[plots.Series | None, int]:
    """Return the finite values of a key, and the number of other values."""
    rows = [(row["step"], row[key]) for row in metrics if type(row.get(key)) in (int, float)]
    finite = [(step, value) for step, value in rows if np.isfinite(value)]
    if not finite:
        return None, len(rows)
    steps, values = np.asarray(finite, np.float64).T
    return plots.Series(label, steps, values), len(rows) - len(finite)


def training_curves(metrics: Log) -> tuple[list[dict[str, Any]], int]:
    """Return charts of training metrics, known keys first, and the number of values left out."""
    charts, lost = [], 0
    for key in _training_keys(_keys(metrics)):
        title, options = _training_chart(key)
        series, bad = _series(metrics, key, title)
        lost += bad
        if series is not None:
            chart = plots.line_chart([series], title, **options)
            last = plots.compact(float(f"{series.values[-1]:.4g}"))
            charts.append(
                {
                    "title": title,
                    "aside": f"last {last}",
                    "chart": chart,
                    "legend": Markup(""),
                    "series": [series],
                }
            )
    return charts, lost


def validation_curves(metrics: Log, datasets: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """Return a chart for each metric of the keys `eval/DATASET/METRIC`, with a line per dataset.

    Also returns the number of values left out. If all values are of one step there are no charts.
    """
    by_metric: dict[str, list[plots.Series]] = {}
    lost = 0
    for key, (dataset, metric) in _validation_keys(_keys(metrics), datasets).items():
        series, bad = _series(metrics, key, dataset)
        lost += bad
        if series is not None:
            by_metric.setdefault(metric, []).append(series)
    if len({step for lines in by_metric.values() for one in lines for step in one.steps}) == 1:
        return [], lost  # a dot is no curve: see `tables.single_step`
    charts = []
    for metric in _in_order(by_metric):
        series_list = by_metric[metric]
        title, options = _validation_chart(metric)
        chart = plots.line_chart(series_list, title, **options)
        legend = plots.legend([s.label for s in series_list])
        charts.append(
            {"title": title, "aside": "", "chart": chart, "legend": legend, "series": series_list}
        )
    return charts, lost


def single_step(
    metrics: Log, datasets: Iterable[str]
) -> tuple[int, dict[str, dict[str, float]]] | None:
    """Return the step and dataset -> metric title -> value if all evaluations are of one step."""
    found: dict[str, dict[str, float]] = {}
    steps: set[float] = set()
    keys = _validation_keys(_keys(metrics), datasets)
    titles = {metric: _validation_chart(metric)[0] for _, metric in keys.values()}
    for key, (dataset, metric) in keys.items():
        series, _ = _series(metrics, key, dataset)
        if series is not None:
            steps |= set(series.steps.tolist())
            found.setdefault(dataset, {})[titles[metric]] = float(series.values[-1])
    return (int(steps.pop()), found) if len(steps) == 1 else None


def overlaid_training(logs: Mapping[str, Log]) -> list[dict[str, Any]]:
    """Return charts as `training_curves` does, with a line in its colour per run (name -> log)."""
    charts = []
    for key in _training_keys(_keys(*logs.values())):
        title, options = _training_chart(key)
        charts += _overlaid(logs, key, title, options)
    return charts


def overlaid_validation(
    logs: Mapping[str, Log], datasets: Iterable[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return dataset -> a chart for each metric, with a line per run (name -> log)."""
    keys = _validation_keys(_keys(*logs.values()), datasets)
    out: dict[str, list[dict[str, Any]]] = {}
    for dataset in dict.fromkeys(dataset for dataset, _ in keys.values()):
        key_of = {metric: key for key, (name, metric) in keys.items() if name == dataset}
        charts = []
        for metric in _in_order(key_of):
            title, options = _validation_chart(metric)
            charts += _overlaid(logs, key_of[metric], title, options)
        if charts:
            out[dataset] = charts
    return out


def not_finite(metrics: Log) -> int:
    """Return the number of values that curves leave out because they are not finite."""
    values = (v for row in metrics for k, v in row.items() if k not in _NOT_CURVES)
    return sum(type(value) is float and not np.isfinite(value) for value in values)


def _overlaid(
    logs: Mapping[str, Log], key: str, title: str, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the chart of a key in a list, which is empty if no run has a value."""
    series = [_series(log, key, label)[0] for label, log in logs.items()]
    lines = [replace(line, colour=place) for place, line in enumerate(series) if line is not None]
    if not lines:
        return []
    chart = plots.line_chart(lines, title, **options)
    return [{"title": title, "aside": "", "chart": chart, "legend": Markup("")}]


def _keys(*logs: Log) -> list[str]:
    """Return the keys of logs in the order in which they occur."""
    return list(dict.fromkeys(key for log in logs for row in log for key in row))


def _training_keys(keys: Iterable[str]) -> list[str]:
    others = [k for k in keys if k not in _CURVES and k not in _NOT_CURVES and "/" not in k]
    return [*_CURVES, *others]


def _training_chart(key: str) -> tuple[str, Mapping[str, Any]]:
    """Return the title and the options of a chart."""
    return _CURVES.get(key, (key.replace("_", " "), {}))


def _validation_keys(keys: Iterable[str], datasets: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return key -> dataset and metric."""
    datasets = list(datasets)
    split = {key: _split_key(key, datasets) for key in keys if key.startswith("eval/")}
    return {key: names for key, names in split.items() if names[1] not in _NOT_CURVES}


def _validation_chart(metric: str) -> tuple[str, Mapping[str, Any]]:
    """Return the title and the options of a chart."""
    share = metric in _UNIT_METRICS or metric.endswith(("_r1", "_r5", "_r10"))
    limits = (0.0, 1.0) if share else None
    title = _CURVE_METRICS.get(metric, metric.replace("_", " "))
    return title, {"limits": limits, "from_zero": metric in ("loss", "nll", "brier")}


def _in_order(metrics: Iterable[str]) -> list[str]:
    """Sort metrics: those with a known title first, in the order of the titles."""
    metrics = list(metrics)
    known = [m for m in _CURVE_METRICS if m in metrics]
    return [*known, *(m for m in metrics if m not in known)]


def _split_key(key: str, datasets: Iterable[str]) -> tuple[str, str]:
    """Split `eval/DATASET/METRIC`, where either name may hold a slash, by the known datasets."""
    rest = key.removeprefix("eval/")
    for dataset in datasets:
        if rest.startswith(f"{dataset}/"):
            return dataset, rest.removeprefix(f"{dataset}/")
    dataset, _, metric = rest.rpartition("/")
    return dataset or metric, metric
