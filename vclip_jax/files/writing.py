"""Write files whole: a reader, or a start after a crash, never finds half a file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vclip_jax.files.errors import shown
from vclip_jax.files.foreign import AnyPath, cleared


@contextmanager
def replacing(path: AnyPath, *, sync: bool = False) -> Iterator[AnyPath]:
    """Yield a temporary path next to `path`, and move the written file to `path` at the end.

    If the block raises, `path` stays as it was and the temporary file is removed. The temporary
    name ends in ".tmp" and holds the process's number, because several processes may write at a
    time.

    Args:
        path: the file to write or replace, in an existing folder.
        sync: wait until the content is on the disk before the file gets its name.
    """
    temporary = cleared(path.with_name(f"{path.name}.{os.getpid()}.tmp"))
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_no_link(path: AnyPath) -> None:
    """Check a file before it is opened to be written in its place.

    Raises:
        ValueError: one line: the file is a link, and writing would change its target.
    """
    if path.is_symlink():
        raise ValueError(
            f"{shown(path)} is a symbolic link, and nothing is written through one: put the file "
            "itself in its place, or remove it"
        )


def write_bytes(path: AnyPath, content: bytes, *, sync: bool = False) -> None:
    """Write or replace a file in one step; see `replacing`."""
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(content)


def write_text(path: AnyPath, content: str, *, sync: bool = False) -> None:
    """Write or replace a file of UTF-8 text in one step; see `replacing`."""
    write_bytes(path, content.encode(), sync=sync)


def write_json(path: AnyPath, content: Any) -> None:
    """Write or replace a JSON file in one step, indented by one space, in UTF-8."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
