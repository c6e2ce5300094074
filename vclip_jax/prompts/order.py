"""A guess, from the classes' names, whether the classes are grades in rising order."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_SCALE: Final = (
    ("no", "none", "normal", "healthy", "absent", "without", "negative", "无", "未见", "正常"),
    ("minimal", "borderline", "questionable", "可疑"),
    ("mild", "early", "slight", "轻度", "早期"),
    ("moderate", "intermediate", "中度", "中期"),
    ("severe", "advanced", "late", "重度", "晚期"),
    ("proliferative", "proliferate", "增殖期", "增殖性", "增殖"),
)
"""Words of severity, from none to the worst."""
_ALL: Final = ("or", "and", "或", *(word for step in _SCALE for word in step))
_NOT_ON_IT: Final = re.compile("non-?proliferative|非增殖[期性]?")
"""A common name of mild, moderate and severe retinopathy, which is no step of the scale."""


def rises(names: Sequence[str]) -> bool:
    """Return whether the names rise, or are just two.

    Rising names are numbers ("0", "1"; "grade 1", "grade 2") or words of severity for the same
    thing ("no DR", "mild", "moderate", "severe").
    """
    return len(names) == 2 or _numbers_rise(names) or _words_rise(names)


def _numbers_rise(names: Sequence[str]) -> bool:
    matches = [re.fullmatch(r"(\D*?)(\d{1,9})(\D*)", name.strip().lower()) for name in names]
    numbered = [match for match in matches if match is not None]
    return (
        len(numbered) == len(names)
        and len({(match[1], match[3]) for match in numbered}) == 1
        and _strictly([int(match[2]) for match in numbered])
    )


def _words_rise(names: Sequence[str]) -> bool:
    ranks: list[int] = []
    things = set()
    for name in names:
        plain = _NOT_ON_IT.sub("", name.lower())
        words = re.findall("[a-z]+|[\u4e00-\u9fff]+", plain)
        steps = [i for i, step in enumerate(_SCALE) for w in words if _without(w, step) != w]
        if not steps:
            return False
        ranks.append(min(steps))
        if ranks[-1]:
            other = [_without(word, _ALL) for word in words]
            things.add(tuple(word for word in other if word))
    return len(things - {()}) <= 1 and _strictly(ranks)


def _without(word: str, texts: Sequence[str]) -> str:
    """Return the word without the texts: whole words of Latin letters, any part in Chinese."""
    if word.isascii():
        return "" if word in texts else word
    for text in texts:
        if not text.isascii():
            word = word.replace(text, "")
    return word


def _strictly(values: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(values))
