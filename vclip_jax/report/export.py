"""The tables and figures of a run for a paper: `vclip report W --export DIR`.

tables/NAME.csv     full precision; an interval is two columns, "NAME low" and "NAME high"
tables/NAME.tex     LaTeX with booktabs
figures/NAME.svg    and .csv, its data; .pdf too if cairosvg is installed
captions.md         a caption for each, with n, the unit of the intervals and their method
checklist.md        items of TRIPOD+AI and CLAIM, filled in as far as a run can
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape

from vclip_jax.evaluation.metrics import paired
from vclip_jax.files.csv_lines import csv_line, csv_table
from vclip_jax.files.errors import shown
from vclip_jax.files.writing import write_bytes, write_text
from vclip_jax.report import curves, figures, unit_curves
from vclip_jax.report.checklist import checklist
from vclip_jax.report.plots import COLOURS
from vclip_jax.report.reader import read_run
from vclip_jax.report.tables import Cell, Table, tables_of


@dataclass(frozen=True)
class Figure:
    """A chart with its data."""

    name: str
    svg: str
    data: Mapping[str, Sequence[object]]
    """Column -> values, of one length."""
    caption: str
    labels: Sequence[str] = ()
    """The names of the lines, if there are several."""


def export(workdir: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write all tables and figures of a run, and return the files.

    Files of the same names are replaced; other files in the folder stay.

    Raises:
      FileNotFoundError: `workdir` is not a folder.
      ValueError: one line: the run has no evaluation.
    """
    run = read_run(workdir)
    if not (run.zero_shot or run.findings):
        raise ValueError(f"{workdir} has no evaluation to export: run vclip eval first")
    comparisons, notices = paired.compare_systems(workdir, list(run.zero_shot))
    tables, drawn = tables_of(run, comparisons), figures_of(run)
    folder, written = Path(out), []
    names = _file_names([*(table.name for table in tables), *(one.name for one in drawn)])
    lines = ["# Captions", ""]
    for table, name in zip(tables, names, strict=False):
        path = folder / "tables" / name
        written += [_put(path.with_name(f"{name}.csv"), as_csv(table))]
        written += [_put(path.with_name(f"{name}.tex"), as_latex(table, name))]
        lines += [f"**Table {name}.** {shown(table.title)}. {shown(table.caption)}", ""]
    for figure, name in zip(drawn, names[len(tables) :], strict=True):
        path = folder / "figures" / name
        svg = standalone(figure.svg, figure.labels)
        written += [_put(path.with_name(f"{name}.svg"), svg)]
        written += [_put(path.with_name(f"{name}.csv"), csv_table(figure.data))]
        if util.find_spec("cairosvg"):
            import cairosvg

            pdf = path.with_name(f"{name}.pdf")
            write_bytes(pdf, cairosvg.svg2pdf(bytestring=svg.encode()))
            written.append(pdf)
        lines += [f"**Figure {name}.** {shown(figure.caption)}", ""]
    lines += [f"Note: {shown(notice)}" for notice in (*run.notices, *notices)]
    written.append(_put(folder / "captions.md", "\n".join(lines).rstrip() + "\n"))
    written.append(_put(folder / "checklist.md", checklist(run)))
    return written


def _put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _file_names(names: Iterable[str]) -> list[str]:
    """Return a different plain name for each: no folders, no name twice in any case."""
    found: list[str] = []
    seen: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w+-]+", "-", name).strip("-")[:80] or "table"
        tried, number = plain, 2
        while tried.casefold() in seen:
            tried, number = f"{plain}-{number}", number + 1
        seen.add(tried.casefold())
        found.append(tried)
    return found


def as_csv(table: Table) -> str:
    """Return a table as CSV in full precision."""
    spans = [any(row[at].interval for row in table.rows) for at in range(len(table.columns))]
    header: list[str] = []
    for name, has in zip(table.columns, spans, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has else [name]
    lines = [csv_line(header)]
    for row in table.rows:
        cells: list[object] = []
        for cell, has in zip(row, spans, strict=True):
            low, high = cell.interval or ("", "")
            cells += [_plain(cell.value), low, high] if has else [_plain(cell.value)]
        lines.append(csv_line(cells))
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> object:
    return "" if value is None else value


def as_latex(table: Table, label: str) -> str:
    """Return a table for LaTeX, with the packages booktabs and, for Chinese names, ctex."""
    wide = "l" + "r" * (len(table.columns) - 1)
    head = " & ".join(map(_escaped, table.columns))
    rows = [" & ".join(map(_latex, row)) + r" \\" for row in table.rows]
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}. {_escaped(table.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', label)}}}",
            rf"\begin{{tabular}}{{{wide}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(cell: Cell) -> str:
    if not cell.span:
        return _escaped(cell.text)
    return f"{_escaped(cell.text)} ({_escaped(cell.span.replace(' – ', '–'))})"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    """Return text in which nothing is a command of LaTeX."""
    return "".join(_LATEX.get(mark, mark) for mark in shown(text))


# --- figures -------------------------------------------------------------------------------------


def figures_of(run: Any) -> list[Figure]:
    """Return the figures of a run: curves of evaluations, calibration, and the training."""
    found = []
    for name, charts in unit_curves.charts(run.curves, run.zero_shot).items():
        for chart in charts:
            found.append(
                Figure(
                    f"{name}-{chart['kind']}",
                    str(chart["chart"]),
                    _unit_data(run.curves[name], chart["kind"]),
                    f"{chart['title']} of {name}. n = {run.zero_shot[name]['n']:,} images. The "
                    "band holds 95 % of the resamples at each point.",
                    chart["labels"],
                )
            )
    bins = {name: one["reliability"] for name, one in run.zero_shot.items() if "reliability" in one}
    for chart in figures.reliability(run.zero_shot):
        rows = bins[chart["title"]]
        found.append(
            Figure(
                f"{chart['title']}-reliability",
                str(chart["chart"]),
                {
                    key: [_plain(row[key]) for row in rows]
                    for key in ("n", "confidence", "accuracy")
                },
                f"Calibration on {chart['title']}: accuracy by the probability of the answer in "
                f"{len(rows)} equal bins. n = {run.zero_shot[chart['title']]['n']:,} images.",
            )
        )
    for charts, prefix in (
        (curves.training_curves(run.metrics)[0], "training"),
        (curves.validation_curves(run.metrics, run.zero_shot)[0], "evaluation"),
    ):
        for chart in charts:
            found.append(
                Figure(
                    f"{prefix}-{chart['title']}",
                    str(chart["chart"]),
                    _log_data(chart["series"]),
                    f"{chart['title']} by training step.",
                    _several([one.label for one in chart["series"]]),
                )
            )
    return found


def _several(labels: Sequence[str]) -> Sequence[str]:
    return labels if len(labels) > 1 else ()


def _unit_data(classes: Mapping[str, Any], kind: str) -> dict[str, list[object]]:
    """Return the data of a chart in rows of one class after another."""
    entry = {"roc": "roc", "precision-recall": "precision_recall", "net-benefit": "decision"}[kind]
    tables = {
        label: one[entry]
        for label, one in classes.items()
        if isinstance(one, Mapping) and isinstance(one.get(entry), Mapping)
    }
    keys = list(dict.fromkeys(key for table in tables.values() for key in table))
    rows: dict[str, list[object]] = {"class": [], **{key: [] for key in keys}}
    for label, table in tables.items():
        length = max(
            (len(values) for values in table.values() if isinstance(values, list)), default=0
        )
        rows["class"] += [label] * length
        for key in keys:
            values = table.get(key)
            good = isinstance(values, list) and len(values) == length
            rows[key] += list(values) if good else [""] * length
    return rows


def _log_data(series: Sequence[Any]) -> dict[str, list[object]]:
    rows: dict[str, list[object]] = {"series": [], "step": [], "value": []}
    for one in series:
        rows["series"] += [one.label] * len(one.steps)
        rows["step"] += [int(step) for step in one.steps]
        rows["value"] += np.asarray(one.values).tolist()
    return rows


_KEY = 16
"""The height of a line of a legend."""


def standalone(svg: str, labels: Sequence[str] = ()) -> str:
    """Return a chart of the page as a file of its own, in the colours of the light page.

    Args:
      svg: the chart.
      labels: the names of its lines, for a legend below; none for a chart of one line.
    """
    style = resources.files("vclip_jax.report").joinpath("style.css").read_text("utf-8")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", style[: style.index("}")]))
    # Only the parts of a chart: the page lays the chart itself out.
    rules = re.findall(r"^\.chart [^{ ][^{]*{[^}]*}(?: \.[^{]*{[^}]*})*", style, re.MULTILINE)
    text = re.sub(r"var\((--[\w-]+)\)", lambda match: colours[match[1]], "\n".join(rules))
    box = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"(.*?)>', svg)
    if box is None:
        raise ValueError("expected a chart of this package")
    width, height = float(box[1]), float(box[2])
    keys = "".join(
        f'<polyline class="c{row % COLOURS}" points="46,{height + _KEY * row + 8} '
        f'70,{height + _KEY * row + 8}"/><text x="76" y="{height + _KEY * row + 12}">'
        f"{escape(shown(label))}</text>"
        for row, label in enumerate(labels)
    )
    full = height + _KEY * len(labels)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{width:g}" height="{full:g}" viewBox="0 0 {width:g} {full:g}"{box[3]}>'
        f'<style>{text}</style><rect width="{width:g}" height="{full:g}" fill="#ffffff"/>'
        f"{svg[box.end() :].removesuffix('</svg>')}{keys}</svg>\n"
    )
