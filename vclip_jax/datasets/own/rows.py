"""The rows of a table as photographs: the file of each row, its caption, class and split."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.formats.tables import LOST_DIGITS, NO_VALUE, Table
from vclip_jax.datasets.listing import PARQUET, Blob
from vclip_jax.datasets.own.chosen import Chosen, shared_columns
from vclip_jax.datasets.own.eyes import side_column, side_of
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


def found_in(
    table: Table, chosen: Chosen, folder: Folder, photographs: Photographs
) -> tuple[list[Found], list[str]]:
    """Return each row as a photograph or a reject, and notes on guesses.

    Raises:
        ValueError: one line: a number has no name among the file's classes, or there is a split
            "eval" besides "test".
    """
    home = relative(table.path.parent, folder.root)
    of_table = split_of_table(table.path, folder.root, table.sheet)
    where = f"{table.where}, the {table.side} eye" if table.side else table.where
    notes = [*table.notes, chosen.note(where, table.columns, bool(table.side))]
    used = [name for name in (chosen.image, chosen.caption, chosen.label, chosen.split) if name]
    if shared := [name for name in shared_columns(table) if name not in used]:
        notes.append(
            f"{table.where}: {few(map(repr, shared))} is for both eyes and not read: name it "
            "with --label-column or --caption-column if it is true of each."
        )
    if of_table:
        notes.append(f"{table.where}: belongs to the split {of_table}, by its name.")
    start = photographs.below([row.get(chosen.image, "") for _, row in table.rows])
    if start:
        notes.append(f"{table.where}: paths below {start!r} are taken as below the folder.")
    names: tuple[str, ...] = ()
    if table.path.suffix.lower() in PARQUET and chosen.label:
        names, _ = parquet.class_names(table.path, chosen.label)
    check_tests([row.get(chosen.split, "") for _, row in table.rows], table.path)
    for name in used:
        if table.rows and not any(row.get(name, "") for _, row in table.rows):
            notes.append(f"{table.where}: the column {name!r} is empty in every row.")
    person = chosen.person(table.columns)
    sides = side_column(table.columns)
    of_sheet = table.side or side_of(table.sheet) or side_of(table.path.stem)
    if lost := sum(row.get(person) == LOST_DIGITS for _, row in table.rows):
        notes.append(
            f"{table.where}: {lost} cells of {person!r} are numbers that have lost digits in Excel "
            "and name nobody: format the column as text and fill it again."
        )
    found = []
    loosely: list[tuple[str, str]] = []
    by_end: dict[str, list[tuple[str, Found]]] = {}
    direct: set[str] = set()
    single = 0
    rooted = is_rooted(
        [row.get(chosen.image, "") for _, row in table.rows], start, photographs, home
    )
    for number, row in table.rows:
        one = Found("", source=table.where, detail=f"{table.where}, row {number}")
        split = row.get(chosen.split, "")
        one.split = split_of(split) or of_table
        one.caption, one.label = row.get(chosen.caption, ""), row.get(chosen.label, "")
        whose = row.get(person, "")
        one.person = (person, "" if whose == LOST_DIGITS else person_of(whose))
        one.group = one.person[1] if table.side else ""
        one.group = one.group or next(filter(None, (row.get(name) for name in table.eyes)), "")
        side = (row.get(sides, "") and side_of(row[sides])) or of_sheet
        cell = row.get(chosen.image, "")
        if table.side and not cell and any(row.get(name) for name in table.eyes):
            single += 1
            continue
        cell = "" if cell in _FAULTS else cell
        ended = _name(one, cell, home, start, folder, photographs, table.side or side, rooted)
        if ended:
            by_end.setdefault(one.key, []).append((cell, one))
        elif one.image:
            direct.add(one.key)
        for fault, remedy in _FAULTS.items():
            if name := next((name for name in used if row.get(name) == fault), ""):
                one.reason, one.caption, one.label = fault, "", ""
                one.detail = f"{table.where}, row {number}, {name!r}: {remedy}"
        if table.ragged and any(name not in row for name in used) and not one.reason:
            one.reason = "cells are missing"
        if split and not split_of(split) and not one.reason:
            one.reason, one.detail = "unknown split", f"{one.detail}: {split!r}"
        if names and not one.reason:
            one.is_name = True
            try:
                one.label, one.reason = parquet.name_of(one.label, names)
            except ValueError as error:
                raise ValueError(f"{table.path}, row {number}: {error}") from error
        found.append(one)
        cell = cell.replace("\\", "/")
        if (
            one.image
            and not ended
            and not f"/{cell}".endswith(f"/{one.key.removeprefix(f'{home}/')}")
        ):
            loosely.append((cell, one.key))
    for key, named_so in by_end.items():
        if len({cell for cell, _ in named_so}) > 1 or key in direct:
            for cell, one in named_so:
                one.reason = one.reason or "ambiguous image"
                one.detail = f"{one.detail}: {cell}: another path fits {key}, too"
    if fits := [
        (cell, key) for key, named_so in by_end.items() for cell, one in named_so if not one.reason
    ]:
        cell, key = fits[0]
        notes.append(
            f"{table.where}: {len(fits)} rows name paths outside the folder; the photograph is the "
            f"only one that ends so, such as {key} for {cell!r}."
        )
    if single:
        notes.append(f"{table.where}: {single} rows name no photograph of the {table.side} eye.")
    if loosely:
        cell, key = loosely[0]
        notes.append(
            f"{table.where}: {len(loosely)} rows name their photograph by the end of its "
            f"path, such as {cell!r} for {key}."
        )
    return found, notes


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


def _name(
    one: Found,
    cell: str,
    home: str,
    start: str,
    folder: Folder,
    photographs: Photographs,
    side: str,
    rooted: bool,
) -> bool:
    """Set key and image of a row by its cell; return whether only a path's end matched."""
    several = listed(cell) or [cell]
    cell = several[0] if len(several) == 1 else cell
    key, reason, ended = find(cell, start, rooted, photographs, home, one.split, side)
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
        one.detail = (
            f"{one.detail}: {cell}: {' or '.join(photographs.alike(path_of(cell, start))[:4])}"
        )
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
