"""Folders of photographs, one a class, with or without folders of splits above or below them.

Folders below the classes may be of patients.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from vclip_jax.datasets.listing import Blob
from vclip_jax.datasets.own.columns import plain
from vclip_jax.datasets.own.folders import Folder
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import one_line
from vclip_jax.datasets.own.lookup import check_tests, split_of
from vclip_jax.datasets.own.names import is_finding
from vclip_jax.datasets.own.people import MOST_OF_A_PATIENT
from vclip_jax.files.errors import few

_NUMBERED: Final = re.compile(
    r"(patients?|pat|pt|subjects?|sub|participants?|persons?|cases?|ids?|mrn|病人|患者|病例|[a-z]{1,2})?"
    r"[\s_-]*\d+([\s_-]?[a-z0-9]+)?",
    re.IGNORECASE,
)
"""Names of folders that number people."""
_PEOPLE: Final = re.compile(
    r"(patients?|pat|pt|subjects?|sub|participants?|persons?|mrn|p|病人|患者)[\s_-]*\d+",
    re.IGNORECASE,
)
"""Names of folders that number people."""
_MOST_GRADES: Final = 5
"""Folders that may be of grades, such as P1, rather than of people."""
_MASKS: Final = """
    mask masks segmentation segmentations annotation annotations groundtruth gt label labels vessel
    vessels overlay overlays thumbnail thumbnails 标注 掩膜 分割
"""
"""Plain names of folders with images that are no photographs."""
_DATE: Final = re.compile(r"(19|20)\d\d([-_. ]?(0\d|1[0-2])([-_. ]?[0-3]\d)?)?")


def from_folders(folder: Folder, *, one_class: bool = False) -> tuple[list[Found], list[str]]:
    """Read each photograph's class and split from the folders above it.

    The first folder that is named after a split gives the split. Of the others, those that are
    above all photographs (the folder of an archive, `images`) are skipped; the next is the class.
    The folder below it is the patient, if such folders number people.

    Args:
        folder: the content of the folder.
        one_class: True if a single class is intended.

    Returns:
        The photographs, and notes on guesses.

    Raises:
        ValueError: one line: all photographs are in one folder, which gives no classes; or the
            folders seem to be of patients, dates or masks.
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
    _check_names(classes, folder.root)
    below = {key: names[key][len(above) + 1] for key in usable if len(names[key]) > len(above) + 1}
    of_people = _number_people(below, len(usable))
    for key, parts in names.items():
        if len(parts) <= len(above) or not parts:
            found.append(_reject(folder, key, "no class"))
        elif has_splits and not splits[key]:
            found.append(_reject(folder, key, "no split"))
        else:
            path = os.path.join(folder.root, key)
            label = one_line(parts[len(above)])
            found.append(Found(key, Blob(path), "", label, splits[key], "", path, is_name=True))
            found[-1].person = below.get(key, "") if of_people else ""
    notes = []
    if of_people:
        notes.append(f"Patients are the {len(set(below.values()))} folders below the classes.")
    elif below:
        notes.append(
            f"Folders below the classes, such as {next(iter(below.values()))!r}, do not count: if "
            "they are of patients, write a table with image, label and patient."
        )
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


def _check_names(classes: Collection[str], root: Path) -> None:
    """Refuse folders of patients, dates or masks in the place of classes.

    Raises:
        ValueError: one line: all names number people or are dates, or one is a name of masks.
    """
    remedy = "write a table with image and label, or make a folder per class"
    for what, named in (("patients", _PEOPLE), ("dates", _DATE)):
        if len(classes) > _MOST_GRADES and all(map(named.fullmatch, classes)):
            raise ValueError(
                f"{root}: the folders {few(sorted(classes), 4)} look like {what}, not classes: "
                f"{remedy}"
            )
    if masks := sorted(name for name in classes if plain(name) in _MASKS.split()):
        raise ValueError(
            f"{root}: the folder {masks[0]!r} looks like one of masks or annotations, not a class: "
            "move it away, or rename it if it is a class"
        )


def _number_people(below: Mapping[str, str], count: int) -> bool:
    """Return whether the folders below the classes are of patients.

    Args:
        below: the folder of each photograph that lies in one.
        count: the number of all photographs.
    """
    folders = set(below.values())
    return (
        len(folders) > 1
        and len(below) == count <= MOST_OF_A_PATIENT * len(folders)
        and all(map(_NUMBERED.fullmatch, folders))
        and not all(map(_DATE.fullmatch, folders))
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
