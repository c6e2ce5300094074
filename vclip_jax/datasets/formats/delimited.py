"""Delimited text: finding the separator, and quotation marks in the wrong place.

A mark that opens and never closes would otherwise swallow rows silently.
"""

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from typing import Final

HEADER_WITHIN: Final = 20
"""Rows that are searched for the names; titles above the names take fewer."""
_DELIMITERS: Final = ",;\t|"
_MOST_LINE: Final = 100_000
"""Characters of a line that are searched for the separator."""
_MOST_CELL: Final = 2 << 30
_SEP: Final = re.compile(r"\ufeff?\"?sep=([,;\t|])\"?(?:\r\n|\r|\n|$)", re.IGNORECASE)


def delimiter_of(text: str, find: Callable[[Sequence[str]], int]) -> str:
    """Return the separator of cells: Excel's first line if it names one, else the likeliest.

    The likeliest gives a row with a known name, or else the most cells.
    """
    lines = re.split(r"\r\n|\r|\n", text[: 1 << 20], maxsplit=HEADER_WITHIN)[:HEADER_WITHIN]
    if match := _SEP.match(text):
        return match[1]
    for line in lines:
        known = [one for one in _DELIMITERS if find(_split(line, one)) >= 0]
        if known:
            return max(known, key=lambda one: len(_split(line, one)))
    filled = [line for line in lines if line.strip()]
    delimited = [line for line in filled if any(one in line for one in _DELIMITERS)]
    first = next(iter(delimited or filled), "")  # a title above the names may have none
    return max(_DELIMITERS, key=lambda one: len(_split(first, one)))


def _split(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line, which may be cut short."""
    try:
        parsed = csv.reader([line[:_MOST_LINE]], delimiter=delimiter, skipinitialspace=True)
        return [cell.strip() for cell in next(parsed, [])]
    except csv.Error:
        return [line]


def parse(text: str, delimiter: str) -> list[list[str]]:
    """Return the cells; a misplaced quotation mark is an error with the row's number."""
    if match := _SEP.match(text):
        text = text[match.end() :]
    before = csv.field_size_limit(_MOST_CELL)  # a long caption must not make the file unreadable
    cells: list[list[str]] = []
    try:
        for line in csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
        ):
            cells.append([cell.strip() for cell in line])
    except csv.Error as error:
        raise ValueError(
            f"row {len(cells) + 1} is not CSV ({error}): a quotation mark opens or closes at the "
            "wrong place; put the cell into quotation marks and double those of its text"
        ) from error
    finally:
        csv.field_size_limit(before)
    return cells


def check_swallowed(
    cells: Sequence[Sequence[str]], header_row: int, image: int, delimiter: str
) -> None:
    """Check that no cell of several lines holds rows of the table.

    Raises:
        ValueError: one line: a cell holds a line that looks like a row.
    """
    width = len(cells[header_row])
    for number, line in enumerate(cells[header_row + 1 :], start=header_row + 2):
        if image >= len(line):
            continue
        for cell in line:
            below = cell.splitlines()[1:]
            for at, inner in enumerate(below, start=1):
                parts = [part.strip().strip('"') for part in inner.split(delimiter)]
                # The last line of the cell continues after the closing mark.
                whole = len(parts) == width or (at == len(below) and image < len(parts) < width)
                if whole and _alike(line[image], parts[image]):
                    raise ValueError(
                        f"row {number}: a quotation mark opens and swallows the rows below, such "
                        f"as {inner[:60]!r}: remove it or close it"
                    )


def _alike(one: str, other: str) -> bool:
    """Return whether two cells are names of one kind: of one suffix, or equal but for numbers."""
    suffix = os.path.splitext(one)[1].lower()
    if suffix:
        return other.lower().endswith(suffix)
    shape = re.sub(r"\d+", "0", one)
    return shape != one and shape == re.sub(r"\d+", "0", other)
