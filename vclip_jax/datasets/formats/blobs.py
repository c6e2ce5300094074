"""The bytes of an image in a file, a .zip, a .tar, a .parquet, or in Chinese-CLIP's .tsv or LMDB.

Nothing is extracted to disk. Containers stay open between calls, per process: a handle inherited by
a fork would share its position with the parent.
"""

import base64
import os
import zipfile
import zlib
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats import chinese_clip_lmdb
from vclip_jax.datasets.formats.chinese_clip import MOST_BASE64
from vclip_jax.datasets.listing import Blob
from vclip_jax.files import limits
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import MOST_IMAGE, check_regular, read_bytes

_OPEN_ZIPS: Final = 32
"""More than SynFundus-1M's twenty parts; an open archive of 50,000 members takes about 30 MB."""

_USUAL: Final = bytes.maketrans(b"-_", b"+/")


def read(blob: Blob) -> bytes:
    """Return the encoded image at `blob`.

    A .parquet's row groups are read one at a time and the last one is kept, so that reading the
    rows in order is fast and takes the memory of one row group.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: one line that names the blob: the container is damaged or has no such member.
    """
    if not blob.member:
        return read_bytes(blob.path, MOST_IMAGE)
    match Path(blob.path).suffix.lower():
        case ".zip":
            return _from_zip(blob)
        case ".tar":
            return _piece(blob, MOST_IMAGE)
        case ".tsv":
            return _decoded(blob, _piece(blob, MOST_BASE64))
        case ".mdb":
            return _decoded(blob, chinese_clip_lmdb.value(blob.path, blob.member))
        case ".parquet" | ".pq":
            return _from_parquet(blob)
    raise ValueError(f"{blob}: the container is not a .zip, .tar, .tsv, .mdb or .parquet")


def _from_zip(blob: Blob) -> bytes:
    try:
        return limits.zip_member(_zip(blob.path, os.getpid()), blob.member)
    except KeyError:
        raise ValueError(f"{blob}: the archive has no such member") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted, or (NotImplementedError) compressed by an unknown method.
        raise ValueError(f"{blob}: {one_line(error)}") from error


def _piece(blob: Blob, most: int) -> bytes:
    """Return a piece of a file that says where its members are: OFFSET:SIZE."""
    offset, _, size = blob.member.partition(":")
    if not (offset.isdecimal() and size.isdecimal()):
        raise ValueError(f"{blob}: a member of a .tar or .tsv is OFFSET:SIZE")
    if int(size) > most:
        raise ValueError(f"{blob}: it has more than {most:,} bytes")
    check_regular(blob.path)
    with open(blob.path, "rb") as file:
        file.seek(int(offset))
        data = file.read(int(size))
    if len(data) != int(size):
        raise ValueError(f"{blob}: the file ends early")
    return data


def _decoded(blob: Blob, data: bytes) -> bytes:
    """Return the bytes of a text in base64, of the usual alphabet or that of addresses."""
    try:
        return base64.b64decode(data.translate(_USUAL), validate=True)
    except ValueError as error:
        raise ValueError(f"{blob}: not base64 ({one_line(error)})") from error


def _from_parquet(blob: Blob) -> bytes:

    column, _, number = blob.member.rpartition(":")
    if not column or not number.isdecimal():
        raise ValueError(f"{blob}: a member of a .parquet is COLUMN:ROW")
    row = int(number)
    try:
        starts = _row_group_starts(blob.path)
        if row >= starts[-1]:
            raise ValueError(f"{blob}: the file has {starts[-1]} rows")
        group = bisect_right(starts, row) - 1
        value = _row_group(blob.path, column, group)[row - starts[group]].as_py()
    except limits.arrow_errors(limits.TooMuchError) as error:
        raise ValueError(f"{blob}: {one_line(error)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{blob}: {one_line(error)}") from error  # Arrow's error for damage
    except KeyError:
        raise ValueError(f"{blob}: the file has no such column") from None
    except IndexError:
        raise ValueError(f"{blob}: damaged, it has fewer rows than it says") from None
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise ValueError(f"{blob}: the row holds no image bytes")
    return value


@lru_cache(_OPEN_ZIPS)
def _zip(path: str, process: int) -> zipfile.ZipFile:
    del process  # part of the cache's key
    check_regular(path)
    return zipfile.ZipFile(path)


@lru_cache(256)
def _row_group_starts(path: str) -> tuple[int, ...]:
    """Return the first row of every row group, and the number of rows."""
    import pyarrow.parquet

    check_regular(path)
    metadata = pyarrow.parquet.read_metadata(path)
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return tuple(starts)


@lru_cache(1)
def _row_group(path: str, column: str, group: int) -> Any:
    return limits.parquet_group(path, column, group)
