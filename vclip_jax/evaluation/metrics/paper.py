"""Table 1 of the VisionCLIP paper, and the column for each of a run's datasets."""

import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal


def _read() -> dict[str, Any]:
    text = resources.files("vclip_jax.evaluation.metrics").joinpath("paper.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


_PAPER = _read()
CITATION: str = _PAPER["source"]
TITLE: str = _PAPER["title"]
DATASETS: tuple[str, ...] = tuple(_PAPER["datasets"])
TABLE_1: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {row["method"]: tuple(row["values"]) for row in _PAPER["rows"]}
)
"""Method -> accuracies for `DATASETS`; the paper has no other figures and no intervals."""

Kind = Literal["real", "stand-in"]


def column_of(name: str) -> tuple[str, Kind] | None:
    """Return the column of Table 1 for a dataset, and whether the dataset is the paper's.

    Only `messidor`, `fives` and `refuge` count as real, also with a prefix such as `zh/` or a
    suffix such as `:test`. Any other name that contains one of the three, such as `messidor_like`
    or `messidor2`, is a stand-in: similar to the paper's dataset, but not the same. Domains of the
    held-out renderer, such as `messidor_far`, have no column: no dataset looks like them.
    """
    plain = name.lower().rsplit("/", 1)[-1].split(":", 1)[0]
    if re.search(r"_far\b", plain):
        return None
    for dataset in DATASETS:
        if plain == dataset.lower() and "synthetic" not in name.lower():
            return dataset, "real"
        if dataset.lower() in name.lower():
            return dataset, "stand-in"
    return None


def columns(names: Iterable[str], kind: Kind) -> dict[str, str]:
    """Return column of Table 1 -> the first of `names` that belongs there with this kind."""
    first: dict[str, str] = {}
    for name in names:
        if (place := column_of(name)) and place[1] == kind:
            first.setdefault(place[0], name)
    return first


def published(system: str, dataset: str) -> float | None:
    """Return the paper's figure for a system and a dataset, or None.

    The case of a system's name is ignored; stand-ins for a dataset have no figure.
    """
    place = column_of(dataset)
    rows = {name.lower(): figures for name, figures in TABLE_1.items()}
    if place is None or place[1] != "real" or system.lower() not in rows:
        return None
    return rows[system.lower()][DATASETS.index(place[0])]


def in_order_of_rows(systems: Iterable[str]) -> list[str]:
    """Sort systems in the order of the paper's rows, then the others."""
    rows = [name.lower() for name in TABLE_1]
    return sorted(systems, key=lambda s: rows.index(s.lower()) if s.lower() in rows else len(rows))


def in_order_of_columns(datasets: Iterable[str]) -> list[str]:
    """Sort evaluated datasets in the order of the paper's columns, then the others."""

    def column(name: str) -> int:
        place = column_of(name)
        return DATASETS.index(place[0]) if place else len(DATASETS)

    return sorted(datasets, key=column)
