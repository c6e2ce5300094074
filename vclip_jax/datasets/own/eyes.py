"""Which eye a column, a sheet, a folder or a cell is of, and tables with a row for both eyes."""

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
"""眼底 is the fundus: of 左眼底图像 the side is 左, the rest 眼底图像."""
_SIDE_COLUMN: Final = "eye side laterality eyeside whicheye 眼别 眼 侧别 左右 左右眼 患眼"


def _parts(text: str) -> tuple[set[str], str]:
    """The sides that a text names, and what is left without them."""
    named = {"左": "left", "右": "right"}
    found = {named[mark] for mark in _CHINESE.findall(text)}
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _CHINESE.sub(" ", text))
    words = re.findall(r"[^\W\d_]+|\d+", spaced)
    found |= {_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS}
    rest = [word for word in words if word.casefold() not in (*_WORDS, *_EYE)]
    return found, " ".join(rest)


@lru_cache(4096)
def side_of(text: str) -> str:
    """ "left" or "right" ("OS images", "右眼"), or "" where a text names neither or both."""
    found, _ = _parts(text)
    return found.pop() if len(found) == 1 else ""


def side_of_path(key: str) -> str:
    """The side that the folders of a path name, or "" where they name none or two."""
    found = {side_of(part) for part in key.split("/")[:-1]} - {""}
    return found.pop() if len(found) == 1 else ""


def without_side(name: str) -> str:
    """A column's name without the side: "Fundus" of "Left-Fundus", 图像 of 左眼图像."""
    return _parts(name)[1]


def side_column(columns: Sequence[str]) -> str:
    """The column that says which eye a row is of, or ""."""
    return next((name for name in columns if plain(name) in _SIDE_COLUMN.split()), "")


def pairs(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """The columns whose names differ by the side alone: name without it -> side -> column."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in columns:
        if side := side_of(name):
            groups.setdefault(plain(without_side(name)), []).append((side, name))
    return {
        rest: dict(group)
        for rest, group in groups.items()
        if len(group) == 2 and len(dict(group)) == 2
    }
