"""The models that come with the package, `vclip_jax/packaged/NAME`, found by name and checked.

Each is a portable folder (see `interop.folder`) with one more file, SHA256SUMS: a line with the
SHA-256 of each other file, as the program sha256sum writes and checks them. `vclip weights pack`
makes such a folder.
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Final

from vclip_jax.files.errors import few
from vclip_jax.files.foreign import read_bytes

ROOT = Path(__file__).parents[1] / "packaged"
"""The folder of the packaged models; tests put another in its place."""
DEFAULT: Final = "retina-small"
"""The model that commands use if none is named."""
SUMS: Final = "SHA256SUMS"
_MOST: Final = 1 << 30
"""The largest accepted size of a packaged file in bytes."""
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

log = logging.getLogger("vclip_jax")

_noted: set[Path] = set()
"""Folders whose name is that of a packaged model, once they are reported."""


def names() -> list[str]:
    """Return the names of the packaged models."""
    folders = ROOT.iterdir() if ROOT.is_dir() else ()
    return sorted(path.name for path in folders if path.is_dir() and _NAME.fullmatch(path.name))


def path_of(model: str | os.PathLike[str]) -> Path:
    """Return the folder that a path or the name of a packaged model means.

    A path that exists comes first: a folder of one's own is never mistaken for a packaged model. A
    log message says so if the folder hides a packaged model.

    Returns:
        The path, which need not exist, or the folder of the packaged model.

    Raises:
        ValueError: one line: a file of the packaged model is missing or damaged.
    """
    path = Path(model)
    known = os.fspath(model) in names()
    if path.exists() or not known:
        if known and path.absolute() not in _noted:
            _noted.add(path.absolute())
            log.warning("%s is a folder here: it is used, not the packaged model", path)
        if path.parent.absolute() == ROOT:
            check(path)
        return path
    check(ROOT / path)
    return ROOT / path


def check_named(model: str | os.PathLike[str]) -> None:
    """Check that a folder or a packaged model has this name, without reading it.

    Raises:
        ValueError: one line: there is neither.
    """
    name = os.fspath(model)
    if not Path(name).exists() and name not in names():
        hint = f" (on the Hub? hub:{name})" if name.count("/") == 1 and name[0] not in "./" else ""
        ours = f", or {few(names())}" if names() else ""
        raise ValueError(f"there is no {name}: name a workdir or a portable folder{ours}{hint}")


def default() -> Path:
    """Return the folder of the model that commands use if none is named.

    Raises:
        ValueError: one line: the package has no such model.
    """
    if DEFAULT not in names():
        raise ValueError(f"this installation has no model {DEFAULT}: name a model with --model")
    return ROOT / DEFAULT


def check(folder: Path) -> None:
    """Compare all files of a packaged model with their SHA-256.

    Raises:
        ValueError: one line: a file differs, is missing, or is not listed.
    """
    again = "install the package again"
    try:
        lines = read_bytes(folder / SUMS, _MOST).decode("utf-8").splitlines()
        listed = {match[2]: match[1] for match in map(_LINE.fullmatch, lines) if match}
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{folder} has no {SUMS} that can be read: {again}") from None
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {SUMS}
    if not listed or len(listed) < len(lines):
        raise ValueError(f"{folder / SUMS} is damaged: {again}")
    if missing := sorted(listed.keys() - found):
        raise ValueError(f"{folder} lacks {few(missing)}: {again}")
    if more := sorted(found - listed.keys()):
        raise ValueError(f"{folder} has files that are not its own, {few(more)}: remove them")
    for name, digest in listed.items():
        if _sha256(folder / name) != digest:
            raise ValueError(
                f"{folder / name} is damaged (its SHA-256 is not the one in {SUMS}): {again}"
            )


def pack(source: Path, name: str) -> Path:
    """Copy the files of a folder into a packaged model, which is replaced, and return its folder.

    Raises:
        ValueError: one line: the name is not one of small letters, digits and hyphens.
        OSError: a file cannot be copied.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of small letters, digits and hyphens")
    target, new = ROOT / name, ROOT / f".{name}.new"
    shutil.rmtree(new, ignore_errors=True)  # of a call that was killed
    new.mkdir(parents=True)
    lines = []
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name != SUMS:
            shutil.copyfile(path, new / path.name)
            lines.append(f"{_sha256(new / path.name)}  {path.name}\n")
    (new / SUMS).write_text("".join(lines), "utf-8")
    if target.exists():  # removed only now: it may be the source
        shutil.rmtree(target)
    return new.rename(target)


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, _MOST)).hexdigest()
