"""The meaning of a table's cells: nothing, one value, or several; and the classes of a dataset."""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_MISSING: Final = frozenset(("nan", "n/a", "na", "null", "<na>", "#n/a", "#na", "nat"))
"""Words that spreadsheets and pandas write for a missing value."""
_UNDECIDED: Final = """
    unknown unk tbd ungradable ungradeable 待定 待查 未知 不详 不明 无法分级 不可分级 无法判断
"""
_NOTHING: Final = _MISSING | {"-", "--", "?", "/"} | set(_UNDECIDED.split())
"""Further words for a missing class that people write."""
_BETWEEN: Final = re.compile(
    r"[\s,，、/\\+&_]+|(?<!\d)-|-(?!\d)|\b(?:and|with)\b|[和与及伴]|合并", re.IGNORECASE
)
"""Separators that people write between several labels; they also occur within names."""
_MOST_WORDS: Final = 12
"""Words of a cell that may hold several labels: longer cells are sentences."""
SEVERAL: Final = "several labels"
"""The reason of a reject."""
_ONE_OF_A_LIST: Final = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,'"]+))\s*(?:,|$)""")


def value_of(cell: str) -> str:
    """Return the cell, or "" if it is a word for a missing value."""
    return "" if cell.strip().casefold() in _NOTHING else cell.strip()


def is_undecided(cell: str) -> bool:
    """Return whether a cell is a word for an undecided class: "unknown", 待查."""
    return cell.strip().casefold() in _UNDECIDED.split()


def one_line(name: str) -> str:
    """Return a class's name without line breaks, which TFDS's list of names cannot hold."""
    return " ".join(part.strip() for part in name.splitlines()).strip()


def listed(cell: str) -> list[str] | None:
    """Return the values of a cell with a list in JSON or Python notation; None for other text."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        inner, values, at = cell[1:-1], [], 0
        while at < len(inner):
            match = _ONE_OF_A_LIST.match(inner, at)
            if not match:
                return None
            values.append(next(part for part in match.groups() if part is not None))
            at = match.end()
        if not any(values) or not re.match(r"\s*(['\"]|-?\d)", inner):
            return None  # some text in brackets
    return [value_of(whole_number(str(value))) for value in values if value is not None]


def whole_number(text: str, comma: bool = False) -> str:
    """Return "2" for "2.0", "+2" and "2.0e+00", and other text unchanged.

    With `comma` the comma is the decimal point: "2,0" is "2" too.
    """
    match = re.fullmatch(r"([+-]?)(\d+)([.,]0+)?", text, re.ASCII)
    if match and (comma or "," not in text):
        return f"{match[1].strip('+')}{match[2]}"
    if re.fullmatch(r"[+-]?\d(\.\d{1,30})?[eE][+-]?\d\d?", text, re.ASCII):  # numpy.savetxt's
        value = float(text)
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else text
    return text


def read_labels(cells: Sequence[str], classes: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return the class that each cell of a column names, or the fault of the cell.

    Line breaks become spaces; whole numbers lose their ".0"; true and false are 1 and 0, as Excel
    and JSON store them; nothing, NaN, "N/A", "-", "?", "unknown" and the like (unless in `classes`)
    and negative numbers are no class. A list of one value is that value. "|" and ";" separate
    several labels; so do ",", "/", "+", "&", "、", white space, "and" and the like if every part is
    a label of its own in another cell, one of `classes` or a common name of a finding, in any
    spelling.

    Returns:
        (class, "") each, where the class may be ""; or ("", reason of a reject).
    """
    distinct = set(cells)
    commas = [cell for cell in distinct if "," in cell]
    decimal = bool(commas) and all(re.fullmatch(r"\s*[+-]?\d+,0+\s*", cell) for cell in commas)
    given = {spelling(text) for text in classes}
    texts = {
        cell: cell.strip()
        if spelling(cell) in given and not value_of(cell)
        else _one(cell, decimal)
        for cell in distinct
    }
    singles = [text for text in texts.values() if isinstance(text, str)]
    known = {spelling(text) for text in (*singles, *classes)}
    read = {
        cell: (text, "")
        if isinstance(text, str) and spelling(text) in given
        else _class(text, known)
        for cell, text in texts.items()
    }
    return [read[cell] for cell in cells]


def _one(cell: str, decimal: bool) -> str | list[str]:
    values = listed(cell)
    if values is not None:
        return values if len(values) > 1 else "".join(values)
    text = whole_number(value_of(one_line(cell)), decimal)
    return {"true": "1", "false": "0"}.get(text.casefold(), text)


def _class(text: str | list[str], known: set[str]) -> tuple[str, str]:
    if isinstance(text, list):
        return "", SEVERAL
    if re.fullmatch(r"-\d+(\.\d+)?", text, re.ASCII):
        return "", ""
    parts = [part for part in re.split(r"[|;；]", text) if part.strip()]
    if len(parts) > 1 or _are_several(text, known):
        return "", SEVERAL
    if re.fullmatch(r"[+]?\d*[.,]\d+", text, re.ASCII):
        return "", "label is not whole"
    return text, ""


def _are_several(text: str, known: set[str]) -> bool:
    """Return whether a text is a row of names: of known classes, or of different findings."""
    words = [word for word in _BETWEEN.split(text) if word]
    return 1 < len(words) <= _MOST_WORDS and any(
        len(names) > 1
        and (known.issuperset(names) or len({_FINDINGS.get(n, n) for n in names}) > 1)
        for names in _rows_of_names(words, known)
    )


def _rows_of_names(words: Sequence[str], known: set[str]) -> Iterator[tuple[str, ...]]:
    """Yield the ways to read the words as a row of names."""
    if not words:
        yield ()
    for end in range(1, len(words) + 1):
        name = spelling(" ".join(words[:end]))
        if name in known or name in _FINDINGS:
            yield from ((name, *rest) for rest in _rows_of_names(words[end:], known))


def is_parted(label: str) -> bool:
    """Return whether a class's name holds a character that people write between several names."""
    return re.search(r"[,，、/\\+&]", label) is not None


def says_nothing(caption: str) -> bool:
    """Return whether a caption is a word that programs write for a missing value."""
    return caption.casefold() in _MISSING


def read_caption(cell: str) -> tuple[str, str]:
    """Return the caption of a cell, or "" with the reason of a reject if the cell holds several."""
    values = listed(cell) if '"' in cell or "'" in cell else None
    if values is None:
        return cell, ""
    return ("", "several captions") if len(values) > 1 else ("".join(values), "")


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort classes as numbers if all are whole numbers, else as text."""
    labels = list(labels)
    if all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in labels):
        return tuple(sorted(labels, key=lambda text: (int(text), text)))
    return tuple(sorted(labels))


def spelling(label: str) -> str:
    """Return a class without case, width, white space, hyphens and invisible characters.

    Numbers lose their leading zeros.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    seen = "".join(mark for mark in text if unicodedata.category(mark) not in ("Cf", "Cc"))
    text = re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", seen)
    return text.lstrip("0") or "0" if text.isdecimal() else text


_NAMES: Final = (
    "normal healthy 正常",
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


def is_finding(name: str) -> bool:
    """Return whether a name is a common one of a finding, or of a healthy eye."""
    return spelling(name) in _FINDINGS


def finding(name: str) -> str:
    """Return a value that is the same for all common names of one finding.

    "AMD", "age-related macular degeneration" and "黄斑变性" are one finding. For any other name,
    the value is the same for all spellings of the name.
    """
    spelt = spelling(name)
    return _FINDINGS.get(spelt, spelt)


def spelt_alike(counts: Counter[str]) -> list[list[str]]:
    """List groups of classes that differ only by spelling, the most frequent of each first."""
    groups: dict[str, list[str]] = {}
    for label, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        groups.setdefault(spelling(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def given_classes(text: str) -> tuple[str, ...]:
    """Split the user's list of classes, "normal,mild,severe"; names with commas are quoted.

    Raises:
        ValueError: one line: a name is empty or repeated.
    """
    names = tuple(
        " ".join(name.split()) for name in next(csv.reader([text], skipinitialspace=True))
    )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = "an empty name" if "" in names else f"{twice!r} twice"
        raise ValueError(f"the classes {text!r} hold {what}")
    return names
