"""Untrusted files and names: read within limits, and printed without effects on a terminal.

Code that reads another program's file reads it with this module, or checks its own reader's result
against this module's limits. A refusal is a `ValueError` or an `OSError` of one line.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vclip_jax.files.errors import one_line, shown

if TYPE_CHECKING:
    from etils import epath  # its import takes 0.06 s

AnyPath = TypeVar("AnyPath", Path, "epath.Path")

MOST_JSON: Final = 4 << 20
"""Bytes of a configuration or a prompt set; those of the package have a few kilobytes."""
DEEPEST_JSON: Final = 64
"""Levels of nested objects and lists; those of the package have six."""
MOST_IMAGE: Final = 256 << 20
"""Bytes of an encoded photograph: `opening.MAX_PIXELS` uncompressed pixels."""
MOST_ENTRIES: Final = 1_000_000
"""Files and folders of an untrusted folder; a checkpoint of a thousand processes has thousands."""


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check the kind of a file without opening it, because opening a pipe waits for its other end.

    Raises:
        OSError: the path does not exist, or it is a pipe, a socket or a device.
    """
    _check_kind(os.stat(path).st_mode, path)


def check_paths(names: Iterable[str]) -> None:
    """Check that the paths of a command line exist, links to nothing included.

    Args:
        names: paths, or "-" for standard input.

    Raises:
        ValueError: one line: a path does not exist.
    """
    for name in names:
        if name != "-" and not os.path.lexists(name):
            raise ValueError(f"{name}: there is no such file or folder")


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read, or it is a pipe, a socket or a device.
        ValueError: one line: the file is larger.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        _check_kind(os.fstat(file.fileno()).st_mode, path)
        # The size alone does not do: files of /proc report 0 bytes.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        data += file.read(most + 1 - len(data)) if data else b""
    if len(data) > most:
        raise ValueError(f"{os.fspath(path)} has more than {most:,} bytes")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting, because opening a pipe waits for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def cleared(path: AnyPath) -> AnyPath:
    """Remove the file at a path and return the path.

    Unfinished files have predictable names: a link of that name in an untrusted folder would be
    followed, and its target overwritten.
    """
    path.unlink(missing_ok=True)
    return path


def _check_kind(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        reason = "a pipe, a socket or a device, not a file"
        raise OSError(errno.EINVAL, reason, os.fspath(path))


def read_json(
    path: str | os.PathLike[str], most: int = MOST_JSON, *, constants: bool = False
) -> Any:
    """Return the content of a JSON file; see `parse_json`.

    Raises:
        OSError: the file cannot be read, or it is a pipe, a socket or a device.
        ValueError: one line that names the file.
    """
    return parse_json(read_bytes(path, most), os.fspath(path), most, constants=constants)


def parse_json(
    text: str | bytes, what: str, most: int = MOST_JSON, *, constants: bool = False
) -> Any:
    """Return the value of an untrusted JSON text.

    Args:
        text: str, or bytes in UTF-8.
        what: the name of the text in error messages.
        most: the most bytes (or characters) that the text may have.
        constants: accept NaN, Infinity and -Infinity as numbers, as Python does and JSON does not.

    Raises:
        ValueError: one line: the text is not JSON, is too large, is nested more than `DEEPEST_JSON`
            levels deep, or has an object with the same key twice.
    """
    if len(text) > most:
        raise ValueError(f"{what} has more than {most:,} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_constant=None if constants else _no_number,
            object_pairs_hook=_with_each_key_once,
        )
        if _is_deep(value):
            raise RecursionError
    except RecursionError:
        raise ValueError(f"{what} is nested more than {DEEPEST_JSON} levels deep") from None
    except _TwiceError as error:
        raise ValueError(f"{what} has the key {error} twice in one object") from None
    except ValueError as error:
        raise ValueError(f"{what} is not JSON ({one_line(error)})") from error
    return value


class _TwiceError(ValueError):
    """A key that an object has twice, as it may be printed."""


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object, refusing a repeated key: which of its two values is meant is unknown."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _TwiceError(repr(twice[:60]))
    return value


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST_JSON + 1):
        level = [
            item
            for node in level
            if isinstance(node, dict | list)
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def hub_name(name: str) -> tuple[str, str | None]:
    """Return repository and revision of a name on the Hugging Face Hub: hub:OWNER/NAME[@REVISION].

    Raises:
        ValueError: one line: the revision is empty, or the name is none of the Hub's. Old
            repositories have no owner.
    """
    repository, at, revision = name.removeprefix("hub:").partition("@")
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", repository, re.ASCII):
        raise ValueError(f"{name}: a model on the Hub is called hub:OWNER/NAME[@REVISION]")
    if at and not revision:
        raise ValueError(f"{name}: give a branch, a tag or a commit after the @")
    return repository, revision or None


def check_inside(path: Path) -> None:
    """Check that a file lies in its folder, before it is exported or uploaded with the folder.

    Accept the links of the Hugging Face Hub's cache, which lead into the repository's `blobs`.

    Raises:
        ValueError: one line: the file is a link that leads elsewhere.
        OSError: the link leads nowhere.
    """
    real, folder = path.resolve(strict=True), path.parent.resolve()
    if not real.is_relative_to(folder) and real.parent != folder.parent.parent / "blobs":
        raise ValueError(
            f"{shown(path)} is a link to a file outside the folder, which may be private: put the "
            "file itself in its place, or remove it"
        )


def regular_files(folder: Path) -> None:
    """Check that each entry of a folder, at any depth, is a file or a folder, or a link to one.

    Skip an entry that vanishes meanwhile: a run may be saving there.

    Raises:
        ValueError: one line: an entry is neither a file nor a folder, or there are more than
            `MOST_ENTRIES`.
        OSError: the folder cannot be read.
    """
    left = MOST_ENTRIES
    seen = {_identity(os.stat(folder))}  # a link may lead back to a folder above it
    open_folders = [os.fspath(folder)]
    while open_folders:
        for entry in _entries(open_folders.pop()):
            left -= 1
            if left < 0:
                raise ValueError(f"{shown(folder)} holds more than {MOST_ENTRIES:,} entries")
            try:
                status = os.stat(entry)
            except OSError as error:
                if not os.path.islink(entry):
                    continue
                raise ValueError(f"{shown(entry)} is neither a file nor a folder") from error
            if stat.S_ISDIR(status.st_mode):
                if _identity(status) not in seen:
                    seen.add(_identity(status))
                    open_folders.append(entry)
            elif not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{shown(entry)} is neither a file nor a folder")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(folder: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path
