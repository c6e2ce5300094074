"""Files and names that strangers made: read within limits, shown without effects on a terminal.

Whoever reads a file of another program reads it here, or holds what its own reader found against
the limits of this module. What is refused is a `ValueError` or an `OSError` of one line.
"""

import errno
import json
import os
import stat
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Final, TypeVar

from etils import epath

from vclip_jax.files.errors import one_line

AnyPath = TypeVar("AnyPath", Path, epath.Path)

MOST_JSON: Final = 4 << 20
"""Bytes of a configuration or a prompt set: ours have some kilobytes."""
DEEPEST_JSON: Final = 64
"""Levels of objects and lists within each other: ours have six."""
MOST_IMAGE: Final = 256 << 20
"""Bytes of an encoded photograph: as many as `opening.MAX_PIXELS` take without any compression."""


def check_regular(path: str | os.PathLike[str]) -> None:
    """Look at what a path leads to, without opening it: opening a pipe waits for its other end.

    Raises:
        OSError: there is nothing, or it is a pipe, a socket or a device.
    """
    _check_kind(os.stat(path).st_mode, path)


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: one line: it is larger.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        _check_kind(os.fstat(file.fileno()).st_mode, path)
        # Not its size alone: files of /proc say that they have none.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        data += file.read(most + 1 - len(data)) if data else b""
    if len(data) > most:
        raise ValueError(f"{os.fspath(path)} has more than {most:,} bytes")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def cleared(path: AnyPath) -> AnyPath:
    """The path, from which what lay there is removed.

    Unfinished files have names that are known: a link that a stranger's folder holds under such a
    name would be written through.
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
    """The content of a JSON file; see `parse_json`.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: one line that names it.
    """
    return parse_json(read_bytes(path, most), os.fspath(path), most, constants=constants)


def parse_json(
    text: str | bytes, what: str, most: int = MOST_JSON, *, constants: bool = False
) -> Any:
    """What a JSON text of strangers says.

    Args:
        text: as bytes it is UTF-8.
        what: how errors call it.
        most: bytes (or characters) that it may have.
        constants: take the words NaN, Infinity and -Infinity for numbers, as Python does and JSON
            does not.

    Raises:
        ValueError: one line: it is no JSON, too large, nested more than `DEEPEST_JSON` deep, or an
            object has a key twice.
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
    """A key, as it may be shown."""


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object: which of two values is meant nobody knows."""
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


def shown(text: object) -> str:
    """A name, or a message with names in it, as it may be printed.

    Control characters, halves of characters and marks that turn the direction of writing are
    escaped as Python writes them: a terminal obeys what stands in a file's name.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )


def hub_name(name: str) -> tuple[str, str | None]:
    """Repository and revision of a name on the Hugging Face Hub: hub:OWNER/NAME[@REVISION].

    Raises:
        ValueError: one line: the revision is empty.
    """
    repository, at, revision = name.removeprefix("hub:").partition("@")
    if at and not revision:
        raise ValueError(f"{name}: behind the @ stands a branch, a tag or a commit")
    return repository, revision or None


def regular_files(folder: Path) -> None:
    """Look at all entries of a folder.

    Raises:
        ValueError: one line: an entry is neither a file nor a folder.
        OSError: the folder cannot be read.
    """
    for path in folder.iterdir():
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{shown(path)} leads to neither a file nor a folder")
