"""Columns of flags: one disease or sign each, present, absent or not rated in a photograph."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vclip_jax.datasets.own.labels import one_line, value_of, whole_number
from vclip_jax.files.errors import few

NO_FLAG: Final = "finding is neither present nor absent"
"""The reason of a reject."""
_PRESENT: Final = "1 true yes y present positive 有 是 阳性 陽性"
_ABSENT: Final = "0 false no n absent negative 无 無 否 阴性 陰性"
_FLAGS: Final = {
    **dict.fromkeys(_PRESENT.split(), 1),
    **dict.fromkeys(_ABSENT.split(), 0),
    "": -1,
}
_HIGHEST_GRADE: Final = 4
_MOST_VALUES: Final = 200
"""Different cells of a column of flags, with its faults."""
_FEWEST: Final = 10
"""Rows that tell a summary of the other columns from a finding."""
_LONGEST_NAME: Final = 1000
"""Characters of a finding's name."""


@dataclass(frozen=True)
class Flags:
    """A column that rates one finding."""

    name: str
    """The finding."""
    column: str
    graded: int = 0
    """The number of cells with a grade above 1, if the column holds grades: they are present."""


@lru_cache(4096)
def flag_of(cell: str, graded: bool = False) -> int | None:
    """Return 1 for present, 0 for absent, -1 for not rated, None for any other cell.

    Words for a missing value and negative numbers are not rated. Of a column of grades, the grades
    above 1 are present.

    Examples:
        >>> from vclip_jax.datasets.own.flags import flag_of
        >>> [flag_of(cell) for cell in ("Yes", "0.0", "阳性", "n/a", "maybe", "3")]
        [1, 0, 1, -1, None, None]
        >>> flag_of("3", graded=True)
        1
    """
    text = whole_number(value_of(unicodedata.normalize("NFKC", cell)), comma=True).casefold()
    if re.fullmatch(r"-\d+(\.\d+)?", text, re.ASCII):
        return -1
    return 1 if graded and _is_grade(text) else _FLAGS.get(text)


def _is_grade(text: str) -> bool:
    return re.fullmatch(r"\d", text, re.ASCII) is not None and 1 < int(text) <= _HIGHEST_GRADE


def flags_in(cells: Mapping[str, str], columns: Iterable[Flags]) -> tuple[dict[str, int], str]:
    """Read the findings of a row.

    Returns:
        Finding -> 1, 0 or -1; and "", or the column and the cell that is no flag.
    """
    found = {}
    for one in columns:
        cell = cells.get(one.column, "")
        flag = flag_of(cell, one.graded > 0)
        if flag is None:
            said = few((repr(cell),))
            return {}, f"{one.column!r} is {said}: write 1, 0, or nothing where it is not rated"
        found[one.name] = flag
    return found, ""


def named_flags(column: str, name: str, cells: Iterable[str]) -> Flags:
    """Return a column that the user named, with the number of its grades above 1.

    Raises:
        ValueError: one line: no cell is a flag, there are grades and no 0, or the name is too long.
    """
    counts = Counter(cells)
    graded = _grades(counts)
    if graded and not any(flag_of(cell) == 0 for cell in counts):
        raise ValueError(
            f"the column {column!r} for --finding-columns holds numbers above 0 and no 0, so no "
            "eye is without it: write 0 for absent (SPSS writes 2)"
        )
    rated = [cell for cell in counts if flag_of(cell) != -1]
    if rated and all(flag_of(cell, graded > 0) is None for cell in rated):
        raise ValueError(
            f"the column {column!r} for --finding-columns holds neither 1 and 0 nor another pair "
            f"of flags, but {few(map(repr, rated), 3)}"
        )
    return _flags(column, name, graded)


def _flags(column: str, name: str, graded: int = 0) -> Flags:
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a column of findings has a name of {len(name):,} characters, {name[:60]!r}...: "
            f"shorten it to {_LONGEST_NAME:,}"
        )
    text = one_line(name.encode("utf-8", "backslashreplace").decode())
    return Flags(text or column, column, graded)


def are_flags(cells: Iterable[str]) -> bool:
    """Return whether a column holds flags, apart from a cell in ten, or two cells.

    A column of grades does not.
    """
    counts = Counter(cells)
    return len(counts) <= _MOST_VALUES and _fit(counts, graded=False) and not _grades(counts)


def _fit(counts: Counter[str], *, graded: bool) -> bool:
    """Return whether the rated cells are flags or grades, but for a few."""
    rated = sum(count for cell, count in counts.items() if flag_of(cell, graded) != -1)
    others = sum(count for cell, count in counts.items() if flag_of(cell, graded) is None)
    return others < rated - others and others <= max(2, rated // 10)


def found_flags(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> list[Flags]:
    """List the columns of flags.

    Args:
        columns: column -> the name of its finding.
        rows: the rows of the table.

    Raises:
        ValueError: one line: a name is too long.
    """
    return [
        _flags(column, name)
        for column, name in columns.items()
        if are_flags(row.get(column, "") for row in rows)
    ]


def _grades(counts: Counter[str]) -> int:
    """Return the number of cells with a grade above 1; 0 if the column holds no grades.

    A column of grades holds whole numbers up to 4, and several cells above 1: at least two, and one
    in a hundred. Fewer may be slips of the pen.
    """
    above = sum(
        count for cell, count in counts.items() if flag_of(cell) is None and flag_of(cell, True)
    )
    rated = sum(count for cell, count in counts.items() if flag_of(cell) != -1)
    return above if above > 1 and 100 * above >= rated and _fit(counts, graded=True) else 0


def summary_of(columns: Sequence[Flags], rows: Sequence[Mapping[str, str]]) -> str:
    """Return the column that is present wherever another one is, such as "any disease", or ""."""
    rows_of_present = [
        {one.column for one in columns if flag_of(row.get(one.column, "")) == 1} for row in rows
    ]
    ill = [names for names in rows_of_present if names]
    several = [names for names in ill if len(names) > 1]
    if len(several) < _FEWEST or len(set.union(*several)) < 3:
        return ""
    everywhere = set.intersection(*ill)
    return next((one.column for one in columns if one.column in everywhere), "")


def notes_on_flags(where: str, columns: Sequence[Flags], *, guessed: bool) -> list[str]:
    """Note columns that were taken for findings without being named, and grades."""
    notes = []
    if guessed:
        notes.append(
            f"{where}: the columns {few((repr(one.column) for one in columns), 20)} hold flags, "
            "such as 1 and 0, and are taken for findings: --finding-columns names others."
        )
    notes += [
        f"{where}: {one.column!r} holds grades: the finding is present from 1 on ({one.graded} "
        "cells are above 1)."
        for one in columns
        if one.graded
    ]
    return notes
