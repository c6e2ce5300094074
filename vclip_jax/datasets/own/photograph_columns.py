"""The column of a table that names photographs; of both eyes, if a row holds two."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import LOST_DIGITS, Table
from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.datasets.own import columns as names_of
from vclip_jax.datasets.own.columns import Wanted, named, same
from vclip_jax.datasets.own.eyes import SIDES, pairs, side_of
from vclip_jax.datasets.own.lookup import Photographs, relative
from vclip_jax.files.errors import few

_TRIED: Final = 200
"""Rows from which a column is judged."""


def image_finder(wanted: Wanted) -> Callable[[Sequence[str]], int]:
    """Return a function for `read_tables` that finds the cell naming the column of photographs."""

    def find(cells: Sequence[str]) -> int:
        if wanted.image:
            hits = [i for i, cell in enumerate(cells) if same(cell, wanted.image)]
            pair = pairs(cells).get(names_of.plain(wanted.image), {})
            return next(iter([*hits, *map(list(cells).index, pair.values())]), -1)
        both = names_of.image_column(list(pairs(cells)))
        name = names_of.image_column(cells) or (pairs(cells)[both][SIDES[0]] if both else "")
        return list(cells).index(name) if name else -1

    return find


def by_eye(
    table: Table, root: Path, photographs: Photographs, wanted: Wanted
) -> list[tuple[Table, str]]:
    """Return a table with its column of photographs, once per eye if a row holds both eyes.

    The table of an eye has that eye's columns. A table without photographs gives an empty list.

    Raises:
        ValueError: as `image_column` does; or several pairs of columns could be the photographs.
    """
    sided = pairs(table.columns)
    given = any(same(column, wanted.image) for column in table.columns)
    pair = bool(wanted.image) and not given
    both = sided.get(names_of.plain(wanted.image)) if pair else None
    if wanted.image and both is None:
        column = image_column(table, root, photographs, wanted)
        both = next((pair for pair in sided.values() if column in pair.values()), None)
        other = next((name for name in (both or {}).values() if name != column), "")
        if both is None or not any(row.get(other) for _, row in table.rows):
            return [(table, column)] if column else []
        table.notes.append(
            f"{table.where}: a row holds both eyes, and the photographs of {other!r} are left out: "
            "without --image-column both are read."
        )
        return [(_one_eye(table, side_of(column), both), column)]
    if both is None:
        both = _both_eyes(table, relative(table.path.parent, root), photographs)
    if both is None:
        column = image_column(table, root, photographs, wanted)
        return [(table, column)] if column else []
    table.notes.append(f"{table.where}: a row holds both eyes and lists a photograph of each.")
    return [(_one_eye(table, side, both), both[side]) for side in SIDES]


def _both_eyes(table: Table, home: str, photographs: Photographs) -> dict[str, str] | None:
    """Return the columns of both eyes' photographs by side, or None if a row holds one eye."""

    def fit(column: str) -> bool:
        cells = {row.get(column, "") for _, row in table.rows[:_TRIED]} - {""}
        return 2 * sum(_names_photograph(one, home, photographs) for one in cells) >= len(cells) > 0

    known = names_of.image_columns(table.columns)
    sided = pairs(table.columns)
    if not sided or any(map(fit, known)):
        return None
    usual = names_of.image_column(list(sided))
    # Grades of left and right may be numbers, which can also be names of photographs.
    unusual = [
        rest
        for rest, pair in sided.items()
        if not names_of.said_columns([rest])
        and all(_many(table, one) and fit(one) for one in pair.values())
    ]
    if not usual and len(unusual) > 1:
        raise ValueError(
            f"{table.path}: photographs are named in the columns "
            f"{few(repr(name) for rest in unusual for name in sided[rest].values())}: name "
            f"one with --image-column, or a pair by its name without the side, such as "
            f"{unusual[0]!r}"
        )
    rest = usual if usual and (not known or any(map(fit, sided[usual].values()))) else None
    rest = unusual[0] if rest is None and unusual else rest
    return None if rest is None else sided[rest]


def _many(table: Table, column: str) -> bool:
    """Return whether most values of a column are different, as names of photographs are."""
    cells = [cell for _, row in table.rows[:_TRIED] if (cell := row.get(column, ""))]
    return 2 * len(set(cells)) > len(cells)


def _one_eye(table: Table, side: str, both: dict[str, str]) -> Table:
    """Return the table with the columns of one eye and those of both."""
    sided = pairs(table.columns)
    paired = {
        name: pair[side] for rest, pair in sided.items() for name in (*pair.values(), rest) if name
    }
    columns = tuple(name for name in table.columns if side_of(name) in ("", side))
    eyes = tuple(both[one] for one in SIDES)
    return replace(table, columns=columns, side=side, eyes=eyes, paired=paired)


def image_column(table: Table, root: Path, photographs: Photographs, wanted: Wanted) -> str:
    """Return the column of a table that names photographs; "" for a table without photographs.

    Raises:
        ValueError: one line: the cells name photographs, but no column has a known name, or there
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
        if any(same(column, wanted.image) for column in table.columns):
            return named(table.columns, wanted.image, "--image-column")
    else:
        known = names_of.image_columns(table.columns)
        usable = [column for column in known if len(known) == 1 or names_some(column)]
        if len(usable) > 1 and not (count := fits(usable[0])):
            tried = len(table.rows[:_TRIED])
            for column in usable[1:]:
                if count := fits(column):
                    table.notes.append(
                        f"{table.where}: {usable[0]!r} names no existing photograph, {column!r} "
                        f"names {count} in the first {tried} rows and is taken."
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
            f"{table.path}: the first row ({few(table.columns, 4)}) names a photograph, not "
            "columns: put a row above it, such as image,caption,label"
        )
    if hits:
        raise ValueError(
            f"{table.path}: no column is called 'image' or another usual name, only "
            f"{few(map(repr, table.columns), 20)}: name it with --image-column (photographs are "
            f"named in {few(map(repr, hits))})"
        )
    return ""


def _names_photograph(cell: str, home: str, photographs: Photographs) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES) or (
        bool(cell) and not photographs.find(cell, home)[1]
    )
