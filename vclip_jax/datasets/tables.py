"""Label tables as people have them: CSV in any encoding, Excel old and new, Parquet, JSON lines."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, str]

EXCEL = (".xls", ".xlsx")
MOST_BYTES = 2 << 30
"""Larger CSV files are refused rather than read into memory."""


def read_table(
    path: str | os.PathLike[str], *, sheet: str | None = None, header_row: int = 0
) -> list[Row]:
    """The rows of a table as text, by column name.

    Names and cells are stripped of white space, columns without a name and rows without a value
    are dropped, numbers that are whole lose their ".0" (Excel stores them so).

    Args:
        path: .csv, .tsv, .txt (UTF-8 with or without BOM, UTF-16 with BOM, else GB18030;
            commas, semicolons or tabs), .xls, .xlsx, .parquet or .jsonl.
        sheet: of an Excel file; by default the first.
        header_row: the row with the names, counted from 0; rows above are skipped.

    Raises:
        ValueError: one line: the file cannot be read as what its suffix says, has no header, or
            names a column twice.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix in EXCEL:
            cells = _excel(path, sheet)
        elif suffix == ".parquet":
            return _parquet(path)
        elif suffix in (".jsonl", ".json"):
            return _jsonl(path)
        elif suffix in (".csv", ".tsv", ".txt"):
            cells = _csv(path)
        else:
            raise ValueError(f"expected .csv, .tsv, .xls, .xlsx, .parquet or .jsonl, not {suffix}")
    except OSError as error:
        raise ValueError(f"{path}: cannot read the table: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return _rows(path, cells[header_row:])


def require(path: str | os.PathLike[str], rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Raises ValueError, in one line, unless the rows have the columns."""
    names = list(rows[0]) if rows else []
    if missing := [column for column in columns if column not in names]:
        raise ValueError(f"{path}: expected the columns {', '.join(missing)}, got {names}")


def whole(cell: str, highest: int) -> int | None:
    """A grade: a whole number from 0 to `highest`, else None.

    Also as "2.0": where one grade of a column is missing, programs that rewrite the table make the
    others decimal.
    """
    match = re.fullmatch(r"(\d{1,9})(\.0*)?", cell.strip(), re.ASCII)
    return int(match[1]) if match and int(match[1]) <= highest else None


def _rows(path: Path, cells: Sequence[Sequence[str]]) -> list[Row]:
    if not cells or not any(cells[0]):
        raise ValueError(f"{path}: the table is empty, there is no row with the columns' names")
    header = cells[0]
    named = [index for index, name in enumerate(header) if name]
    names = [header[index] for index in named]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: the column {twice!r} is there twice")
    rows = []
    for line in cells[1:]:
        row = {header[i]: line[i] if i < len(line) else "" for i in named}
        if any(row.values()):
            rows.append(row)
    return rows


def decode_text(data: bytes) -> str:
    """Text in UTF-8, UTF-16 with a byte order mark, or GB18030 (which GBK and GB2312 are part of).

    Raises:
        ValueError: it is none of them.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("the text is neither UTF-8 nor GB18030")


def _csv(path: Path) -> list[list[str]]:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"the table has more than {MOST_BYTES >> 30} GiB")
    text = decode_text(path.read_bytes())
    if "\0" in text:
        raise ValueError("the table has zero bytes in it: is it a text file?")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    before = csv.field_size_limit(MOST_BYTES)  # one long caption is no reason to lose all rows
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return [[cell.strip() for cell in line] for line in reader]
    except csv.Error as error:
        raise ValueError(f"not a CSV table: {error}") from error
    finally:
        csv.field_size_limit(before)


def _excel(path: Path, sheet: str | None) -> list[list[str]]:
    import python_calamine

    try:
        book = python_calamine.load_workbook(os.fspath(path))
    except (python_calamine.CalamineError, OSError) as error:
        if not path.exists():
            raise
        raise ValueError(f"not an Excel file ({error})") from error
    if sheet is not None and sheet not in book.sheet_names:
        raise ValueError(f"there is no sheet {sheet!r}, only {', '.join(book.sheet_names)}")
    name = sheet or book.sheet_names[0]
    rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
    return [[_text(cell) for cell in line] for line in rows]


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        # Images and other nested columns are not for a table in memory.
        flat = [field.name for field in file.schema_arrow if not _nested(field.type)]
        table = file.read(columns=flat)
    except pyarrow.ArrowException as error:
        raise ValueError(f"not a Parquet file ({error})") from error
    columns = {name.strip(): [_text(v) for v in table.column(name).to_pylist()] for name in flat}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _nested(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)


def _jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(decode_text(path.read_bytes()).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append({str(name).strip(): _text(value) for name, value in row.items()})
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
