"""The person whose eye a photograph shows, by columns and names, and splits against persons."""

import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Final

from vclip_jax.datasets.listing import IMAGE_SUFFIXES, Item
from vclip_jax.datasets.own.labels import value_of, whole_number
from vclip_jax.datasets.own.lookup import split_of

_PEOPLE: Final = re.compile(
    r"patient|subject|person|participant|\bpat[\s_-]*(id|no)\b|\b(mrn|pid)\b|病人|患者|受试者|姓名"
    r"|(病历|病案|住院|门诊|登记|就诊|就诊卡|档案|身份证)(编)?号",
    re.IGNORECASE,
)
_OF_THEM: Final = re.compile(
    r"age\b|sex|gender|birth|level|grade|diagnos|年龄|性别|出生|诊断|分级|日期"
    r"|(in|out)[\s_-]*patient|type|status|group|race|ethnic|weight|height|bmi|smok|history|present"
    r"|count|类型|类别|状态|分组|种族|民族|体重|身高|人数",
    re.IGNORECASE,
)
"""Words of columns that describe a person rather than identify one."""
_SIDE: Final = re.compile(r"(?<![a-z])(?:left|right|o[ds]|[lr])(?![a-z])|[左右]眼?", re.IGNORECASE)


def person_column(columns: Iterable[str]) -> str:
    """Return the first column that identifies the person, or ""."""
    return next((one for one in columns if _PEOPLE.search(one) and not _OF_THEM.search(one)), "")


def person_of(cell: str) -> str:
    """Return the person that a cell names, "1" for "1.0"; "" for none."""
    return whole_number(value_of(cell))


def eyes_across_splits(items: Sequence[Item]) -> list[str]:
    """Return a sentence on names that differ by left and right alone, in different splits."""
    pairs = [eyes for eyes in _eyes(items) if len({side for side, _ in eyes}) > 1]
    several = sum(len({split for _, split in eyes}) > 1 for eyes in pairs)
    if not several:
        return []
    return [
        f"{several} of {len(pairs)} groups of photographs whose names differ by left and right "
        "alone are in different splits: if they are one person's eyes, figures of the test split "
        "are too good"
    ]


def _eyes(items: Sequence[Item]) -> list[set[tuple[str, str]]]:
    """Return side and split of the photographs in groups of the same name except for the side."""
    names = {}
    for item in items:
        stem, suffix = posixpath.splitext(item.key)
        parts = (stem if suffix.lower() in IMAGE_SUFFIXES else item.key).split("/")
        names[item.key] = [part for part in parts[:-1] if not split_of(part)] + parts[-1:]
    if len({parts[-1] for parts in names.values()}) == len(names):
        # Folders may be classes, which can differ between the eyes of one person.
        names = {key: parts[-1:] for key, parts in names.items()}
    groups: dict[str, set[tuple[str, str]]] = {}
    for item in items:
        name = "/".join(names[item.key])
        if side := _SIDE.search(name):
            rest = name[: side.start()] + "\0" + name[side.end() :]
            groups.setdefault(rest, set()).add((side[0].casefold(), item.split))
    return list(groups.values())
