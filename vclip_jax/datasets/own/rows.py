"""The rows of a table as photographs: which columns say what, and which file each row names."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.formats.tables import NO_VALUE, Table
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PARQUET, Blob
from vclip_jax.datasets.own import columns as names_of
from vclip_jax.datasets.own.columns import Wanted, named
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
from vclip_jax.datasets.own.people import person_column, person_of

_TRIED: Final = 200
"""Rows by which a column is judged."""
_USUAL: Final = ("image", "file_name", "caption", "text", "label", "split")
"""Names of columns that need no word."""


@dataclass(frozen=True)
class Chosen:
    """The columns of one table, "" for what it lacks."""

    image: str
    caption: str
    label: str
    split: str

    def person(self, columns: Sequence[str]) -> str:
        """The column, of those that are not read otherwise, that says whose eye it is, or ""."""
        return person_column(name for name in columns if name not in self._used)

    @property
    def _used(self) -> list[str]:
        return [self.image, self.caption, self.label, self.split]

    def note(self, where: str, columns: Sequence[str]) -> str:
        """What was guessed and what is not read, in a sentence; "" where nothing was."""
        used = self._used
        parts = ("image", "caption", "label", "split")
        said = [f"{part} is {name!r}" for part, name in zip(parts, used, strict=True) if name]
        unread = [name for name in columns if name not in used]
        if not unread and set(used) <= {*_USUAL, ""}:
            return ""
        rest = f"; not read: {', '.join(map(repr, unread[:8]))}" if unread else ""
        more = ", ..." if len(unread) > 8 else ""
        person = self.person(columns)
        if person and not self.split:
            more += (
                f". The splits do not follow {person!r}: photographs of one person may come to "
                "lie in two of them, unless a column says the split"
            )
        return f"{where}: {', '.join(said)}{rest}{more}."


def image_finder(wanted: Wanted) -> Callable[[Sequence[str]], int]:
    """For `read_tables`: which cell of a row names the column of photographs."""

    def find(cells: Sequence[str]) -> int:
        if wanted.image:
            hits = [i for i, cell in enumerate(cells) if _same(cell, wanted.image)]
            return hits[0] if hits else -1
        name = names_of.image_column(cells)
        return list(cells).index(name) if name else -1

    return find


def _same(cell: str, name: str) -> bool:
    return cell == name or names_of.plain(cell) == names_of.plain(name)


def image_column(table: Table, root: Path, photographs: Photographs, wanted: Wanted) -> str:
    """The column of a table that names photographs; "" for a table that has nothing to do with
    any.

    Raises:
        ValueError: one line: its cells name photographs, but no column's name is known, or there
            is no row of names.
    """
    home = relative(table.path.parent, root)

    def names_some(column: str) -> bool:
        cells = islice((row.get(column, "") for _, row in table.rows), _TRIED)
        return any(_names_photograph(cell, home, photographs) for cell in cells)

    if wanted.image:
        if any(_same(column, wanted.image) for column in table.columns):
            return named(table.columns, wanted.image, "--image-column")
    else:
        known = names_of.image_columns(table.columns)
        usable = [column for column in known if len(known) == 1 or names_some(column)]
        if usable or known:
            return (usable or known)[0]
        for column in names_of.weak_image_columns(table.columns):
            if names_some(column):
                return column
    hits = [column for column in table.columns if names_some(column)]
    words = [word for column in table.columns for word in (column, *column.split()[:1])]
    if any(_names_photograph(word, home, photographs) for word in words):
        raise ValueError(
            f"{table.path}: the first row ({', '.join(table.columns[:4])}) names a photograph and "
            "no columns: put a row above it, such as image,caption,label"
        )
    if hits:
        raise ValueError(
            f"{table.path}: no column is called 'image' or another usual name, only "
            f"{list(table.columns)}: name it with --image-column (photographs are named in "
            f"{hits[0]!r})"
        )
    return ""


def _names_photograph(cell: str, home: str, photographs: Photographs) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES) or (
        bool(cell) and not photographs.find(cell, home)[1]
    )


def choose(table: Table, image: str, wanted: Wanted) -> Chosen:
    """The columns of a table, by the names that a person gave, else by those that are known.

    Raises:
        ValueError: one line: there is neither a caption nor a label, or a column could be either.
    """
    rest = [column for column in table.columns if column != image]
    try:
        caption = (
            named(rest, wanted.caption, "--caption-column")
            if wanted.caption
            else names_of.caption_column(rest)
        )
        rest = [column for column in rest if column != caption]
        label = (
            named(rest, wanted.label, "--label-column")
            if wanted.label
            else names_of.label_column(rest)
        )
        split = named(rest, wanted.split, "--split-column") if wanted.split else _split(table, rest)
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    if not caption and not label:
        flags = [column for column in rest if _is_flag(table, column)]
        hint = (
            f"; the columns {', '.join(flags[:8])} hold 0 and 1, one for each class: put the "
            "class of each photograph into one column"
            if len(flags) > 1
            else ": name yours with --caption-column or --label-column"
        )
        raise ValueError(
            f"{table.path}: expected the column 'caption' or 'label', got "
            f"{list(table.columns)}{hint}"
        )
    return Chosen(image, caption, label, split)


def _is_flag(table: Table, column: str) -> bool:
    cells = {row.get(column, "") for _, row in table.rows}
    return cells <= {"0", "1", "0.0", "1.0", "True", "False", ""} and bool(cells - {""})


def _split(table: Table, columns: Sequence[str]) -> str:
    for column in names_of.split_columns(columns):
        cells = {row.get(column, "") for _, row in table.rows} - {""}
        known = sum(map(bool, map(split_of, cells)))
        # Rows of other values ("external") become rejects: they are of no split that is known.
        if names_of.plain(column) == "split" or (known and 2 * known >= len(cells)):
            return column
    return ""


def split_of_table(table: Path, root: Path, sheet: str = "") -> str:
    """The split that a table's sheet, file or folder is named after, or ""."""
    inner = relative(table, root)
    return split_of(sheet) or split_of(table.stem) or split_of_path(inner)


def found_in(
    table: Table, chosen: Chosen, folder: Folder, photographs: Photographs
) -> tuple[list[Found], list[str]]:
    """Each row as a photograph or a reject, and what was guessed.

    Raises:
        ValueError: one line: a number that has no name among the file's classes, or a split
            "eval" beside "test".
    """
    home = relative(table.path.parent, folder.root)
    of_table = split_of_table(table.path, folder.root, table.sheet)
    notes = [*table.notes, chosen.note(table.where, table.columns)]
    if of_table:
        notes.append(f"{table.where}: of the split {of_table}, by its name.")
    start = photographs.below([row.get(chosen.image, "") for _, row in table.rows])
    if start:
        notes.append(f"{table.where}: paths below {start!r} are taken as below the folder.")
    names: tuple[str, ...] = ()
    if table.path.suffix.lower() in PARQUET and chosen.label:
        names, _ = parquet.class_names(table.path, chosen.label)
    used = [name for name in (chosen.image, chosen.caption, chosen.label, chosen.split) if name]
    check_tests([row.get(chosen.split, "") for _, row in table.rows], table.path)
    for name in used:
        if table.rows and not any(row.get(name, "") for _, row in table.rows):
            notes.append(f"{table.where}: the column {name!r} is empty in every row.")
    person = chosen.person(table.columns)
    found = []
    loosely: list[tuple[str, str]] = []
    for number, row in table.rows:
        one = Found("", source=table.where, detail=f"{table.where}, row {number}")
        split = row.get(chosen.split, "")
        one.split = split_of(split) or of_table
        one.caption, one.label = row.get(chosen.caption, ""), row.get(chosen.label, "")
        one.person = (person, person_of(row.get(person, "")))
        _name(one, row.get(chosen.image, ""), home, start, folder, photographs)
        if formula := next((name for name in used if row.get(name) == NO_VALUE), ""):
            one.reason, one.caption, one.label = NO_VALUE, "", ""
            one.detail = f"{table.where}, row {number}, {formula!r}: open it in Excel and save it"
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
        cell = row.get(chosen.image, "").replace("\\", "/")
        if one.image and not f"/{cell}".endswith(f"/{one.key.removeprefix(f'{home}/')}"):
            loosely.append((cell, one.key))
    if loosely:
        cell, key = loosely[0]
        notes.append(
            f"{table.where}: {len(loosely)} rows name their photograph by the end of its "
            f"path, such as {cell!r} for {key}."
        )
    return found, notes


def path_of(cell: str, start: str) -> str:
    """A cell, without the start that all absolute paths of a table share (`Photographs.below`)."""
    if not is_absolute(cell):
        return cell
    text = cell.replace("\\", "/")
    return text[len(start) + 1 :] if text.startswith(f"{start}/") else text.lstrip("/")


def _name(
    one: Found, cell: str, home: str, start: str, folder: Folder, photographs: Photographs
) -> None:
    """Key and image of a row by its cell."""
    several = listed(cell) or [cell]
    cell = several[0] if len(several) == 1 else cell
    text = path_of(cell, start)
    key, reason = photographs.find(text, home, one.split)
    one.key = key or one.detail
    if reason == "missing image" and key and os.path.isfile(folder.root / key):
        # Whatever it is called, the table says that it is a photograph; a link leads to another.
        real = relative(os.path.realpath(folder.root / key), os.path.realpath(folder.root))
        one.key = key = real if real in photographs else key
        reason = ""
    if not reason and key in folder.unusable:
        reason, detail = folder.unusable[key]
        one.detail = f"{one.detail}: {detail}"
    elif reason == "outside the folder":
        one.detail = f"{one.detail}: {cell}: name a folder as --source that holds all"
    elif reason == "ambiguous image":
        one.detail = f"{one.detail}: {cell}: {' or '.join(photographs.alike(text)[:4])}"
    elif reason:
        one.detail = f"{one.detail}: {cell or 'no path'}"
    else:
        one.image = Blob(os.path.join(folder.root, key))
    one.reason = reason


def unlisted(found: Sequence[Found], folder: Folder, *, everywhere: bool) -> list[Found]:
    """Photographs that no table lists, and what could not be read: of the whole folder, or of
    the folders that listed ones lie in."""
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
