"""The names of classes and findings: their spelling, their order, and common names of diseases."""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort classes as numbers if all are whole numbers, else as text."""
    labels = list(labels)
    if all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in labels):
        return tuple(sorted(labels, key=lambda text: (int(text), text)))
    return tuple(sorted(labels))


@lru_cache(4096)
def spelling(label: str) -> str:
    """Return a class without case, width, white space, hyphens and invisible characters.

    Numbers lose their leading zeros.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    seen = "".join(mark for mark in text if unicodedata.category(mark) not in ("Cf", "Cc"))
    text = re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", seen)
    return text.lstrip("0") or "0" if text.isdecimal() else text


# "Non-proliferative" and 非增殖性 deny no disease.
_DENIAL: Final = re.compile(
    r"(no|without|absent|absence|negative|neg)(\b|_)|无|無|未见|未見|未发现|否认"
)
_HEALTHY: Final = """
    normal healthy normal_fundus normal_retina normal_eye healthy_eye healthy_fundus healthy_retina
    no_finding no_findings no_abnormality no_abnormalities no_abnormal_finding no_abnormal_findings
    no_abnormality_detected no_disease no_pathology unremarkable
    正常 正常眼底 眼底正常 正常眼 健康 无异常 無異常 无异常发现 未见异常 未見異常 未见明显异常
    无明显异常 眼底未见异常 眼底未见明显异常 无病变 无疾病
"""
_NAMES: Final = (
    " ".join(_HEALTHY.split()),
    "dr diabetic_retinopathy 糖网 糖网病 糖尿病视网膜病变 糖尿病性视网膜病变",
    "glaucoma 青光眼",
    "amd armd macular_degeneration age-related_macular_degeneration 黄斑变性 老年性黄斑变性 "
    "年龄相关性黄斑变性",
    "cataract 白内障",
    "dme diabetic_macular_edema diabetic_macular_oedema macular_edema macular_oedema 黄斑水肿 "
    "糖尿病黄斑水肿 糖尿病性黄斑水肿",
    "myopia high_myopia pathologic_myopia pathological_myopia 近视 高度近视 病理性近视",
    "hypertensive_retinopathy 高血压视网膜病变 高血压性视网膜病变",
    "rvo retinal_vein_occlusion 静脉阻塞 视网膜静脉阻塞",
    "erm epiretinal_membrane 前膜 黄斑前膜 视网膜前膜",
)
_FINDINGS: Final = {spelling(name): row for row in _NAMES for name in row.split()}
"""Common names, and a value that is the same for all names of one finding."""


def finding(name: str) -> str:
    """Return a value that is the same for all common names of one finding.

    "AMD", "age-related macular degeneration" and "黄斑变性" are one finding. For any other name,
    the value is the same for all spellings of the name.
    """
    spelt = spelling(name)
    return _FINDINGS.get(spelt, spelt)


def is_finding(name: str) -> bool:
    """Return whether a name is a common one of a finding, or of a healthy eye."""
    return spelling(name) in _FINDINGS


@lru_cache(4096)
def is_healthy(name: str) -> bool:
    """Return whether a class or finding is the absence of all disease: "normal", 未见异常."""
    return finding(name) == _NAMES[0]


def denies(name: str) -> bool:
    """Return whether a name denies something: "no DR", 无出血."""
    return bool(_DENIAL.match(unicodedata.normalize("NFKC", name).casefold().strip()))


def names_alike(name: str, names: Iterable[str]) -> list[str]:
    """Return the other names that are a part of a name, or that it is a part of.

    A name that denies something, such as "no DR", is no part of another's.

    Examples:
        >>> from vclip_jax.datasets.own.names import names_alike
        >>> names_alike("DR", ["DR", "severe DR", "DR?", "no DR", "drusen", "AMD"])
        ['severe DR', 'DR?']
    """
    own = _words(name)
    parts = ((other, _words(other)) for other in names if other != name)
    return [other for other, words in parts if own and words and (own in words or words in own)]


@lru_cache(4096)
def _words(name: str) -> str:
    """Return a name's words with spaces around each, each Chinese character as one.

    A denial gives "".
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = " ".join(re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", folded))
    return "" if denies(name) else f" {words} "


def spelt_alike(counts: Counter[str]) -> list[list[str]]:
    """List groups of classes that differ only by spelling, the most frequent of each first."""
    groups: dict[str, list[str]] = {}
    for label, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        groups.setdefault(spelling(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def given_names(text: str, what: str = "classes") -> tuple[str, ...]:
    """Split the user's list, "normal,mild,severe"; names with commas are quoted.

    Args:
        text: the list.
        what: what is listed, for the error.

    Raises:
        ValueError: one line: a name is empty or repeated.
    """
    names = tuple(
        " ".join(name.split()) for name in next(csv.reader([text], skipinitialspace=True))
    )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        fault = "an empty name" if "" in names else f"{twice!r} twice"
        raise ValueError(f"the {what} {text!r} hold {fault}")
    return names
