"""The plain-text table of a zero-shot evaluation, printed at the end of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vclip_jax.evaluation.metrics.classification import mean_over
from vclip_jax.files.errors import few

Results = Mapping[str, Mapping[str, Any]]

_HEADER = (
    "dataset",
    "n",
    "classes",
    "AUC",
    "accuracy [95% CI]",
    "chance",
    "majority",
    "balanced",
    "kappa",
)


def chance(result: Mapping[str, Any]) -> float:
    """Return the accuracy of guessing among the classes with equal odds."""
    return 1 / len(result["confusion"])


def majority(result: Mapping[str, Any]) -> float:
    """Return the accuracy of always predicting the most frequent class."""
    totals = np.asarray(result["confusion"]).sum(axis=1)
    return float(totals.max() / totals.sum())


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure with fixed decimals; a dash if it is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def averaged(zero_shot: Results) -> list[str]:
    """Return the datasets whose mean is shown: rendered stand-ins (`*_like`) if any, else all.

    A mean over both rendered and real photographs would mean little.
    """
    return [name for name in zero_shot if name.endswith("_like")] or list(zero_shot)


def format_table(zero_shot: Results, mean_of: Sequence[str] | None = None) -> str:
    """Format results (the content of `zero_shot.json`) in aligned columns.

    Args:
      zero_shot: dataset name -> the dict of `metrics.classification`.
      mean_of: the names whose mean is the last row; None for all. With fewer than two names there
        is no such row.

    Raises:
      ValueError: `mean_of` holds a name that was not evaluated.
    """
    names = list(zero_shot) if mean_of is None else list(mean_of)
    unknown = [name for name in names if name not in zero_shot]
    if unknown:
        raise ValueError(f"no result for {unknown[0]!r}; there are {few(zero_shot) or 'none'}")
    rows = [_HEADER, *(_row(name, result) for name, result in zero_shot.items())]
    if len(names) > 1:
        rows.append(_mean_row(zero_shot, names))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if len(names) > 1:
        lines.insert(-1, rule)
    return "\n".join(lines)


def _row(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    lo, hi = result["accuracy_ci95"]
    return (
        name,
        f"{result['n']:,}",
        str(len(result["confusion"])),
        number(result["auc"]),
        f"{number(result['accuracy'])} [{number(lo)}, {number(hi)}]",
        number(chance(result)),
        number(majority(result)),
        number(result["balanced_accuracy"]),
        number(result["kappa"]),
    )


def _mean_row(zero_shot: Results, names: list[str]) -> tuple[str, ...]:
    accuracy = number(mean_over(zero_shot, "accuracy", names)) + " " * len(" [0.000, 0.000]")
    return (
        f"mean of {len(names)}",
        f"{sum(zero_shot[name]['n'] for name in names):,}",
        "",
        number(mean_over(zero_shot, "auc", names)),
        accuracy,
        number(float(np.mean([chance(zero_shot[name]) for name in names]))),
        number(float(np.mean([majority(zero_shot[name]) for name in names]))),
        *(number(mean_over(zero_shot, key, names)) for key in ("balanced_accuracy", "kappa")),
    )
