"""The eye of a column, a sheet, a folder or a cell, and tables with a row for both eyes."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from vclip_jax.datasets.own.columns import plain

SIDES: Final = ("left", "right")
_WORDS: Final = {
    **dict.fromkeys(("left", "l", "os"), "left"),
    **dict.fromkeys(("right", "r", "od"), "right"),
}
_EYE: Final = ("eye", "eyes")
_CHINESE: Final = re.compile(r"([左右])侧?眼?(?!底)")
"""眼底 is the fundus: the side of 左眼底图像 is 左, the rest is 眼底图像."""
_SIDE_COLUMN: Final = "eye side laterality eyeside whicheye 眼别 眼 侧别 左右 左右眼 患眼"


@lru_cache(1 << 16)
def _parts(text: str) -> tuple[frozenset[str], str]:
    """Return the sides that a text names, and the text without them."""
    chinese = {"左": "left", "右": "right"}
    sides = {chinese[mark] for mark in _CHINESE.findall(text)}
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _CHINESE.sub(" ", text))
    words = re.findall(r"[^\W\d_]+|\d+", spaced)
    sides |= {_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS}
    rest = [word for word in words if word.casefold() not in (*_WORDS, *_EYE)]
    return frozenset(sides), " ".join(rest)


@lru_cache(4096)
def side_of(text: str) -> str:
    """Return "left" or "right" ("OS images", "右眼"), or "" if a text names neither or both."""
    sides, _ = _parts(text)
    return next(iter(sides)) if len(sides) == 1 else ""


def side_of_file(name: str) -> str:
    """Return the side that the name of a table or sheet tells, else "".

    A single letter tells it only alone: "l1" may be the first list of labels.

    Examples:
        >>> from vclip_jax.datasets.own.eyes import side_of_file
        >>> side_of_file("labels OD"), side_of_file("L"), side_of_file("l1")
        ('right', 'left', '')
    """
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", name)}
    return side_of(name) if len(name.strip()) == 1 or not words & {"l", "r"} else ""


def side_of_path(key: str) -> str:
    """Return the side in the folders of a path, or "" if they name none or two."""
    sides = {side_of(part) for part in key.split("/")[:-1]} - {""}
    return sides.pop() if len(sides) == 1 else ""


def without_side(name: str) -> str:
    """Return a column's name without the side: "Fundus" for "Left-Fundus", 图像 for 左眼图像."""
    return _parts(name)[1]


def side_column(columns: Sequence[str]) -> str:
    """Return the column that holds a row's side, or ""."""
    return next((name for name in columns if plain(name) in _SIDE_COLUMN.split()), "")


def pairs(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Map names without side to the columns of both sides: name without it -> side -> column.

    Only pairs of columns whose names differ by nothing but the side are included.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in columns:
        if side := side_of(name):
            groups.setdefault(plain(without_side(name)), []).append((side, name))
    return {
        rest: dict(group)
        for rest, group in groups.items()
        if len(group) == 2 and len(dict(group)) == 2
    }
