"""The folder of uploads: its paths, and the deletion of old files."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

MOST_SECONDS = 45
"""The age at which an untouched file is deleted; uploads are read at once, unless many wait."""
LOOK_SECONDS = 5
"""The time between two checks of the folder."""


def inside(folder: Path, path: str) -> Path:
    """Return the real path of an upload, which must be a file in the folder and not a link out.

    Raises:
        ValueError: one line: the path is not that of an upload, or the upload is deleted.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)) or not real.is_file():
        raise ValueError("the upload is missing or too old: drop the photograph again")
    return real


def take(folder: Path, path: str, most: int) -> bytes:
    """Read at most `most` bytes of an upload, and delete it, also if reading fails.

    Raises:
        ValueError: see `inside`; other files are not touched.
    """
    real = inside(folder, path)
    try:
        with open(real, "rb") as file:
            return file.read(most)
    finally:
        real.unlink(missing_ok=True)


def count(folder: Path) -> int:
    """Count the files in the folder, without empty ones (Gradio leaves one for each upload)."""
    return sum(stat.S_ISREG(s.st_mode) and s.st_size > 0 for _, s in _entries(folder))


def sweep(folder: Path, seconds: float) -> None:
    """Delete files that were not touched for `seconds`: broken or abandoned uploads."""
    oldest = time.time() - seconds
    for path, status in _entries(folder):
        if max(status.st_mtime, status.st_ctime) > oldest:
            continue
        with suppress(OSError):  # a folder that is not empty, or a file that is deleted already
            if stat.S_ISDIR(status.st_mode):
                path.rmdir()
            else:
                path.unlink()


def sweeping(folder: Path) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a server's lifespan that sweeps the folder at intervals."""

    async def forever() -> None:
        while True:
            await asyncio.to_thread(sweep, folder, MOST_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def lifespan(_application: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(forever())
        try:
            yield
        finally:
            task.cancel()

    return lifespan


def _entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Return all files and folders in the folder with their status, deepest first."""
    entries = []
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(parent, name)
            with suppress(OSError):
                entries.append((path, path.lstat()))
    return entries
