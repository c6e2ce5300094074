"""Lines of CSV that are safe in a spreadsheet, which runs cells that look like a formula."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_END: Final = "\r\n"
"""The end of a CSV line. The writer quotes cells that contain these characters, as names may."""
_FORMULA: Final = re.compile(r"[=@\t\r]|[+\-](?!\d[\d.]*\Z)")
"""The start of a formula; a number with a sign is none."""


def csv_line(cells: Iterable[object]) -> str:
    """Return a row without its line end; text that looks like a formula gets a `'` in front."""
    line = io.StringIO()
    safe = (
        f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in cells
    )
    csv.writer(line, lineterminator=_END).writerow(safe)
    return line.getvalue().removesuffix(_END)


def csv_table(columns: Mapping[str, Sequence[object]]) -> str:
    """Return columns of one length as CSV, with their names in the first row; see `csv_line`."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join([csv_line(columns), *map(csv_line, rows)]) + "\n"


def from_cell(cell: str) -> str:
    """Return the text of a cell that `csv_line` wrote, without the `'` before a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
