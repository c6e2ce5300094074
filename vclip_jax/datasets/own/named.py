"""The photographs of a command line: images, folders, lists, standard input."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.datasets.own.folders import (
    TABLE_SUFFIXES,
    each_folder,
    is_folder,
    is_passed_over,
)
from vclip_jax.datasets.own.listed import listed_paths
from vclip_jax.files.errors import few
from vclip_jax.files.foreign import check_paths

LISTS: Final = TABLE_SUFFIXES
_MOST_SHOWN: Final = 3


@dataclass
class Named:
    """The photographs found."""

    paths: list[Path] = field(default_factory=list)
    """The paths in the order of the command line; in a folder by sorted path."""
    notes: list[str] = field(default_factory=list)
    """Sentences on skipped files."""


def expand(inputs: Iterable[str], stdin: Iterable[str] = ()) -> Named:
    """Return the images that a command line names.

    Args:
        inputs: images; folders, searched for images with all subfolders, links included; lists:
            tables with a column of paths that are relative to the list's folder; "-".
        stdin: a path a line, for "-".

    Raises:
        ValueError: one line: an input does not exist, or names no image; a list cannot be read or
            has no column of images.
    """
    inputs = list(inputs)
    check_paths(inputs)
    named = Named()
    for name in inputs:
        path = Path(name)
        if name == "-":
            paths = [Path(line.rstrip("\r\n")) for line in stdin if line.strip()]
            if not paths:
                raise ValueError("standard input names no image")
        elif path.is_dir():
            paths = _below(path, named.notes)
        elif path.suffix.lower() in LISTS:
            paths = listed_paths(path, notes=named.notes)
        else:
            paths = [path]
        named.paths += paths
    return named


# --- Folders.


def _below(root: Path, notes: list[str]) -> list[Path]:
    """List the images in a folder and its subfolders; links to a folder seen before are skipped."""
    images: list[Path] = []
    other: Counter[str] = Counter()
    hidden: list[str] = []
    unreadable: list[str] = []
    for inner, entries in each_folder(root):
        if isinstance(entries, OSError):
            unreadable.append(str(root / inner))
        for entry in entries if isinstance(entries, list) else ():
            path = root / inner / entry.name
            if entry.name.startswith("."):
                # Archives from macOS hold a shadow "._name" of every file, its folders .DS_Store.
                hidden += [str(path)] if not entry.name.startswith(("._", ".DS_Store")) else []
            elif is_folder(entry):
                # Of the system's folders only __MACOSX never holds photographs.
                of_system = is_passed_over(entry) and entry.name != "__MACOSX"
                hidden += [str(path)] if of_system else []
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                other[path.suffix.lower() or "no suffix"] += 1
            elif _is_special(path):
                other["no regular file"] += 1
            else:
                images.append(path)
    facts = []
    if unreadable:
        facts.append(f"{_shown(unreadable, 'folder', 'folders')} cannot be read")
    if hidden:
        facts.append(f"{_shown(hidden, 'hidden file', 'hidden files or folders')} skipped")
    if other:
        kinds = few(f"{count} {kind}" for kind, count in sorted(other.items()))
        facts.append(f"{other.total()} other files skipped ({kinds})")
    if not images:
        raise ValueError(
            f"{root}: there is no image ({', '.join(IMAGE_SUFFIXES)}) in the folder"
            + "".join(f"; {text}" for text in facts)
        )
    notes += [f"{root}: {text}" for text in facts]
    return sorted(images)


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a device or a socket, which must not be opened.

    A link to nothing is not special: it is reported as unreadable.
    """
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _shown(names: Sequence[str], one: str, many: str) -> str:
    return f"{len(names)} {many if len(names) > 1 else one} ({few(names, _MOST_SHOWN)})"
