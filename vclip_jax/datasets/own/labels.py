"""The meaning of a table's cells: nothing, one value, or several."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from vclip_jax.datasets.own.names import finding, is_finding, spelling

_MISSING: Final = "nan n/a na null <na> #n/a #na nat inf -inf infinity -infinity"
"""Words that spreadsheets and pandas write for a missing value."""
_UNDECIDED: Final = """
    unknown unk tbd ungradable ungradeable 待定 待查 未知 不详 不明 无法分级 不可分级 无法判断
"""
_NOTHING: Final = frozenset(["-", "--", "?", "/", *_MISSING.split(), *_UNDECIDED.split()])
"""Further words for a missing class that people write."""
_BETWEEN: Final = re.compile(
    r"[\s,，、/\\+&_]+|(?<!\d)-|-(?!\d)|\b(?:and|with)\b|[和与及伴]|合并", re.IGNORECASE
)
"""Separators that people write between several labels; they also occur within names."""
_MOST_WORDS: Final = 12
"""Words of a cell that may hold several labels: longer cells are sentences."""
_BARS: Final = re.compile(r"[|;；]")
"""Separators of several labels that do not occur within names."""
UNDECIDED_AMONG: Final = "several labels, one undecided"
"""The reason of a reject, as the next ones are."""
REPEATED_NUMBER: Final = "a number twice among the labels"
LIST_OF_FLAGS: Final = "list of 0 and 1 as label"
NOT_WHOLE: Final = "label is not whole"
NO_NAME: Final = "label is a list or an object"
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
    values = _values(cell)
    return None if values is None else [value_of(whole_number(value)) for value in values]


def _values(cell: str) -> list[str] | None:
    """Return the values of a list as they are written, without JSON's null."""
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
    return [str(value) for value in values if value is not None]


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


def read_labels(
    cells: Sequence[str], classes: Sequence[str] = ()
) -> list[tuple[tuple[str, ...], str]]:
    """Return the classes that each cell of a column names, or the fault of the cell.

    Line breaks become spaces; whole numbers lose their ".0"; true and false are 1 and 0, as Excel
    and JSON store them; nothing, NaN, "N/A", "-", "?", "unknown" and the like (unless in `classes`)
    and negative numbers are no class. A list of one value is that value. "|" and ";" separate
    several labels; so do ",", "/", "+", "&", "、", white space, "and" and the like if every part is
    a label of its own in another cell, one of `classes` or a common name of a finding, in any
    spelling. Such a part takes the spelling of that label.

    Returns:
        (classes, "") each, without a class, with one, or with several different ones in the order
        of the cell; or ((), reason of a reject).
    """
    distinct = sorted(set(cells))
    commas = [cell for cell in distinct if "," in cell]
    decimal = bool(commas) and all(re.fullmatch(r"\s*[+-]?\d+,0+\s*", cell) for cell in commas)
    given = {spelling(text): text for text in classes}
    parts = {cell: _parts(cell, decimal, given) for cell in distinct}
    several = {cell: texts for cell, texts in parts.items() if len(texts) > 1}
    single = {cell: texts[0] for cell, texts in parts.items() if len(texts) == 1}
    if several:
        # Where "|" separates labels, a label may end with it.
        single = {cell: _without_bars(text, decimal, given) for cell, text in single.items()}
    read = {cell: _several(texts, decimal, given) for cell, texts in several.items()}
    if _are_flags(list(map(listed, distinct))):
        read = {cell: ((), LIST_OF_FLAGS) if listed(cell) else one for cell, one in read.items()}
    names = [*(name for texts, _ in read.values() for name in texts), *reversed(single.values())]
    known = {spelling(name): name for name in names if name} | given
    rows = [key for key, name in known.items() if key not in given and _names_in(name, known)]
    known = {key: name for key, name in known.items() if key not in rows}
    read |= {cell: _class(text, known, given) for cell, text in single.items()}
    return [read.get(cell, ((), "")) for cell in cells]


def _parts(cell: str, decimal: bool, given: Mapping[str, str]) -> list[str]:
    """Return the text of a cell, "" for no class; or the parts of a cell that surely has several.

    The parts are as written, the one text is read.
    """
    if spelling(cell) in given and not value_of(cell):
        return [cell.strip()]
    values = _values(cell)
    if values is None:
        text = _text(cell, decimal)
        values = [text]
    elif len(values) == 1:
        text = value_of(whole_number(values[0]))
        values = [text]
    if len(values) == 1 and (spelling(values[0]) in given or _is_negative(values[0])):
        return values
    parts = [part for value in values for part in _BARS.split(value) if part.strip()]
    return parts if len(parts) > 1 else values


def _text(cell: str, decimal: bool) -> str:
    text = whole_number(value_of(one_line(cell)), decimal)
    return {"true": "1", "false": "0"}.get(text.casefold(), text)


def _without_bars(text: str, decimal: bool, given: Mapping[str, str]) -> str:
    parts = [part for part in _BARS.split(text) if part.strip()]
    return text if spelling(text) in given or parts == [text] else _text("".join(parts), decimal)


def _is_negative(text: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d+)?", text, re.ASCII) is not None


def _is_broken(text: str) -> bool:
    """Return whether a label is a number that is not whole."""
    return re.fullmatch(r"[+]?\d*[.,]\d+", text, re.ASCII) is not None


def _class(
    text: str, known: Mapping[str, str], given: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """Read a text that has no sure separator: a class, none, or names with other separators."""
    if spelling(text) in given:
        return (text,), ""
    if _is_negative(text) or not text:
        return (), ""
    if names := _names_in(text, known):
        return _several(names, False, given)
    return ((), NOT_WHOLE) if _is_broken(text) else ((text,), "")


def _several(
    parts: Sequence[str], decimal: bool, given: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """Read the labels of one cell; parts that are words for a missing value are no label."""
    texts = []
    for part in parts:
        if spelling(part) in given:
            texts.append(part.strip())
        elif is_undecided(part) or part.strip() == "?":
            return (), UNDECIDED_AMONG
        elif part.startswith(("{", "[")):
            return (), NO_NAME
        else:
            text = _text(part, decimal)
            texts += [text] if text and not _is_negative(text) else []
    if any(_is_broken(text) and spelling(text) not in given for text in texts):
        return (), NOT_WHOLE
    if any(text.isdecimal() and texts.count(text) > 1 for text in texts):
        return (), REPEATED_NUMBER
    return tuple(dict.fromkeys(texts)), ""


def _are_flags(lists: Sequence[list[str] | None]) -> bool:
    """Return whether lists are not of labels, but hold 0 or 1 for each class."""
    values = [tuple(one) for one in lists if one]
    alike = len({len(one) for one in values}) == 1 and {v for one in values for v in one} <= {
        *("0", "1", "True", "False")
    }
    return alike and (len(values) > 1 or len(set(values[0])) < len(values[0]))


def _names_in(text: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names if a text is a row of known classes, or of different findings; else ().

    Of several ways to read a row, the one with the fewest names counts.
    """
    words = _words(text)
    if not 1 < len(words) <= _MOST_WORDS:
        return ()
    rows = [
        row
        for row in _rows_of_names(text, words, known)
        if len(row) > 1
        and (all(name in known for name, _ in row) or len({finding(name) for name, _ in row}) > 1)
    ]
    best = min(rows, key=len, default=())
    return tuple(known.get(name, written) for name, written in best)


def _words(text: str) -> list[tuple[int, int]]:
    """Return start and end of the words between separators."""
    between = [match.span() for match in _BETWEEN.finditer(text)]
    starts, ends = [0, *(end for _, end in between)], [*(start for start, _ in between), len(text)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def _rows_of_names(
    text: str, words: Sequence[tuple[int, int]], known: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield the ways to read the words as a row of names, each as its spelling and as written."""
    if not words:
        yield ()
    for end in range(1, len(words) + 1):
        joined = " ".join(text[start:stop] for start, stop in words[:end])
        name = spelling(joined)
        if name in known or is_finding(name):
            written = text[words[0][0] : words[end - 1][1]]
            own = (name, written if spelling(written) == name else joined)
            yield from ((own, *rest) for rest in _rows_of_names(text, words[end:], known))


def is_parted(label: str) -> bool:
    """Return whether a class's name holds a character that people write between several names."""
    return re.search(r"[,，、/\\+&]", label) is not None


def says_nothing(caption: str) -> bool:
    """Return whether a caption is a word that programs write for a missing value."""
    return caption.casefold() in _MISSING.split()


def read_caption(cell: str) -> tuple[str, str]:
    """Return the caption of a cell, or "" with the reason of a reject if the cell holds several."""
    values = listed(cell) if '"' in cell or "'" in cell else None
    if values is None:
        return cell, ""
    return ("", "several captions") if len(values) > 1 else ("".join(values), "")
