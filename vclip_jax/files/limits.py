"""Limits of untrusted tables and archives: a small file can unpack to more than the memory.

An Excel file is read in a process of its own with a memory limit, because its reader allocates
every cell up to the last one that is filled, and ends the process if there is no memory. Parquet's
footer gives the size, except for values that are stored once and repeated: their sizes are added up
before they become text.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from vclip_jax.files.foreign import MOST_IMAGE, check_regular

MOST_CELLS: Final = 30_000_000
"""Cells of a table; SynFundus-1M has a million rows of twenty columns."""
MOST_TEXT: Final = 1 << 30
"""Bytes of all cells' text."""
MOST_ROWS: Final = 10_000_000
"""Rows of a Parquet file."""
MOST_GROUP: Final = 2 << 30
"""Bytes of an unpacked row group; one is in memory at a time."""
EXCEL_MEMORY: Final = 4 << 30
"""Bytes of address space for the process that reads an Excel file."""
EXCEL_SECONDS: Final = 300
_MOST_BATCH: Final = 256 << 20
_BATCH: Final = 1024
_READER: Final = Path(__file__).with_name("excel_reader.py")


class TooMuchError(ValueError):
    """A file exceeds a limit; one line."""


@dataclass(frozen=True)
class Sheet:
    """A sheet of an Excel file."""

    rows: list[list[Any]]
    """The cells from the upper left corner: text, numbers, booleans, and dates as text."""
    merged: list[tuple[tuple[int, int], tuple[int, int]]]
    """First and last cell of each merged range, as (row, column) from 0."""
    formulas: list[tuple[int, int]]
    """Cells whose formula has no stored value."""
    hidden: bool
    """True if Excel does not show the sheet."""
    hidden_rows: list[int]
    """The rows that Excel does not show, from 0: hidden by hand or by a filter; none of .xls."""


def excel(path: Path, sheet: str | None) -> Sheet:
    """Return a sheet of an Excel file, by default the first one that is not hidden.

    Raises:
        OSError: the file does not exist.
        ValueError: one line: the file is not an Excel file, has no such sheet, or exceeds
            `MOST_CELLS`, `EXCEL_MEMORY` or `EXCEL_SECONDS`.
    """
    return next(iter(_sheets(path, *(["first"] if sheet is None else ["named", sheet])).values()))


def excel_sheets(path: Path) -> dict[str, Sheet]:
    """Return all sheets of an Excel file by name; raises as `excel` does."""
    return _sheets(path, "all")


def _sheets(path: Path, *which: str) -> dict[str, Sheet]:
    check_regular(path)
    limits = [str(MOST_CELLS), str(MOST_TEXT), str(EXCEL_MEMORY)]
    # -P: no file in the reader's folder can be imported as a module.
    command = [sys.executable, "-P", os.fspath(_READER), os.fspath(path), *limits, *which]
    try:
        reader = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=EXCEL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"reading it took more than {EXCEL_SECONDS} seconds") from None
    if reader.returncode == 3:  # the reader has printed the reason
        raise ValueError(reader.stderr.decode("utf-8", "replace").strip())
    if reader.returncode:
        raise ValueError(
            f"reading it failed with status {reader.returncode}: it is damaged, or a distant cell "
            f"makes it take more than {EXCEL_MEMORY >> 30} GiB; delete empty rows and columns, or "
            "save it as CSV"
        )
    sheets: dict[str, Sheet] = {}
    for line in reader.stdout.splitlines():
        part = json.loads(line)
        if isinstance(part, dict):
            name = part.pop("sheet")
            sheet = sheets[name] = Sheet([], **part)
        else:
            sheet.rows.extend(part)
    return sheets


def arrow_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return `others` and the types of errors that Arrow raises for damage, but for OSError.

    An error of its C++ parts that Arrow does not expect comes as RuntimeError or OverflowError, as
    of a page whose histogram of levels has another length than the levels need.
    """
    import pyarrow

    return pyarrow.ArrowException, RuntimeError, OverflowError, *others


def parquet_batches(path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Any]:
    """Yield the rows of some columns as record batches, whose texts are dictionary arrays.

    Raises:
        TooMuchError: the file exceeds `MOST_ROWS`, `MOST_GROUP` or `MOST_TEXT`.
        OSError, pyarrow.ArrowException: the file cannot be read.
    """
    total = 0
    with open_parquet(path) as file:
        rows = _rows_at_a_time(file.metadata, columns)
        for batch in file.iter_batches(rows, columns=list(columns)):
            size = sum(map(_size, batch.columns))
            total += size
            if size > _MOST_BATCH or total > MOST_TEXT:
                raise TooMuchError(f"its texts have more than {min(size, total):,} bytes, too many")
            yield batch


def open_parquet(path: str | os.PathLike[str]) -> Any:
    """Open a Parquet file so that repeated values of plain columns take no memory.

    Returns:
        A `pyarrow.parquet.ParquetFile`.

    Raises:
        TooMuchError: the file exceeds `MOST_ROWS` or `MOST_GROUP`.
        OSError, pyarrow.ArrowException: the file cannot be read.
    """
    import pyarrow.parquet

    check_regular(path)
    metadata = pyarrow.parquet.read_metadata(path)
    if metadata.num_rows > MOST_ROWS:
        raise TooMuchError(f"it has {metadata.num_rows:,} rows, more than {MOST_ROWS:,}")
    for index in range(metadata.num_row_groups):
        size = metadata.row_group(index).total_byte_size
        if size > MOST_GROUP:
            raise TooMuchError(
                f"a row group unpacks to {size:,} bytes, more than {MOST_GROUP >> 30} GiB: write "
                "it in smaller ones"
            )
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    repeated = [
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "BYTE_ARRAY" and leaf.path == leaf.name  # Arrow accepts no others
    ]
    return pyarrow.parquet.ParquetFile(path, read_dictionary=repeated)


def parquet_group(path: str, column: str, group: int) -> Any:
    """Return a column of one row group, as a chunked array.

    Raises:
        TooMuchError: the file exceeds `MOST_ROWS` or `MOST_GROUP`.
        KeyError: the file has no such column.
        OSError, pyarrow.ArrowException: the file cannot be read.
    """
    import pyarrow

    pieces: list[Any] = []
    total = 0
    with open_parquet(path) as file:
        if column not in file.schema_arrow.names:
            raise KeyError(column)
        rows = _rows_at_a_time(file.metadata, [column])
        batches = file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)
        for batch in batches:
            pieces.append(batch.column(0))
            total += batch.nbytes
            if total > MOST_GROUP:
                raise TooMuchError(f"the images of a row group have more than {MOST_GROUP:,} bytes")
    return pyarrow.chunked_array(pieces)


def _rows_at_a_time(metadata: Any, columns: Sequence[str]) -> int:
    """Return how many rows of `columns` have no more than `MOST_GROUP` bytes.

    One value of a column that is stored within another has no more bytes than its row group, where
    what repeats is stored once. The sizes of single columns would allow more rows, but Arrow 26
    ends the process where a damaged file's say something impossible.
    """
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if not any(path.startswith(f"{name}.") for path in paths for name in _roots(columns)):
        return _BATCH
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=1)
    return max(1, min(_BATCH, MOST_GROUP // max(1, largest)))


def _roots(columns: Sequence[str]) -> set[str]:
    return {name.partition(".")[0] for name in columns}


def _size(array: Any) -> int:
    """Return the bytes of an array with each repeated value counted."""
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    if kinds.is_struct(array.type):
        return sum(map(_size, array.flatten()))
    if not kinds.is_dictionary(array.type):
        return int(array.nbytes)
    lengths = compute.binary_length(array.dictionary).cast(pyarrow.int64())
    return compute.sum(lengths.take(array.indices)).as_py() or 0


def zip_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """Return the content of a ZIP file's member of at most `MOST_IMAGE` bytes.

    Raises:
        KeyError: the archive has no such member.
        ValueError: one line: the member is larger, or is compressed by bzip2 or LZMA, whose pieces
            have no size limit.
        zipfile.BadZipFile, zlib.error, EOFError, RuntimeError: the member is damaged or encrypted.
    """
    info = archive.getinfo(member)
    if info.file_size > MOST_IMAGE:
        raise ValueError(f"it unpacks to {info.file_size:,} bytes, more than {MOST_IMAGE:,}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is packed by another method than deflate: pack it again with deflate")
    with archive.open(info) as file:
        return read_some(file, MOST_IMAGE)


def read_some(file: IO[bytes], most: int) -> bytes:
    """Return the rest of a file of at most `most` bytes.

    Raises:
        ValueError: one line: the rest is longer.
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data
