"""Open ArrayRecord files, no more of them than the system allows a process.

A login shell usually allows 1,024; SynFundus-1M in shards of 512 records has 1,563. A file is
opened when it is read, and closed when others are wanted. Each process uses a share of its limit,
and opens files again (0.1 to 1 ms each) only if it reads more files than that.
"""

import errno
import os
import re
import resource
from functools import lru_cache
from typing import Any, Final

_SHARE: Final = 4
"""A process keeps a quarter of its files for this; sockets and libraries need some."""
_TOO_MANY: Final = os.strerror(errno.EMFILE)
_MOST: Final = 65_536
"""Files, if the system sets no limit."""


def raise_limit() -> None:
    """Raise the number of files that this process and its children may open to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def read_record(source: str, path: str, number: int) -> bytes:
    """Return record `number` of a file.

    Args:
        source: the identity of the source; a file rebuilt under the same path has another.
        path: the file.
        number: the record's number, from 0.

    Raises:
        OSError: one line: the system does not give the file or its bytes, damaged or not.
        Exception: of many types: the bytes are damaged.
    """
    opened = _readers(os.getpid())
    try:
        reader = opened(source, path)
    except OSError as error:
        if _TOO_MANY not in str(error):
            raise
        opened.cache_clear()  # other code has opened more files than its share
        reader = opened(source, path)
    try:
        return reader.read([number])[0]
    except RuntimeError as error:
        _raise_systems(path, error)
        raise


@lru_cache(maxsize=1)
def _readers(process: int) -> Any:
    """Return `_open` with a cache for this process: a fork must not share file positions."""
    return lru_cache(max(8, _limit() // _SHARE))(_open)


def _open(source: str, path: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # As in array_record's own data source: records are read one by one, in random order.
    reader = ArrayRecordReader(
        path, options="readahead_buffer_size:0", file_reader_buffer_size=32768
    )
    if not reader.ok():
        try:
            reader.close()
        except RuntimeError as error:
            _raise_systems(path, error)
            raise
    return reader


def _raise_systems(path: str, error: RuntimeError) -> None:
    """Raise OSError if `error` reports a failed system call."""
    call = re.search(r"(\w+)\(\) failed: ([^;]*)", str(error))
    if call is None:
        return
    why = f"{path}: the system's {call[1]} says: {call[2]}"
    if call[2] == _TOO_MANY:
        why += f"; this process may open {_limit()}: raise that, as with `ulimit -n 4096`"
    raise OSError(why) from error


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)
