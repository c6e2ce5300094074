"""The folder of uploads: which paths lie in it, and how long anything stays there."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

MOST_SECONDS = 45
"""That a file lies there untouched. What was uploaded is read at once, unless many wait."""
LOOK_SECONDS = 5


def inside(folder: Path, path: str) -> Path:
    """The path, if it is that of an upload: a file in the folder, by no link from elsewhere.

    Raises:
        ValueError: one line: it is none, or no longer.
    """
    whole = Path(os.path.realpath(path))
    if not whole.is_relative_to(os.path.realpath(folder)) or not whole.is_file():
        raise ValueError("this is no upload, or it has waited too long: drop the photograph again")
    return whole


def take(folder: Path, path: str, most: int) -> bytes:
    """Read an upload, at most so many bytes of it, and delete it whatever comes of that.

    Raises:
        ValueError: see `inside`; what is not an upload is not touched.
    """
    whole = inside(folder, path)
    try:
        with open(whole, "rb") as file:
            return file.read(most)
    finally:
        whole.unlink(missing_ok=True)


def count(folder: Path) -> int:
    """The files in the folder that are not empty (Gradio leaves an empty one for each upload)."""
    return sum(stat.S_ISREG(s.st_mode) and s.st_size > 0 for _, s in _entries(folder))


def sweep(folder: Path, seconds: float) -> None:
    """Delete what has not been touched for so long: uploads that were cut off, and those whose
    visitor has gone."""
    oldest = time.time() - seconds
    for path, status in _entries(folder):
        if max(status.st_mtime, status.st_ctime) > oldest:
            continue
        with suppress(OSError):  # a folder that is not empty, a file that is gone
            if stat.S_ISDIR(status.st_mode):
                path.rmdir()
            else:
                path.unlink()


def sweeping(folder: Path) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan of a server, during which the folder is swept."""

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
    """What is in the folder, deepest first."""
    found = []
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(parent, name)
            with suppress(OSError):
                found.append((path, path.lstat()))
    return found
