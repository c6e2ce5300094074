"""The record that each thread and process of a pipeline works on, to name one that hangs.

Threads of the asking process note a time and the key of their record (or none) in memory. A thread
of a worker process writes both to a small file in a temporary folder: the file outlives the worker,
and costs microseconds. The first pickled copy makes the folder. The asking process removes the
folder at its end. If the asking process is killed, its workers remove the folder.
"""

import contextlib
import os
import shutil
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SIZE = 512
_TIME = struct.Struct("<dH")


class StalledError(OSError):
    """Data does not come, perhaps never will; one line. Threads may hang."""


@dataclass(frozen=True)
class ThreadState:
    """The state of one thread."""

    process: int
    seconds: float
    """Seconds since the record began, or since the last one ended if there is no key."""
    key: str


class Progress:
    """The state of a pipeline's threads; it can be pickled for the pipeline's processes."""

    def __init__(self, folder: Path | None = None):
        """Make a new one, or open that of a `folder` in another process."""
        self.folder = folder
        """The folder with the files of other processes; None while there are none."""
        self._files = folder
        self._own = threading.local()
        self._here: dict[int, tuple[float, str]] = {}

    def __reduce__(self) -> tuple[type["Progress"], tuple[Path]]:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="vclip-data-"))
            # The end of the process removes the folder, too, if nobody closes this.
            weakref.finalize(self, _remove, self.folder, os.getpid())
        return Progress, (self.folder,)

    @contextlib.contextmanager
    def at(self, key: str) -> Iterator[None]:
        """Note in the block that this thread works on a record."""
        self._write(key)
        try:
            yield
        finally:
            self._write("")

    def entries(self) -> list[ThreadState]:
        """List the states of all threads that have begun."""
        now = time.time()
        here = list(self._here.values())  # at once: other threads go on
        states = [ThreadState(os.getpid(), now - then, key) for then, key in here]
        for path in self.folder.glob("*-*") if self.folder else ():
            content = path.read_bytes()
            if len(content) == _SIZE:
                then, length = _TIME.unpack_from(content)
                key = content[_TIME.size : _TIME.size + length].decode(errors="replace")
                states.append(ThreadState(int(path.name.partition("-")[0]), now - then, key))
        return states

    def stalled(self, limit: float) -> str | None:
        """Return the reason if the pipeline has stalled for more than `limit` seconds, else None.

        A slow pipeline has not stalled: some record must take longer than the limit, or no record
        has begun for as long.
        """
        entries = self.entries()
        stuck = [entry for entry in entries if entry.key and entry.seconds > limit]
        if stuck:
            worst = max(stuck, key=lambda entry: entry.seconds)
            return f"{worst.key} has been worked on for {worst.seconds:.0f} s"
        if all(entry.seconds > limit for entry in entries):
            return f"no record was read for {limit:.0f} s: does the storage answer?"
        return None

    def records_of_dead_workers(self) -> list[str]:
        """List the records that processes were working on when they died."""
        return [entry.key for entry in self.entries() if entry.key and not _lives(entry.process)]

    def close(self) -> None:
        """Remove the files. May be repeated."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, key: str) -> None:
        if self._files is None:
            self._here[threading.get_ident()] = time.time(), key
            return
        if not hasattr(self._own, "file"):
            name = self._files / f"{os.getpid()}-{threading.get_ident()}"
            try:
                self._own.file = _File(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600))
            except FileNotFoundError:  # closed meanwhile: the state is not needed any more
                return
        encoded = key.encode("utf-8", "replace")[: _SIZE - _TIME.size]
        content = _TIME.pack(time.time(), len(encoded)) + encoded
        os.pwrite(self._own.file.descriptor, content.ljust(_SIZE, b"\0"), 0)


class _File:
    """A file that is open for as long as its thread lives."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _remove(folder: Path, process: int) -> None:
    """Remove the folder of a process, unless this process is a fork of that one."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # without /proc a dead child may seem alive
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
