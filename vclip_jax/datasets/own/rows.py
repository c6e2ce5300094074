"""The rows of a table as photographs: the file of each row, its caption, class and split."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.formats.tables import LOST_DIGITS, NO_VALUE, Row, Table
from vclip_jax.datasets.listing import PARQUET, Blob
from vclip_jax.datasets.own.chosen import Chosen, shared_columns
from vclip_jax.datasets.own.eyes import side_column, side_of, side_of_file
from vclip_jax.datasets.own.facts import facts_of
from vclip_jax.datasets.own.folders import Folder
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import listed
from vclip_jax.datasets.own.lookup import (
    Photographs,
    check_tests,
    is_absolute,
    relative,
    split_of,
    split_of_path,
)
from vclip_jax.datasets.own.people import person_of
from vclip_jax.files.errors import few

_FAULTS: Final = {
    NO_VALUE: "open it in Excel and save it",
    LOST_DIGITS: "Excel keeps 15 digits of a number, and fewer in CSV (1.23E+17): format the "
    "column as text and fill it again",
}
"""Excel cells without a usable value, and the remedy."""


def split_of_table(table: Path, root: Path, sheet: str = "") -> str:
    """Return the split in the name of a table's sheet, file or folder, or ""."""
    inner = relative(table, root)
    return split_of(sheet) or split_of(table.stem) or split_of_path(inner)


@dataclass(frozen=True)
class _Reading:
    """A table with everything that its rows are read by."""

    table: Table
    chosen: Chosen
    folder: Folder
    photographs: Photographs
    home: str
    """The table's folder, relative to the dataset's folder."""
    start: str
    """The folder that absolute paths start with, in place of the dataset's folder."""
    rooted: bool
    """True if some photographs are found below `start`: the others are really missing."""
    split: str
    """The split that the table is named after, or ""."""
    side: str
    """The eye that the table is named after, or ""."""
    people: list[str]
    """The column that names the patient, or ""."""
    sides: str
    """The column that names the eye, or ""."""
    facts: dict[str, str]
    """Fact -> the column that gives it."""
    classes: tuple[str, ...]
    """Class names, if the labels are numbers of classes."""

    @property
    def used(self) -> list[str]:
        """Names of the columns that are read."""
        one = self.chosen
        flags = [flag.column for flag in one.findings]
        return [name for name in (one.image, one.caption, one.label, one.split, *flags) if name]

    def cells(self, column: str) -> list[str]:
        """Return a column from top to bottom."""
        return [row.get(column, "") for _, row in self.table.rows]


@dataclass(frozen=True)
class _Named:
    """A row as a photograph or a reject, and how the row names the photograph."""

    one: Found
    cell: str
    by_end: bool
    """True if only the end of a path outside the folder matched."""


def found_in(
    table: Table, chosen: Chosen, folder: Folder, photographs: Photographs
) -> tuple[list[Found], list[str]]:
    """Return each row as a photograph or a reject, and notes on guesses.

    Raises:
        ValueError: one line: a number has no name among the file's classes, or there is a split
            "eval" besides "test".
    """
    reading = _reading_of(table, chosen, folder, photographs)
    check_tests(reading.cells(chosen.split), table.path)
    rows = [(number, row) for number, row in table.rows if not _is_of_other_eye(reading, row)]
    named = [_read_row(reading, number, row) for number, row in rows]
    _reject_shared_ends(named)
    notes = [*table.notes, *_notes_of_columns(reading), *_notes_of_ends(reading, named)]
    if single := len(table.rows) - len(rows):
        notes.append(f"{table.where}: {single} rows name no photograph of the {table.side} eye.")
    return [row.one for row in named], notes + _notes_of_parts(reading, named)


def _reading_of(table: Table, chosen: Chosen, folder: Folder, photographs: Photographs) -> _Reading:
    home = relative(table.path.parent, folder.root)
    cells = [row.get(chosen.image, "") for _, row in table.rows]
    start = photographs.below(cells)
    classes: tuple[str, ...] = ()
    if table.path.suffix.lower() in PARQUET and chosen.label:
        classes, _ = parquet.class_names(table.path, chosen.label)
    return _Reading(
        table=table,
        chosen=chosen,
        folder=folder,
        photographs=photographs,
        home=home,
        start=start,
        rooted=is_rooted(cells, start, photographs, home),
        split=split_of_table(table.path, folder.root, table.sheet),
        side=table.side or side_of_file(table.sheet) or side_of_file(table.path.stem),
        people=chosen.people(table.columns),
        sides=side_column(table.columns),
        facts=chosen.facts(table.columns),
        classes=classes,
    )


def _notes_of_columns(reading: _Reading) -> list[str]:
    """Note the guesses about the columns, before any row is read."""
    table = reading.table
    where = f"{table.where}, the {table.side} eye" if table.side else table.where
    notes = [reading.chosen.note(where, table.columns), *reading.chosen.notes]
    if shared := [name for name in shared_columns(table) if name not in reading.used]:
        notes.append(
            f"{table.where}: {few(map(repr, shared))} is for both eyes and not read: name it "
            "with --label-column or --caption-column if it is true of each."
        )
    if reading.split:
        notes.append(f"{table.where}: belongs to the split {reading.split}, by its name.")
    if reading.side and not table.side and not reading.sides:
        notes.append(f"{table.where}: is of the {reading.side} eye, by its name.")
    sides = [cell for cell in reading.cells(reading.sides) if cell] if reading.sides else []
    if unknown := [cell for cell in sides if not side_of(cell)]:
        notes.append(
            f"{table.where}: {len(unknown)} cells of {reading.sides!r} name no eye, such as "
            f"{unknown[0]!r}, and are not stored: write left and right."
        )
    if reading.start:
        notes.append(f"{table.where}: paths below {reading.start!r} are taken as below the folder.")
    for name in reading.used:
        if table.rows and not any(reading.cells(name)):
            notes.append(f"{table.where}: the column {name!r} is empty in every row.")
    for column in reading.people:
        if lost := reading.cells(column).count(LOST_DIGITS):
            notes.append(
                f"{table.where}: {lost} cells of {column!r} are numbers that have lost digits in "
                "Excel and name nobody: format the column as text and fill it again."
            )
    return notes


def _is_of_other_eye(reading: _Reading, row: Row) -> bool:
    """Return whether a row of both eyes names a photograph of the other eye only."""
    table = reading.table
    has_own = bool(row.get(reading.chosen.image))
    return bool(table.side) and not has_own and any(row.get(name) for name in table.eyes)


def _read_row(reading: _Reading, number: int, row: Row) -> _Named:
    table, chosen = reading.table, reading.chosen
    one = Found("", source=f"{table.path}\0{table.sheet}", detail=f"{table.where}, row {number}")
    one.split = split_of(row.get(chosen.split, "")) or reading.split
    one.caption, one.label = row.get(chosen.caption, ""), row.get(chosen.label, "")
    one.labelled = bool(chosen.label)
    cells = {name: row.get(name, "") for name in reading.people}
    one.people = {n: "" if cell == LOST_DIGITS else person_of(cell) for n, cell in cells.items()}
    one.group = next(filter(None, (row.get(name) for name in table.eyes)), "")
    side = table.side or side_of(row.get(reading.sides, "")) or reading.side
    one.facts = facts_of(row, reading.facts, side)
    cell = row.get(chosen.image, "")
    cell = "" if cell in _FAULTS else cell
    by_end = _name(reading, one, cell, side)
    _check_cells(reading, one, number, row)
    return _Named(one, cell, by_end)


def _check_cells(reading: _Reading, one: Found, number: int, row: Row) -> None:
    """Reject a row for a fault of its cells; read the flags, and the numbers of classes."""
    table = reading.table
    for fault, remedy in _FAULTS.items():
        if name := next((name for name in reading.used if row.get(name) == fault), ""):
            one.reason, one.caption, one.label = fault, "", ""
            one.detail = f"{table.where}, row {number}, {name!r}: {remedy}"
    if table.ragged and any(name not in row for name in reading.used) and not one.reason:
        one.reason = "cells are missing"
    split = row.get(reading.chosen.split, "")
    if split and not split_of(split) and not one.reason:
        one.reason, one.detail = "unknown split", f"{one.detail}: {split!r}"
    if reading.classes and not one.reason:
        one.is_name = True
        try:
            names, one.reason = parquet.names_of(one.label, reading.classes)
        except ValueError as error:
            raise ValueError(f"{table.path}, row {number}: {error}") from error
        one.set_classes(names)
    one.read_flags(row, reading.chosen.findings)


def _reject_shared_ends(named: Sequence[_Named]) -> None:
    """Reject rows that match by the end of a path if another path fits the same photograph."""
    direct = {row.one.key for row in named if row.one.image and not row.by_end}
    cells: dict[str, set[str]] = {}
    for row in named:
        if row.by_end:
            cells.setdefault(row.one.key, set()).add(row.cell)
    for row in named:
        key = row.one.key
        if row.by_end and (len(cells[key]) > 1 or key in direct):
            row.one.reason = row.one.reason or "ambiguous image"
            row.one.detail = f"{row.one.detail}: {row.cell}: another path fits {key}, too"


def _notes_of_ends(reading: _Reading, named: Sequence[_Named]) -> list[str]:
    """Note rows that name their photograph by the end of a path outside the folder."""
    fits = [row for row in named if row.by_end and not row.one.reason]
    if not fits:
        return []
    return [
        f"{reading.table.where}: {len(fits)} rows name paths outside the folder; the photograph is "
        f"the only one that ends so, such as {fits[0].one.key} for {fits[0].cell!r}."
    ]


def _notes_of_parts(reading: _Reading, named: Sequence[_Named]) -> list[str]:
    """Note rows that name their photograph by a part of its path within the folder."""
    loosely = []
    for row in named:
        cell, key = row.cell.replace("\\", "/"), row.one.key
        within = key.removeprefix(f"{reading.home}/")
        if row.one.image and not row.by_end and not f"/{cell}".endswith(f"/{within}"):
            loosely.append((cell, key))
    if not loosely:
        return []
    cell, key = loosely[0]
    return [
        f"{reading.table.where}: {len(loosely)} rows name their photograph by the end of its path, "
        f"such as {cell!r} for {key}."
    ]


def path_of(cell: str, start: str) -> str:
    """Return a cell without the common start of a table's absolute paths (`Photographs.below`)."""
    if not is_absolute(cell):
        return cell
    text = cell.replace("\\", "/")
    return text[len(start) + 1 :] if text.startswith(f"{start}/") else text.lstrip("/")


def is_rooted(cells: Sequence[str], start: str, photographs: Photographs, home: str = "") -> bool:
    """Return whether paths are found below the common start, so that the others are missing."""
    return bool(start) and any(
        not photographs.find(path_of(cell, start), home)[1] for cell in cells
    )


def find(
    cell: str,
    start: str,
    rooted: bool,
    photographs: Photographs,
    home: str = "",
    split: str = "",
    side: str = "",
) -> tuple[str, str, bool]:
    """Find the photograph that a cell names, also by the end of a path outside the folder.

    Returns:
        The key, "", and whether the end of the path decided; or the path, the reason, and False.
    """
    key, reason = photographs.find(path_of(cell, start), home, split, side)
    outside = reason == "outside the folder"
    outside = outside or (reason == "missing image" and is_absolute(cell) and not rooted)
    end = photographs.by_end(cell, split, side) if outside else ""
    return (end, "", True) if end else (key, reason, False)


def _name(reading: _Reading, one: Found, cell: str, side: str) -> bool:
    """Set key and image of a row by its cell; return whether only a path's end matched."""
    folder, photographs = reading.folder, reading.photographs
    several = listed(cell) or [cell]
    cell = several[0] if len(several) == 1 else cell
    key, reason, ended = find(
        cell, reading.start, reading.rooted, photographs, reading.home, one.split, side
    )
    one.key = key or one.detail
    if reason == "missing image" and key and os.path.isfile(folder.root / key):
        # By the table it is a photograph, whatever its suffix; a link may lead to another key.
        real = relative(os.path.realpath(folder.root / key), os.path.realpath(folder.root))
        one.key = key = real if real in photographs else key
        reason = ""
    if not reason and key in folder.unusable:
        reason, detail = folder.unusable[key]
        one.detail = f"{one.detail}: {detail}"
    elif reason == "outside the folder":
        one.detail = f"{one.detail}: {cell}: give a folder as --source that holds all"
    elif reason == "ambiguous image":
        alike = photographs.alike(path_of(cell, reading.start))[:4]
        one.detail = f"{one.detail}: {cell}: {' or '.join(alike)}"
    elif reason:
        one.detail = f"{one.detail}: {cell or 'no path'}"
    else:
        one.image = Blob(os.path.join(folder.root, key))
    one.reason = reason
    return ended


def unlisted(found: Sequence[Found], folder: Folder, *, everywhere: bool) -> list[Found]:
    """List photographs in no table, and files that could not be read.

    They are those of the whole folder, or only of the folders with listed photographs.
    """
    listed = {one.key for one in found}
    folders = {one.key.rpartition("/")[0] for one in found if one.image}
    missing = [
        Found(
            key, reason="missing row", detail=f"{os.path.join(folder.root, key)}: nothing lists it"
        )
        for key in folder.photographs
        if key not in listed and (everywhere or key.rpartition("/")[0] in folders)
    ]
    unusable = [
        Found(key, reason=reason, detail=detail)
        for key, (reason, detail) in sorted(folder.unusable.items())
        if key not in listed and (everywhere or key.rpartition("/")[0] in folders)
    ]
    return missing + unusable
