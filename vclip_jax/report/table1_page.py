"""The report of several systems on the same images: `report.html`, made from `table1.json`."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from etils import epath

from vclip_jax.evaluation.metrics import bootstrap, paired, paper, predictions
from vclip_jax.report import figures
from vclip_jax.report.reader import TABLE, read_table
from vclip_jax.report.templates import put_page, render_template

TESTED = ("accuracy", "balanced_accuracy", "auc", "kappa")


def write_systems_report(
    workdir: str | os.PathLike[str], *, resamples: int = bootstrap.RESAMPLES
) -> epath.Path:
    """Write `workdir/report.html` from `table1.json` and the systems' predictions.

    Args:
        workdir: the workdir of a `vclip eval` with `config.systems`.
        resamples: the number of resamples of the paired tests; 0 for no tests.

    Returns:
        The path of the page.

    Raises:
        ValueError: there is no `table1.json`, or it cannot be read.
    """
    folder = epath.Path(workdir)
    table, notices = read_table(folder)
    names = paper.in_order_of_columns(
        dict.fromkeys(d for row in table.values() for d in row["results"])
    )
    sections = []
    for dataset in names:
        tests, more = _tests(folder, table, dataset, resamples) if resamples else ([], [])
        notices += more
        sections.append({"name": dataset, "rows": _rows(table, dataset), "tests": tests})
    page = render_template(
        "systems.html",
        title=folder.name,
        notices=notices,
        overview=[_overview(name, row, names) for name, row in table.items()],
        datasets=names,
        sections=sections,
        metrics={key: figures.METRICS[key] for key in TESTED},
        paper=paper,
    )
    return put_page(folder / "report.html", page)


def is_systems_workdir(workdir: str | os.PathLike[str]) -> bool:
    """Return whether a workdir is of several systems, for `write_systems_report`."""
    return (epath.Path(workdir) / TABLE).exists()


def _overview(name: str, row: Mapping[str, Any], datasets: list[str]) -> dict[str, Any]:
    """Return a system's row: the link to its own report, its accuracies and the paper's."""
    cells = []
    for dataset in datasets or paper.DATASETS:
        result = row["results"].get(dataset)
        cells.append(
            {
                "accuracy": result["accuracy"] if result else None,
                "span": figures.span(result["accuracy_ci95"]) if result else "",
                "paper": paper.published(name, dataset),
            }
        )
    return {
        "name": name,
        "missing": row["missing"],
        "link": f"systems/{quote(name, safe='')}/report.html",
        "cells": cells,
    }


def _rows(table: Mapping[str, Any], dataset: str) -> list[dict[str, Any]]:
    results = {name: row["results"].get(dataset) for name, row in table.items()}
    return [
        {**row, "paper": paper.published(row["name"], dataset)}
        for row in figures.zero_shot_rows({n: r for n, r in results.items() if r})
    ]


def _tests(
    folder: epath.Path, table: Mapping[str, Any], dataset: str, resamples: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the paired tests of every two systems on a dataset, and notices of missing tests."""
    files = {
        name: predictions.path_of(folder / "systems" / name, dataset)
        for name, row in table.items()
        if dataset in row["results"]
    }
    rows, notices = paired.compare_each(files, dataset, resamples=resamples)
    return figures.comparison_tables(rows), notices
