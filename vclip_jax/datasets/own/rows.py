"""The rows of a table as photographs: which columns say what, and which file each row names."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.formats.tables import LOST_DIGITS, NO_VALUE, Table
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PARQUET, Blob
from vclip_jax.datasets.own import columns as names_of
from vclip_jax.datasets.own.columns import Wanted, named
from vclip_jax.datasets.own.eyes import SIDES, pairs, side_column, side_of, without_side
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
_FAULTS: Final = {
    NO_VALUE: "open it in Excel and save it",
    LOST_DIGITS: "Excel keeps 15 digits of a number: format the column as text and fill it again",
}
"""Cells of Excel that hold no value, and what to do."""


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

    def note(self, where: str, columns: Sequence[str], together: bool = False) -> str:
        """What was guessed and what is not read, in a sentence; "" where nothing was.

        Args:
            where: the table.
            columns: all of it.
            together: whether the splits follow persons.
        """
        used = self._used
        parts = ("image", "caption", "label", "split")
        said = [f"{part} is {name!r}" for part, name in zip(parts, used, strict=True) if name]
        unread = [name for name in columns if name not in used]
        if not unread and set(used) <= {*_USUAL, ""}:
            return ""
        rest = f"; not read: {', '.join(map(repr, unread[:8]))}" if unread else ""
        more = ", ..." if len(unread) > 8 else ""
        person = self.person(columns)
        if person and not self.split and not together:
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
        both = names_of.image_column(list(pairs(cells)))
        name = names_of.image_column(cells) or (pairs(cells)[both][SIDES[0]] if both else "")
        return list(cells).index(name) if name else -1

    return find


def _same(cell: str, name: str) -> bool:
    return cell == name or names_of.plain(cell) == names_of.plain(name)


def by_eye(
    table: Table, root: Path, photographs: Photographs, wanted: Wanted
) -> list[tuple[Table, str]]:
    """A table with its column of photographs, or, where a row is of both eyes, what it says of each
    eye with that eye's column; nothing for a table that has nothing to do with photographs.

    Raises:
        ValueError: as `image_column` does; or several pairs of columns could be the photographs.
    """
    sided = pairs(table.columns)
    if wanted.image:
        column = image_column(table, root, photographs, wanted)
        both = next((pair for pair in sided.values() if column in pair.values()), None)
        other = next((name for name in (both or {}).values() if name != column), "")
        if both is None or not any(row.get(other) for _, row in table.rows):
            return [(table, column)] if column else []
        table.notes.append(
            f"{table.where}: a row is of both eyes, and the photographs of {other!r} are left out: "
            "without --image-column both are read."
        )
        return [(_one_eye(table, side_of(column), both), column)]
    both = _both_eyes(table, relative(table.path.parent, root), photographs)
    if both is None:
        column = image_column(table, root, photographs, wanted)
        return [(table, column)] if column else []
    table.notes.append(f"{table.where}: a row is of both eyes and lists a photograph of each.")
    return [(_one_eye(table, side, both), both[side]) for side in SIDES]


def _both_eyes(table: Table, home: str, photographs: Photographs) -> dict[str, str] | None:
    """The columns of both eyes' photographs by side, or None where a row is of one."""

    def fit(column: str) -> bool:
        cells = {row.get(column, "") for _, row in table.rows[:_TRIED]} - {""}
        return 2 * sum(_names_photograph(one, home, photographs) for one in cells) >= len(cells) > 0

    known = names_of.image_columns(table.columns)
    sided = pairs(table.columns)
    if not sided or any(map(fit, known)):
        return None
    usual = names_of.image_column(list(sided))
    # Grades of left and right may be numbers that photographs are called by, too.
    unusual = [
        rest
        for rest, pair in sided.items()
        if not names_of.said_columns([rest])
        and all(_many(table, one) and fit(one) for one in pair.values())
    ]
    if not usual and len(unusual) > 1:
        raise ValueError(
            f"{table.path}: photographs are named in the columns "
            f"{', '.join(repr(name) for rest in unusual for name in sided[rest].values())}: name "
            "one with --image-column"
        )
    rest = usual if usual and (not known or any(map(fit, sided[usual].values()))) else None
    rest = unusual[0] if rest is None and unusual else rest
    return None if rest is None else sided[rest]


def _many(table: Table, column: str) -> bool:
    """Whether most values of a column are different, as names of photographs are."""
    cells = [cell for _, row in table.rows[:_TRIED] if (cell := row.get(column, ""))]
    return 2 * len(set(cells)) > len(cells)


def _one_eye(table: Table, side: str, both: dict[str, str]) -> Table:
    """The columns of one eye, and those of both."""
    sided = pairs(table.columns)
    paired = {
        name: pair[side] for rest, pair in sided.items() for name in (*pair.values(), rest) if name
    }
    columns = tuple(name for name in table.columns if side_of(name) in ("", side))
    eyes = tuple(both[one] for one in SIDES)
    return replace(table, columns=columns, side=side, eyes=eyes, paired=paired)


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

    def fits(column: str) -> int:
        cells = [row.get(column, "") for _, row in table.rows[:_TRIED]]
        return sum(
            bool(cell) and (not photographs.find(cell, home)[1] or bool(photographs.by_end(cell)))
            for cell in cells
        )

    if wanted.image:
        if any(_same(column, wanted.image) for column in table.columns):
            return named(table.columns, wanted.image, "--image-column")
    else:
        known = names_of.image_columns(table.columns)
        usable = [column for column in known if len(known) == 1 or names_some(column)]
        if len(usable) > 1 and not (count := fits(usable[0])):
            tried = len(table.rows[:_TRIED])
            for column in usable[1:]:
                if count := fits(column):
                    table.notes.append(
                        f"{table.where}: {usable[0]!r} names no photograph that is there, "
                        f"{column!r} names {count} in the first {tried} rows and is taken."
                    )
                    return column
        if usable or known:
            return (usable or known)[0]
        weak = names_of.weak_image_columns(table.columns)
        lost = [c for c in weak if any(row.get(c) == LOST_DIGITS for _, row in table.rows)]
        for column in [*filter(names_some, weak), *lost]:
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
        caption, label = _for_eye(table, wanted.caption), _for_eye(table, wanted.label)
        caption = (
            named(rest, caption, "--caption-column")
            if caption
            else _usual(table, rest, names_of.caption_column)
        )
        rest = [column for column in rest if column != caption]
        label = (
            named(rest, label, "--label-column")
            if label
            else _usual(table, rest, names_of.label_column)
        )
        split = named(rest, wanted.split, "--split-column") if wanted.split else _split(table, rest)
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    if not caption and not label and (shared := _shared(table)):
        raise ValueError(
            f"{table.path}: a row is of both eyes, but {', '.join(map(repr, shared))} is one for "
            "both, and what is said of a patient need not be so of each eye: make it a column "
            "an eye, or name it with --label-column or --caption-column if it holds for both"
        )
    if not caption and not label:
        flags = [column for column in rest if _is_flag(table, column)]
        hint = (
            f"; the columns {', '.join(flags[:8])} hold 0 and 1, one for each class: put the "
            "class of each photograph into one column"
            if len(flags) > 1
            else ": name yours with --caption-column or --label-column"
        )
        if own := [column for column in rest if column in table.paired.values()]:
            hint = (
                f": name yours with --caption-column or --label-column, such as {own[0]!r}, which "
                "takes that of the other eye for the other"
            )
        raise ValueError(
            f"{table.path}: expected the column 'caption' or 'label', got "
            f"{list(table.columns)}{hint}"
        )
    return Chosen(image, caption, label, split)


def _for_eye(table: Table, name: str) -> str:
    """The column that a person named, on this eye's side where it has sides.

    Raises:
        ValueError: one line: it is the other eye's, and this one has none.
    """
    if any(_same(column, name) for column in table.columns):
        return name
    own = next((own for other, own in table.paired.items() if _same(other, name)), name)
    if table.side and side_of(own) not in ("", table.side):
        raise ValueError(
            f"{own!r} is of the {side_of(own)} eye, and there is no such column of the other: name "
            "its photographs with --image-column to read them alone"
        )
    return own


def _usual(table: Table, columns: Sequence[str], find: Callable[[Sequence[str]], str]) -> str:
    """The column that `find` knows; where a row is of both eyes, of this eye's by the name without
    the side: what is said of a patient need not be so of each eye."""
    if not table.side:
        return find(columns)
    own = set(table.paired.values())
    bare = {without_side(column): column for column in columns if column in own}
    return bare.get(find(list(bare)), "")


def _shared(table: Table) -> list[str]:
    """Columns of captions or classes that are of both eyes together."""
    own = set(table.paired.values())
    return names_of.said_columns([name for name in table.columns if table.side and name not in own])


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
    where = f"{table.where}, the {table.side} eye" if table.side else table.where
    notes = [*table.notes, chosen.note(where, table.columns, bool(table.side))]
    used = [name for name in (chosen.image, chosen.caption, chosen.label, chosen.split) if name]
    if shared := [name for name in _shared(table) if name not in used]:
        notes.append(
            f"{table.where}: {', '.join(map(repr, shared))} is of both eyes and not read: name it "
            "with --label-column or --caption-column if it holds for each."
        )
    if of_table:
        notes.append(f"{table.where}: of the split {of_table}, by its name.")
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
    # Where some paths are found below the start of all, the others are really not there.
    rooted = bool(start) and any(
        not photographs.find(path_of(row.get(chosen.image, ""), start), home)[1]
        for _, row in table.rows
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
    """A cell, without the start that all absolute paths of a table share (`Photographs.below`)."""
    if not is_absolute(cell):
        return cell
    text = cell.replace("\\", "/")
    return text[len(start) + 1 :] if text.startswith(f"{start}/") else text.lstrip("/")


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
    """Key and image of a row by its cell; whether by the end of a path outside the folder."""
    several = listed(cell) or [cell]
    cell = several[0] if len(several) == 1 else cell
    text = path_of(cell, start)
    key, reason = photographs.find(text, home, one.split, side)
    outside = reason == "outside the folder"
    outside = outside or (reason == "missing image" and is_absolute(cell) and not rooted)
    end = photographs.by_end(cell, one.split, side) if outside else ""
    key, reason = (end, "") if end else (key, reason)
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
    return bool(end)


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
