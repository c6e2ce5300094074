"""Open ArrayRecord files, and no more of them than the system lets a process have.

A login shell lets it have 1,024 as a rule; SynFundus-1M in shards of 512 records has 1,563. They
are opened when they are read, and closed when others are wanted: each process takes a share of its
limit, and only if that is less than what it reads does it open files again (0.1 to 1 ms each).
"""

import errno
import os
import re
import resource
from functools import lru_cache
from typing import Any, Final

_SHARE: Final = 4
"""A process holds one in so many of the files that it may open; sockets and libraries need some."""
_TOO_MANY: Final = os.strerror(errno.EMFILE)
_MOST: Final = 65_536
"""Files, where the system sets no limit."""


def raise_limit() -> None:
    """Let this process, and those that it starts, open as many files as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def read_record(source: str, path: str, number: int) -> bytes:
    """Record `number` of a file.

    Args:
        source: who asks; a file that was built anew under the same path is another source's.
        path: of the file.
        number: from 0.

    Raises:
        OSError: one line: the system does not give the file or its bytes, whatever they are.
        Exception: of many types: they are damaged.
    """
    opened = _readers(os.getpid())
    try:
        reader = opened(source, path)
    except OSError as error:
        if _TOO_MANY not in str(error):
            raise
        opened.cache_clear()  # others have opened more than was left to them
        reader = opened(source, path)
    try:
        return reader.read([number])[0]
    except RuntimeError as error:
        _raise_systems(path, error)
        raise


@lru_cache(maxsize=1)
def _readers(process: int) -> Any:
    """`_open` with a memory of its own in every process: a fork must not share file positions."""
    return lru_cache(max(8, _limit() // _SHARE))(_open)


def _open(source: str, path: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # As in array_record's own data source: records are read one by one and at random.
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
    """Raises OSError if `error` is what a call of the system answered."""
    call = re.search(r"(\w+)\(\) failed: ([^;]*)", str(error))
    if call is None:
        return
    why = f"{path}: the system's {call[1]} says: {call[2]}"
    if call[2] == _TOO_MANY:
        why += f"; this process may have {_limit()}: raise that, as with `ulimit -n 4096`"
    raise OSError(why) from error


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)
