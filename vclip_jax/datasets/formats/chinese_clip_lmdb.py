"""The LMDB databases that Chinese-CLIP makes of its files: `SPLIT/imgs` and `SPLIT/pairs`.

    imgs:  17 -> the image in base64; num_images -> their number
    pairs: 0, 1, ... -> a pickle of (image id, text id, text); num_samples -> their number

LMDB is native code that trusts the numbers in its files, so the databases are listed in a process
of their own. A pickle is never run, see `pickled_tuple`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vclip_jax.data.images import guarded
from vclip_jax.datasets.formats import pickled_tuple
from vclip_jax.datasets.formats.chinese_clip import (
    MOST_BASE64,
    MOST_TEXT,
    Fault,
    Image,
    Text,
    checked_id,
)
from vclip_jax.datasets.listing import Blob
from vclip_jax.files import limits
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import check_regular

DATA: Final = "data.mdb"
"""The file of a database."""
LOCK: Final = "lock.mdb"
"""The file beside it, which is not read."""
_MOST_DIGITS: Final = 18
_UNWRITTEN: Final = 256 << 10
_LIMITS: Final = guarded.Limits(cpu_seconds=3600, seconds=4 * 3600, memory=8 << 30)
"""Limits of listing a database; a million pairs take about a minute."""

Counted = tuple[list[Any], int]
"""The entries of a database, and the number of entries that it says it has; -1 if it says none."""


def images(path: Path) -> tuple[list[Image | Fault], str]:
    """Return the images of a database, without reading them, and a note or "".

    Args:
        path: the file `imgs/data.mdb`.

    Raises:
        ValueError: one line: the `lmdb` package is not installed, or the database is damaged.
    """
    keys, said = _apart(_keys, path)
    found: list[Image | Fault] = []
    for key in keys:
        where = f"{_place(path)}, {key!r}"
        try:
            key.encode()  # fails for bytes that are no text
            found.append(Image(checked_id(key), Blob(str(path), key), where))
        except ValueError as error:
            found.append(Fault(where, "not an id", f"{where}: {one_line(error)}"))
    return found, _note(path, said, len(keys), "images", "num_images")


def texts(path: Path) -> tuple[list[Text | Fault], str]:
    """Return the pairs of a database, each as a text with one image, and a note or "".

    Pairs beyond the number that the database says it has are left out: Chinese-CLIP's script leaves
    them when it overwrites a larger database.

    Args:
        path: the file `pairs/data.mdb`.

    Raises:
        ValueError: one line: the `lmdb` package is not installed, or the database is damaged.
    """
    pairs, said = _apart(_pairs, path)
    kept = [pair for pair in pairs if said < 0 or pair[0] < said]
    found: list[Text | Fault] = []
    for number, value in sorted(kept, key=lambda pair: pair[0]):
        where = f"{_place(path)}, {number}"
        if isinstance(value, str):
            found.append(Fault(where, "invalid text", f"{where}: {value}"))
        else:
            image, text_id, text = value
            found.append(Text(text_id, text, (image,), where))
    note = _note(path, said, len(kept), "pairs", "num_samples")
    if stale := len(pairs) - len(kept):
        note = f"{note} " if note else ""
        note += f"{_place(path)}: {stale} pairs of an earlier, larger database are left out."
    return found, note


def _note(path: Path, said: int, there: int, what: str, key: str) -> str:
    if said == there:
        return ""
    if said < 0:
        return f"{_place(path)} has no {key}: it was not written to its end, or not copied whole."
    return f"{_place(path)} says that it has {said:,} {what}, and it has {there:,}."


def _place(path: Path) -> str:
    """Return the path of a database from its split, such as "train/imgs"."""
    return "/".join(path.parts[-3:-1])


def value(path: str, key: str) -> bytes:
    """Return the value of a key, an image in base64.

    Raises:
        OSError: the file does not exist.
        ValueError: one line: the `lmdb` package is not installed, the database is damaged or has no
            such key, or the value is too large.
    """
    check_regular(path)
    with _opened(Path(path)) as (transaction, _):
        found = transaction.get(key.encode())
        if found is None:
            raise ValueError(f"{path}: there is no key {key!r}")
        if len(found) > MOST_BASE64:
            raise ValueError(f"{path}, {key!r}: it has more than {MOST_BASE64:,} bytes")
        return bytes(found)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield a transaction of a database, which is closed at the end, and its number of entries."""
    lmdb = _package()
    try:
        # A second handle in one process is refused, and one that a fork inherits must not be used.
        with (
            lmdb.open(
                os.fspath(path.parent), readonly=True, lock=False, create=False, readahead=False
            ) as environment,
            environment.begin(buffers=True) as transaction,
        ):
            status = environment.stat()
            _check_length(path, (environment.info()["last_pgno"] + 1) * status["psize"])
            yield transaction, status["entries"]
    except lmdb.Error as error:
        raise ValueError(f"{path}: not a readable LMDB database ({one_line(error)})") from error


def _check_length(path: Path, needed: int) -> None:
    """Check that a file was copied whole: reading a page after its end kills the process.

    Raises:
        ValueError: one line: the file is shorter than its pages.
    """
    # LMDB itself may leave some of the last pages unwritten.
    if os.path.getsize(path) + _UNWRITTEN < needed:
        raise ValueError(
            f"{path}: it has {os.path.getsize(path):,} of {needed:,} bytes: copy it again"
        )


def _package() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise ValueError(
            "the lmdb package, which reads LMDB databases, is not installed: pip install "
            "'vclip_jax[lmdb]', or give the folder of the .tsv and .jsonl files"
        ) from error
    return lmdb


def _apart(list_entries: Callable[[Path], Counted], path: Path) -> Counted:
    """List the entries of a database in another process."""
    _package()
    check_regular(path)
    try:
        answer = guarded.call(_answer, list_entries, path, limits=_LIMITS)
    except guarded.Fault as error:
        raise ValueError(f"{path}: damaged or not copied whole ({one_line(error)})") from error
    if isinstance(answer, str):
        raise ValueError(answer)
    entries, said = answer
    return entries, said


def _answer(list_entries: Callable[[Path], Counted], path: Path) -> Counted | str:
    """Return the entries, or the line of an error, which would not pass between processes."""
    try:
        with guarded.limited():
            return list_entries(path)
    except MemoryError:
        return f"{path}: listing it takes more than {_LIMITS.memory >> 30} GiB"
    except (OSError, ValueError) as error:
        return one_line(error)


def _keys(path: Path) -> Counted:
    """Return the ids of the images."""
    keys: list[str] = []
    said = -1
    with _opened(path) as (transaction, most):
        for key in map(bytes, transaction.cursor().iternext(keys=True, values=False)):
            if key == b"num_images":
                said = _number(transaction.get(key))
            else:
                keys.append(key.decode("utf-8", "surrogateescape"))
            _check_size(path, len(keys), most, 0)
    return keys, said


def _pairs(path: Path) -> Counted:
    """Return number and content of the pairs: (image id, text id, text), or the fault."""
    pairs: list[tuple[int, tuple[str, str, str] | str]] = []
    said, size = -1, 0
    with _opened(path) as (transaction, most):
        for key, content in transaction.cursor().iternext():
            if key == b"num_samples":
                said = _number(content)
                continue
            number = _number(key)
            try:
                if number < 0:
                    raise ValueError(f"the key {bytes(key)[:40]!r} is not a number")
                pairs.append((number, _pair(content)))
            except ValueError as error:
                pairs.append((number, one_line(error)))
            size += len(content)
            _check_size(path, len(pairs), most, size)
    return pairs, said


def _pair(content: memoryview) -> tuple[str, str, str]:
    if len(content) > MOST_TEXT:
        raise ValueError(f"the pair has more than {MOST_TEXT:,} bytes")
    image, text_id, text = pickled_tuple.read(bytes(content))
    if not isinstance(text, str):
        raise ValueError("the pair is not (image id, text id, text)")
    return checked_id(image), checked_id(text_id), text


def _number(data: bytes | memoryview) -> int:
    """Return a whole number, or -1 for other bytes."""
    if len(data) > _MOST_DIGITS or not bytes(data).isdigit():
        return -1
    return int(bytes(data))


def _check_size(path: Path, entries: int, said: int, size: int) -> None:
    """Check the size of a database, whose pages may refer to each other in a circle.

    Raises:
        ValueError: one line: there are more entries than the database says, or too many.
    """
    if entries > min(said, limits.MOST_ROWS) or size > limits.MOST_TEXT:
        raise ValueError(
            f"{path}: it is damaged or too large: it says that it has {said:,} entries, and "
            f"{limits.MOST_ROWS:,} with {limits.MOST_TEXT >> 30} GiB of texts are read"
        )
