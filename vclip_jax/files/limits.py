"""What a table or an archive of a stranger may take: a small file can unpack to all memory.

Excel files are read in a process of their own with a limit of memory, since their reader makes room
for every cell up to the last one that is filled and ends the process if there is none. Parquet's
footer says how much there is, but for values that are there once and repeated: they are counted
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
"""Of a table: SynFundus-1M has a million rows of twenty columns."""
MOST_TEXT: Final = 1 << 30
"""Bytes of all cells."""
MOST_ROWS: Final = 10_000_000
"""Of a Parquet file."""
MOST_GROUP: Final = 2 << 30
"""Bytes of a row group, unpacked; one is in memory at a time."""
EXCEL_MEMORY: Final = 4 << 30
"""Bytes of address space for the process that reads an Excel file."""
EXCEL_SECONDS: Final = 300
_MOST_BATCH: Final = 256 << 20
_BATCH: Final = 1024
_READER: Final = Path(__file__).with_name("excel_reader.py")


class TooMuchError(ValueError):
    """A file takes more than it may; one line."""


@dataclass(frozen=True)
class Sheet:
    """A sheet of an Excel file."""

    rows: list[list[Any]]
    """The cells from the left upper corner on: text, numbers, booleans, and dates as text."""
    merged: list[tuple[tuple[int, int], tuple[int, int]]]
    """First and last cell, as (row, column) from 0, of those that are shown as one."""
    formulas: list[tuple[int, int]]
    """Cells whose formula has no stored value."""


def excel(path: Path, sheet: str | None) -> Sheet:
    """A sheet of an Excel file, by default the first.

    Raises:
        OSError: there is no such file.
        ValueError: one line: it is no Excel file, has no such sheet, or takes more than
            `MOST_CELLS`, `EXCEL_MEMORY` or `EXCEL_SECONDS`.
    """
    return next(iter(_sheets(path, *(["first"] if sheet is None else ["named", sheet])).values()))


def excel_sheets(path: Path) -> dict[str, Sheet]:
    """All sheets of an Excel file by name; raises as `excel` does."""
    return _sheets(path, "all")


def _sheets(path: Path, *which: str) -> dict[str, Sheet]:
    check_regular(path)
    limits = [str(MOST_CELLS), str(MOST_TEXT), str(EXCEL_MEMORY)]
    # -P: nothing that lies in the reader's folder is taken for a module.
    command = [sys.executable, "-P", os.fspath(_READER), os.fspath(path), *limits, *which]
    try:
        found = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=EXCEL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"reading it took more than {EXCEL_SECONDS} seconds") from None
    if found.returncode == 3:  # the reader's own words
        raise ValueError(found.stderr.decode("utf-8", "replace").strip())
    if found.returncode:
        raise ValueError(
            f"reading it ended with {found.returncode}: it is damaged, or a cell far outside makes "
            f"it take more than {EXCEL_MEMORY >> 30} GiB; delete empty rows and columns, or save "
            "it as CSV"
        )
    sheets: dict[str, Sheet] = {}
    for line in found.stdout.splitlines():
        part = json.loads(line)
        if isinstance(part, dict):
            sheet = sheets[part["sheet"]] = Sheet([], part["merged"], part["formulas"])
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
    """The rows of some columns as record batches, whose texts are dictionary arrays.

    Raises:
        TooMuchError: more than `MOST_ROWS`, `MOST_GROUP` or `MOST_TEXT`.
        OSError, pyarrow.ArrowException: it cannot be read.
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
    """A `pyarrow.parquet.ParquetFile` in which repeated values of plain columns take no memory.

    Raises:
        TooMuchError: more than `MOST_ROWS` or `MOST_GROUP`.
        OSError, pyarrow.ArrowException: it cannot be read.
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
        if leaf.physical_type == "BYTE_ARRAY" and leaf.path == leaf.name  # Arrow takes no others
    ]
    return pyarrow.parquet.ParquetFile(path, read_dictionary=repeated)


def parquet_group(path: str, column: str, group: int) -> Any:
    """A column of one row group, as a chunked array.

    Raises:
        TooMuchError: more than `MOST_ROWS` or `MOST_GROUP`.
        KeyError: there is no such column.
        OSError, pyarrow.ArrowException: it cannot be read.
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
    """The bytes of an array whose values are written out."""
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    if kinds.is_struct(array.type):
        return sum(map(_size, array.flatten()))
    if not kinds.is_dictionary(array.type):
        return int(array.nbytes)
    lengths = compute.binary_length(array.dictionary).cast(pyarrow.int64())
    return compute.sum(lengths.take(array.indices)).as_py() or 0


def zip_member(archive: zipfile.ZipFile, member: str, most: int = MOST_IMAGE) -> bytes:
    """The content of a member of at most `most` bytes.

    Raises:
        KeyError: there is none.
        ValueError: one line: it is larger, or packed by bzip2 or LZMA, whose pieces have no limit.
        zipfile.BadZipFile, zlib.error, EOFError, RuntimeError: it is damaged or encrypted.
    """
    info = archive.getinfo(member)
    if info.file_size > most:
        raise ValueError(f"it unpacks to {info.file_size:,} bytes, more than {most:,}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is packed by another method than deflate: pack it anew")
    with archive.open(info) as file:
        return read_some(file, most)


def read_some(file: IO[bytes], most: int) -> bytes:
    """The rest of a file of at most `most` bytes.

    Raises:
        ValueError: there are more.
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data
