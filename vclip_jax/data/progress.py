"""Which record every thread and process of a pipeline is at, so that one that hangs can be named.

Each of them has a small file, in a temporary folder, with a time and the key of the record that it
works on, or none: what is written there outlives the process, and costs microseconds.
"""

import contextlib
import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SIZE = 512
_TIME = struct.Struct("<dH")


class StalledError(OSError):
    """Data does not come, and nothing says that it ever will; one line. Threads may be stuck."""


@dataclass(frozen=True)
class ThreadState:
    """What one thread was at."""

    process: int
    seconds: float
    """Since it began, or since it ended if there is no key."""
    key: str


class Progress:
    """Shared by a pipeline's threads and processes, to which it can be pickled."""

    def __init__(self, folder: Path | None = None):
        """A new one, or that of a `folder`."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="vclip-data-"))
        self._own = threading.local()

    def __reduce__(self) -> tuple[type["Progress"], tuple[Path]]:
        return Progress, (self.folder,)

    @contextlib.contextmanager
    def at(self, key: str) -> Iterator[None]:
        """This thread works on a record."""
        self._write(key)
        try:
            yield
        finally:
            self._write("")

    def entries(self) -> list[ThreadState]:
        """Of all threads that have begun."""
        found = []
        now = time.time()
        for path in self.folder.glob("*-*"):
            content = path.read_bytes()
            if len(content) == _SIZE:
                then, length = _TIME.unpack_from(content)
                key = content[_TIME.size : _TIME.size + length].decode(errors="replace")
                found.append(ThreadState(int(path.name.partition("-")[0]), now - then, key))
        return found

    def stalled(self, limit: float) -> str | None:
        """What is wrong if whoever asks has waited for more than `limit` seconds, if anything is.

        Slow is not stalled: some record must take longer than that, or none have been begun.
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
        """The records that processes were at which are no more."""
        return [entry.key for entry in self.entries() if entry.key and not _lives(entry.process)]

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, key: str) -> None:
        if not hasattr(self._own, "file"):
            name = self.folder / f"{os.getpid()}-{threading.get_ident()}"
            try:
                self._own.file = _File(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600))
            except FileNotFoundError:  # closed meanwhile: nobody will ask
                return
        encoded = key.encode("utf-8", "replace")[: _SIZE - _TIME.size]
        content = _TIME.pack(time.time(), len(encoded)) + encoded
        os.pwrite(self._own.file.descriptor, content.ljust(_SIZE, b"\0"), 0)


class _File:
    """Open for as long as the thread lives."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # where there is no /proc, a dead child may seem to live
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
