"""What the cells of a table say: nothing, one value, or several; and the classes of a dataset."""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

_MISSING: Final = frozenset(("nan", "n/a", "na", "null", "<na>", "#n/a", "#na", "nat"))
"""What spreadsheets and pandas write for no value."""
_NOTHING: Final = _MISSING | {"-", "--", "?", "/"}
"""What people write in a column of classes, too."""
_ONE_OF_A_LIST: Final = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,'"]+))\s*(?:,|$)""")


def value_of(cell: str) -> str:
    """The cell, or "" where it says that there is no value."""
    return "" if cell.strip().casefold() in _NOTHING else cell.strip()


def one_line(name: str) -> str:
    """A class's name without line breaks, which TFDS's list of names has no place for."""
    return " ".join(part.strip() for part in name.splitlines()).strip()


def listed(cell: str) -> list[str] | None:
    """The values of a cell that holds a list, as JSON or Python writes it; None for other text."""
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
    """ "2" for "2.0", "+2" and "2.0e+00" (and for "2,0" where the comma is the decimal point);
    other text as it is."""
    match = re.fullmatch(r"([+-]?)(\d+)([.,]0+)?", text, re.ASCII)
    if match and (comma or "," not in text):
        return f"{match[1].strip('+')}{match[2]}"
    if re.fullmatch(r"[+-]?\d(\.\d{1,30})?[eE][+-]?\d\d?", text, re.ASCII):  # of numpy.savetxt
        value = float(text)
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else text
    return text


def read_labels(cells: Sequence[str]) -> list[tuple[str, str]]:
    """The class that each cell of a column names, and what is wrong with it.

    Line breaks within are made spaces; whole numbers lose their ".0"; true and false are 1 and
    0, as Excel and JSON store them; nothing, NaN, "N/A", "-", "?" and negative numbers are no
    class. A list of one is that one. "|" and ";" part several labels; so do ",", "/", "+" and "、"
    where every part is a label of its own in another cell.

    Returns:
        (class, "") each, where the class may be ""; or ("", reason of a reject).
    """
    distinct = set(cells)
    commas = [cell for cell in distinct if "," in cell]
    decimal = bool(commas) and all(re.fullmatch(r"\s*[+-]?\d+,0+\s*", cell) for cell in commas)
    texts = {cell: _one(cell, decimal) for cell in distinct}
    singles = {text for text in texts.values() if isinstance(text, str)}
    read = {cell: _class(text, singles) for cell, text in texts.items()}
    return [read[cell] for cell in cells]


def _one(cell: str, decimal: bool) -> str | list[str]:
    values = listed(cell)
    if values is not None:
        return values if len(values) > 1 else "".join(values)
    text = whole_number(value_of(one_line(cell)), decimal)
    return {"true": "1", "false": "0"}.get(text.casefold(), text)


def _class(text: str | list[str], singles: set[str]) -> tuple[str, str]:
    if isinstance(text, list):
        return "", "several labels"
    if re.fullmatch(r"-\d+(\.\d+)?", text, re.ASCII):
        return "", ""
    parts = [part.strip() for part in re.split(r"[|;；]", text) if part.strip()]
    if len(parts) < 2:
        parts = [part.strip() for part in re.split(r"[,/+、，&]", text)]
        parts = parts if all(part and part in singles for part in parts) else [text]
    if len(parts) > 1:
        return "", "several labels"
    if re.fullmatch(r"[+]?\d*[.,]\d+", text, re.ASCII):
        return "", "label is not whole"
    return text, ""


def says_nothing(caption: str) -> bool:
    """Whether a caption is a word that programs write for no value."""
    return caption.casefold() in _MISSING


def read_caption(cell: str) -> tuple[str, str]:
    """The caption of a cell, or "" with the reason of a reject where it holds several."""
    values = listed(cell) if '"' in cell or "'" in cell else None
    if values is None:
        return cell, ""
    return ("", "several captions") if len(values) > 1 else ("".join(values), "")


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Classes sorted as numbers if all are whole numbers, else as text."""
    labels = list(labels)
    if all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in labels):
        return tuple(sorted(labels, key=lambda text: (int(text), text)))
    return tuple(sorted(labels))


def spelling(label: str) -> str:
    """A class without case, width, white space, hyphens and what cannot be seen; numbers without
    leading zeros."""
    text = unicodedata.normalize("NFKC", label).casefold()
    seen = "".join(mark for mark in text if unicodedata.category(mark) not in ("Cf", "Cc"))
    text = re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", seen)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def spelt_alike(counts: Counter[str]) -> list[list[str]]:
    """Groups of classes that differ by their spelling alone, the most frequent of each first."""
    groups: dict[str, list[str]] = {}
    for label, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        groups.setdefault(spelling(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def given_classes(text: str) -> tuple[str, ...]:
    """The classes that a person lists, "normal,mild,severe"; quoted where they hold commas.

    Raises:
        ValueError: one line: one is empty or there twice.
    """
    names = tuple(
        " ".join(name.split()) for name in next(csv.reader([text], skipinitialspace=True))
    )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = "an empty name" if "" in names else f"{twice!r} twice"
        raise ValueError(f"the classes {text!r} hold {what}")
    return names
