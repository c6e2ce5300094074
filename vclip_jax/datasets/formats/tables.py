"""Tables of labels: CSV in any encoding, Excel old and new, Parquet, JSON lines."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats import delimited, two_rows
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PARQUET
from vclip_jax.files import limits
from vclip_jax.files.errors import few, one_line
from vclip_jax.files.foreign import check_regular, parse_json, read_bytes
from vclip_jax.files.text import decode_text

Row = dict[str, str]

EXCEL = (".xls", ".xlsx", ".xlsm")
TEXT: Final = (".csv", ".tsv", ".tab", ".psv", ".txt")
JSON: Final = (".jsonl", ".ndjson", ".json")
MOST_BYTES = 2 << 30
"""Larger CSV files are refused rather than read into memory."""


NO_VALUE: Final = "formula without a stored value"
"""The text of an Excel cell whose formula has no stored result."""
LOST_DIGITS: Final = "number that has lost digits"
"""The text of a cell with a number of more digits than Excel keeps, or than Excel wrote."""
_KEPT_DIGITS: Final = 15
_SHORTENED: Final = re.compile(r"\d([.,]\d{1,14})?E\+(1[1-9]|[2-9]\d)")
"""A number of more than eleven digits as Excel writes it into CSV."""
_MOST_TITLES: Final = 3
"""Rows above the names that may be titles if no name is known."""
_MOST_MERGED: Final = 1000
"""The number of merged cells to look at."""


@dataclass(frozen=True)
class Table:
    """A table with its row of names: a file, or a sheet of one."""

    path: Path
    sheet: str
    """The sheet's name; "" if the file has just one."""
    columns: tuple[str, ...]
    rows: list[tuple[int, Row]]
    """Each row with its number as a spreadsheet shows it (the first row is 1).

    In JSON and Parquet only rows are counted. A missing cell, unlike an empty one, has no entry.
    """
    ragged: bool = False
    """True if a missing cell is a fault: in CSV each row has all cells."""
    notes: list[str] = field(default_factory=list)
    """Sentences on guesses."""
    side: str = ""
    """"left" or "right" if a row holds both eyes and these are the columns of one eye."""
    eyes: tuple[str, ...] = ()
    """The columns of both eyes' photographs, if `side` is set."""
    paired: Mapping[str, str] = field(default_factory=dict)
    """If `side` is set: this eye's column by the other eye's name, and by the name without side."""

    @property
    def where(self) -> str:
        """The file's name, and the sheet's if there are several."""
        return f"{self.path.name}, sheet {self.sheet!r}" if self.sheet else self.path.name


def read_table(path: str | os.PathLike[str], *, sheet: str | None = None) -> list[Row]:
    """Return the rows of a table as text, by column name.

    Names and cells are stripped of white space, columns without a name and rows without a value are
    dropped, and whole numbers lose their ".0" (which Excel stores).

    Args:
        path: .csv, .tsv, .tab, .psv, .txt (UTF-8 with or without BOM, UTF-16 with BOM, else
            GB18030; commas, semicolons, tabs or "|"), .xls, .xlsx, .parquet (.pq) or .jsonl.
        sheet: the sheet of an Excel file; by default the first that is not hidden.

    Raises:
        ValueError: one line: the file is not what its suffix says, has no header, or names a column
            twice.
    """
    path = Path(path)
    with _one_line(path):
        rows = _rows_by_name(path)
        if rows is not None:
            return [row for _, row in rows]
        cells = _excel(path, sheet) if path.suffix.lower() in EXCEL else _csv(path)
        table = _table(path, "", cells, 0)
        return [{name: row.get(name, "") for name in table.columns} for _, row in table.rows]


def read_tables(path: str | os.PathLike[str], find: Callable[[Sequence[str]], int]) -> list[Table]:
    """Return all tables of a file: each non-empty sheet of an Excel file.

    Rows may lie above the names: a title, a line for Excel ("sep=;").

    Args:
        path: a file that `read_table` reads.
        find: a function that returns the index of a row's cell that names the required column; -1
            if there is none, which means that the row is not the one with the names.

    Raises:
        ValueError: as in `read_table`; also, with the row's number: a row has more cells than there
            are names, or a quotation mark swallows rows.
    """
    path = Path(path)
    with _one_line(path):
        rows = _rows_by_name(path)
        if rows is not None:
            columns = tuple(dict.fromkeys(name for _, row in rows for name in row))
            return [Table(path, "", columns, rows)]
        if path.suffix.lower() not in EXCEL:
            text, notes = _read_text(path)
            delimiter = delimited.delimiter_of(text, find)
            cells = delimited.parse(text, delimiter)
            if "E+" in text:
                cells = [
                    [LOST_DIGITS if _has_lost(cell) else cell for cell in row] for row in cells
                ]
            header, cells, more = _names(cells, find, {})
            if cells and (image := find(cells[header])) >= 0:
                delimited.check_swallowed(cells, header, image, delimiter)
            table = _table(path, "", cells, header, strict=True)
            notes += [f"{path.name}: {note}" for note in more]
            return [Table(path, "", table.columns, table.rows, True, notes)]
        sheets = limits.excel_sheets(path)
        grids = {name: _cells(sheet) for name, sheet in sheets.items()}
        filled = {name: cells for name, cells in grids.items() if any(map(any, cells))}
        if not filled:
            raise ValueError("the table is empty, there is no row with the columns' names")
        tables = []
        for name, cells in filled.items():
            header, named, notes = _names(cells, find, _merged_across(sheets[name]))
            table = _table(path, name if len(sheets) > 1 else "", named, header, True)
            notes += _hidden(sheets[name], table)
            table.notes.extend(f"{table.where}: {note}" for note in notes)
            tables.append(table)
        return tables


def _rows_by_name(path: Path) -> list[tuple[int, Row]] | None:
    """Return the rows of a file whose values all have names; None for a grid of cells."""
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return list(enumerate(_parquet(path), start=1))
    if suffix == ".json":
        return list(enumerate(_json(path), start=1))
    if suffix in JSON:
        return list(enumerate(_jsonl(path), start=1))
    if suffix not in (*EXCEL, *TEXT):
        raise ValueError(f"expected .csv, .tsv, .xls, .xlsx, .parquet or .jsonl, not {suffix}")
    return None


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn errors into a ValueError of one line that names the file."""
    try:
        check_regular(path)
        yield
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())  # Arrow's errors have many lines
        raise ValueError(f"{path}: cannot read the table: {reason}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def require(path: str | os.PathLike[str], rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Check that the rows have the columns.

    Raises:
        ValueError: one line: a column is missing.
    """
    names = list(rows[0]) if rows else []
    if missing := [column for column in columns if column not in names]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(missing)}, got {few(map(repr, names), 20)}"
        )


def whole(cell: str, highest: int) -> int | None:
    """Return a grade: a whole number from 0 to `highest`, else None.

    "2.0" counts as 2: if a grade of a column is missing, programs that rewrite the table make the
    other grades decimal.
    """
    match = re.fullmatch(r"(\d{1,9})(\.0*)?", cell.strip(), re.ASCII)
    return int(match[1]) if match and int(match[1]) <= highest else None


def _table(
    path: Path, sheet: str, cells: Sequence[Sequence[str]], header_row: int, strict: bool = False
) -> Table:
    """Return names and rows of a grid of cells; `strict` refuses values right of the last name."""
    if len(cells) <= header_row or not any(cells[header_row]):
        raise ValueError("the table is empty, there is no row with the columns' names")
    header = cells[header_row]
    named = [index for index, name in enumerate(header) if name]
    names = _once(header[index] for index in named)
    last = named[-1] + 1 if strict else len(header)
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(cells[header_row + 1 :], start=header_row + 2):
        if any(line[last:]):
            title = " (if the rows above are titles, name a column with --image-column)"
            raise ValueError(
                f"row {number} has {len(line)} cells for {last} columns: name all columns, and put "
                "text with the separator in it into quotation marks"
                f"{'' if rows else title}"
            )
        row = {header[i]: line[i] for i in named if i < len(line)}
        if any(row.values()):
            rows.append((number, row))
    return Table(path, sheet, tuple(names), rows)


def _names(
    cells: list[list[str]], find: Callable[[Sequence[str]], int], merged: Mapping[int, set[int]]
) -> tuple[int, list[list[str]], list[str]]:
    """Return the row with the names, the cells with all names in that row, and the guesses."""
    header = _header_row(cells, find)
    if not cells:
        return header, cells, []
    row, names, joined = two_rows.join(cells, header, find, merged)
    if joined:
        return row, [*cells[:row], names, *cells[row + 1 :]], [joined]
    return header, cells, _titles(cells, header, find)


def _merged_across(sheet: limits.Sheet) -> dict[int, set[int]]:
    """Return the columns whose cell is merged with the cell to the left, for each top row."""
    merged: dict[int, set[int]] = {}
    across = (one for one in sheet.merged if one[1][1] > one[0][1])
    for (top, left), (bottom, right) in islice(across, _MOST_MERGED):
        for row in range(top, min(bottom, delimited.HEADER_WITHIN) + 1):
            merged.setdefault(row, set()).update(range(left + 1, right + 1))
    return merged


def _hidden(sheet: limits.Sheet, table: Table) -> list[str]:
    """Return a note if Excel hides the sheet or some of the table's rows, which are read anyway."""
    remedy = "delete what is not meant, or save the rest as CSV"
    if sheet.hidden:
        return [f"the sheet is hidden in Excel and is read as the others are: {remedy}."]
    hidden = {row + 1 for row in sheet.hidden_rows}.intersection(row for row, _ in table.rows)
    if not hidden:
        return []
    rows = f"{len(hidden):,} of {len(table.rows):,} rows are"
    return [f"{rows} hidden in Excel, as by a filter, and are read as the others are: {remedy}."]


def _once(names: Iterable[str]) -> list[str]:
    """Return column names without white space around them.

    Raises:
        ValueError: one line: two names are equal.
    """
    stripped = [name.strip() for name in names]
    if len(set(stripped)) != len(stripped):
        [(twice, _)] = Counter(stripped).most_common(1)
        raise ValueError(f"the column {twice!r} occurs twice: rename or remove one of them")
    return stripped


def _header_row(cells: Sequence[Sequence[str]], find: Callable[[Sequence[str]], int]) -> int:
    """Return the index of the row with the names.

    This is the first of the top rows that `find` knows and that names no photograph; else the first
    non-empty row, below titles (rows of one cell above a wider row).
    """
    for index, line in enumerate(cells[: delimited.HEADER_WITHIN]):
        if find(line) >= 0 and not any(cell.lower().endswith(IMAGE_SUFFIXES) for cell in line):
            return index
    filled = (index for index, line in enumerate(cells) if any(line))
    top = list(islice(filled, _MOST_TITLES + 1))
    wide = [index for index in top if sum(map(bool, cells[index])) > 1]
    return next(iter(wide or top), 0)


def _titles(cells: Sequence[Sequence[str]], header: int, find: Callable[..., int]) -> list[str]:
    """Return a note on rows above the names if none of the names is known."""
    above = [cell for line in cells[:header] for cell in line if cell]
    if not above or find(cells[header]) >= 0:
        return []
    return [f"row {header + 1} is taken for the columns' names, below {above[0][:60]!r}."]


def _csv(path: Path) -> list[list[str]]:
    text, _ = _read_text(path)
    return delimited.parse(text, delimited.delimiter_of(text, lambda _: -1))


def _read_text(path: Path) -> tuple[str, list[str]]:
    """Return the text, and notes on guesses."""
    data = read_bytes(path, MOST_BYTES)
    text = decode_text(data)
    if "\0" in text:
        raise ValueError("the table has zero bytes in it: is it a text file, in UTF-8?")
    notes = []
    if not text.isascii() and not _is_unicode(data):
        notes.append(f"{path.name} is not UTF-8 and is read as GB18030 (Chinese).")
    return text, notes


def _is_unicode(data: bytes) -> bool:
    try:
        data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _excel(path: Path, sheet: str | None) -> list[list[str]]:
    return _cells(limits.excel(path, sheet))


def _cells(sheet: limits.Sheet) -> list[list[str]]:
    """Return the cells as text.

    Each cell of a range that is merged downwards gets its value. Numbers of more digits than Excel
    keeps become `LOST_DIGITS`.
    """
    rows = [
        [LOST_DIGITS if _has_lost(cell) else text_of(cell) for cell in line] for line in sheet.rows
    ]
    for row, column in sheet.formulas:
        if row < len(rows) and column < len(rows[row]):
            rows[row][column] = NO_VALUE
    for (top, left), (bottom, right) in sheet.merged:
        if left == right and top < len(rows) and left < len(rows[top]):
            for line in rows[top + 1 : bottom + 1]:
                line[left] = rows[top][left]
    return rows


def _has_lost(value: Any) -> bool:
    if isinstance(value, str):
        return _SHORTENED.fullmatch(value) is not None
    return isinstance(value, (int, float)) and abs(value) >= 10**_KEPT_DIGITS


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    rows: list[Row] = []
    try:
        # Images and other nested columns are left out of a table in memory.
        schema = pyarrow.parquet.read_schema(path)
        flat = [field.name for field in schema if not _nested(field.type)]
        names = _once(flat)
        for batch in limits.parquet_batches(path, flat):
            columns = [[text_of(v) for v in batch.column(name).to_pylist()] for name in flat]
            rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            if len(rows) * len(names) > limits.MOST_CELLS:
                raise ValueError(f"the table has more than {limits.MOST_CELLS:,} cells")
    except limits.arrow_errors() as error:
        raise ValueError(f"not a Parquet file ({error})") from error
    return rows


def _nested(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _nested(kind.value_type)
    return kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)


def _jsonl(path: Path) -> list[Row]:
    rows = []
    text = decode_text(read_bytes(path, MOST_BYTES))
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"line {number}", MOST_BYTES, constants=True)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append(_row(row, f"line {number}"))
    return rows


def _json(path: Path) -> list[Row]:
    """Read a list of objects, columns by name, or JSON lines in a file called .json."""
    text = decode_text(read_bytes(path, MOST_BYTES))
    try:
        content = parse_json(text, "the file", MOST_BYTES, constants=True)
    except ValueError as error:
        if getattr(error.__cause__, "msg", "") == "Extra data":
            return _jsonl(path)
        raise
    if isinstance(content, dict):
        content = _by_rows(content)
    if not isinstance(content, list):
        raise ValueError("the JSON is not a list of objects")
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"entry {number} of the list is not an object")
    return [_row(row, f"entry {number}") for number, row in enumerate(content, start=1)]


def _row(content: dict[str, Any], where: str) -> Row:
    try:
        names = _once(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return dict(zip(names, map(text_of, content.values()), strict=True))


def _by_rows(content: dict[str, Any]) -> list[Any]:
    """Turn an object into rows: of lists or objects that are columns (pandas), or of numbered rows.

    Lists have one length. Objects that are columns have one set of keys.
    """
    columns = list(content.values())
    lists = [value for value in columns if isinstance(value, list)]
    if len(lists) == 1 and len(columns) > 1 and all(isinstance(row, dict) for row in lists[0]):
        return lists[0]  # the other entries are a version or a comment
    if {"images", "annotations"} <= set(content):
        raise ValueError(
            "this is the format of COCO, which annotates parts of an image: give a list of objects "
            "with image, caption and label"
        )
    if columns and all(isinstance(column, dict) for column in columns):
        keys = list(columns[0])
        if all(map(str.isdecimal, content)) and not all(map(str.isdecimal, keys)):
            return columns  # a row for each number
        if all(list(column) == keys for column in columns):
            columns = [list(column.values()) for column in columns]
    if columns and all(isinstance(column, list) for column in columns):
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns differ in length")
        return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]
    raise ValueError(f"the JSON is not a list of objects but one with {few(map(repr, content))}")


def text_of(value: Any) -> str:
    """Return a value as the text of a cell: JSON for lists.

    None, numbers that are not finite and empty lists are "".
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return str(value).strip()
