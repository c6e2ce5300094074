"""Folders of photographs, one a class, with or without folders of splits above or below them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vclip_jax.datasets.listing import Blob
from vclip_jax.datasets.own.folders import Folder
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import one_line
from vclip_jax.datasets.own.lookup import check_tests, split_of
from vclip_jax.datasets.own.names import is_finding
from vclip_jax.files.errors import few


def from_folders(folder: Folder, *, one_class: bool = False) -> tuple[list[Found], list[str]]:
    """Read each photograph's class and split from the folders above it.

    The first folder that is named after a split gives the split. Of the others, those that are
    above all photographs (the folder of an archive, `images`) are skipped; the next is the class,
    and folders below it do not matter.

    Args:
        folder: the content of the folder.
        one_class: True if a single class is intended.

    Returns:
        The photographs, and notes on guesses.

    Raises:
        ValueError: one line: all photographs are in one folder, which gives no classes; or the
            classes seem to lie below folders of patients.
    """
    splits: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    found = [
        Found(key, reason=reason, detail=detail)
        for key, (reason, detail) in sorted(folder.unusable.items())
    ]
    for key in folder.photographs:
        parts = key.split("/")[:-1]
        named = [split_of(part) for part in parts]
        if len(set(named) - {""}) > 1:
            found.append(_reject(folder, key, "two splits"))
            continue
        splits[key] = "".join(set(named))
        names[key] = [part for part, split in zip(parts, named, strict=True) if not split]
    has_splits = any(splits.values())
    usable = [key for key, parts in names.items() if parts and (splits[key] or not has_splits)]
    above = _above([names[key] for key in usable])
    classes = {names[key][len(above)] for key in usable if len(names[key]) > len(above)}
    if len(classes) == 1 and not one_class:
        only = classes.pop()
        raise ValueError(
            f"{folder.root}: all photographs are in the one folder {only!r}, which tells no class: "
            "add a table with the columns image and caption or label, or make a folder per class "
            f"(if it is the only class, --classes {only!r})"
        )
    _check_level([names[key][len(above) :] for key in usable], folder.root)
    for key, parts in names.items():
        if len(parts) <= len(above) or not parts:
            found.append(_reject(folder, key, "no class"))
        elif has_splits and not splits[key]:
            found.append(_reject(folder, key, "no split"))
        else:
            path = os.path.join(folder.root, key)
            label = one_line(parts[len(above)])
            found.append(Found(key, Blob(path), "", label, splits[key], "", path, is_name=True))
    notes = []
    if above:
        notes.append(f"Classes are the folders below {'/'.join(above)!r}, above all photographs.")
    if has_splits:
        split_names = {part for key in usable for part in key.split("/")[:-1] if split_of(part)}
        unusual = sorted(
            part for part in split_names if not re.fullmatch("train|validation|val|test", part)
        )
        if unusual:
            meanings = few((f"{part!r} ({split_of(part)})" for part in unusual), 6)
            notes.append(f"Splits are those of the folders {meanings}.")
        check_tests(sorted(split_names), folder.root)
    return found, notes


def _check_level(paths: Sequence[Sequence[str]], root: Path) -> None:
    """Refuse folders of patients or places whose subfolders are the classes.

    Args:
        paths: the folders of each photograph, from those that would be the classes on.
        root: the source.

    Raises:
        ValueError: one line: the folders' names are none of findings, and those of their subfolders
            are.
    """
    first = {path[0] for path in paths if path}
    second = {path[1] for path in paths if len(path) > 1}
    named = len(second) > 1 and all(map(is_finding, second)) and not any(map(is_finding, first))
    if named and all(len(path) > 1 for path in paths):
        raise ValueError(
            f"{root}: the folders {few(sorted(first), 4)} hold the folders "
            f"{few(sorted(second), 4)}, which look like the classes: put the classes above, or "
            "write a table with image, label and patient"
        )


def _reject(folder: Folder, key: str, reason: str) -> Found:
    return Found(key, reason=reason, detail=str(folder.root / key))


def _above(paths: Sequence[Sequence[str]]) -> list[str]:
    """Return the folders that all paths have in common, above those that give classes."""
    above: list[str] = []
    while paths:
        here = {path[len(above)] for path in paths}
        deeper = [path for path in paths if len(path) > len(above) + 1]
        below = {path[len(above) + 1] for path in deeper}
        if len(here) > 1 or not deeper or (len(deeper) < len(paths) and len(below) < 2):
            break
        above.append(here.pop())
        paths = deeper
    return above
