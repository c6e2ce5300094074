"""The person whose eye a photograph shows: columns, cells, and splits against persons.

A table may have several columns about a person. Those with a known name are candidates, ranked: a
hospital's or a study's number before a bare "patient", before a case number, before the person's
name. The first that can be one is taken. Numbers of visits, and columns that describe patients, are
none.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PATIENT, Item
from vclip_jax.datasets.own.columns import bare
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import value_of, whole_number
from vclip_jax.datasets.own.lookup import split_of
from vclip_jax.datasets.own.names import spelling
from vclip_jax.files.errors import few

_WHO: Final = "patients?|pat|pt|subjects?|participants?|persons?|病人|患者|受试者|就诊者"
_NUMBER: Final = (
    "id|no|nr|num|number|code|identifier|uid|pid|key|编号|号|号码|代码|代号|标识|識別碼|編號|號"
)
_RANKS: Final = (
    rf"({_WHO})({_NUMBER})+|({_NUMBER})({_WHO})|mrn|pid|uhid|emr(id|no|number)?|ehr(id|no)"
    rf"|medicalrecord({_NUMBER})|hosp(ital)?({_NUMBER})|nhs({_NUMBER})|chart({_NUMBER})"
    "|(病历|病案|登记|档案|身份证|病歷)(编)?(号|号码|號)",
    f"{_WHO}|(住院|门诊|門診|就诊卡|卡)(号|號)",
    rf"(case|study|record)({_NUMBER})|(病例|记录)(编)?(号|id)?|eid|id|case|id号",
    rf"({_WHO})(full)?names?|姓名|({_WHO})?(姓名|名字)|(sur|last|family|full)name",
)
"""Plain names of columns, the likeliest to identify a person first."""
_REPEATS: Final = 2
"""The rank of names that may as well number photographs: they need a value that repeats."""
_NAMES: Final = 3
"""The rank of people's names."""
_PERSONAL: Final = re.compile("patient|subject|person|participant|病人|患者|受试者", re.IGNORECASE)
_DESCRIBES: Final = re.compile(
    r"age\b|sex|gender|birth|level|grade|diagnos|年龄|性别|出生|诊断|分级|日期"
    r"|(in|out)[\s_-]*patient|type|status|group|race|ethnic|weight|height|bmi|smok|history|present"
    r"|count|类型|类别|状态|分组|种族|民族|体重|身高|人数",
    re.IGNORECASE,
)
"""Words of columns that describe a person, and are read as such or named as not read."""
_NOBODY: Final = frozenset(
    [
        "none",
        "missing",
        "anonymous",
        "anonymized",
        "anonymised",
        "deidentified",
        "redacted",
        ".",
        "..",
        "无",
        "空",
        "缺失",
        "匿名",
    ]
)
"""Further words for an unknown person."""
MOST_OF_A_PATIENT: Final = 20
"""Photographs a value of a column of patients, on average: above it the column names something
else, such as a ward or yes and no."""
_SIDE: Final = re.compile(r"(?<![a-z])(?:left|right|o[ds]|[lr])(?![a-z])|[左右]眼?", re.IGNORECASE)


def person_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that may identify the person, the likeliest first.

    Examples:
        >>> from vclip_jax.datasets.own.people import person_columns
        >>> person_columns(["姓名", "Patient consent", "就诊号", "病历号", "Patient"])
        ['病历号', 'Patient', '姓名']
    """
    ranked = [(rank_of(one), one) for one in columns]
    return [one for rank, one in sorted(ranked, key=lambda pair: pair[0]) if rank < len(_RANKS)]


def rank_of(column: str) -> int:
    """Return the rank of a column's name, the number of ranks for one that names no person."""
    name = bare(column)
    return next((n for n, words in enumerate(_RANKS) if re.fullmatch(words, name)), len(_RANKS))


def may_be_of_people(column: str) -> bool:
    """Return whether a column that is no candidate speaks of persons, such as patient_city."""
    known = rank_of(column) < len(_RANKS) or _DESCRIBES.search(column)
    return bool(_PERSONAL.search(column)) and not known


def person_of(cell: str) -> str:
    """Return the person that a cell names, "1" for "1.0"; "" for none."""
    name = whole_number(value_of(cell))
    return "" if name.casefold() in _NOBODY else name


def choose_persons(found: Sequence[Found], given: bool) -> tuple[list[str], list[str]]:
    """Take one of the columns of persons of each source, and fill `Found.person`.

    Args:
        found: the photographs, with the cells of all candidates in `Found.people`.
        given: True if the user named the column.

    Returns:
        Notes on the choice, and warnings of photographs without a person among others with one.
    """
    usable, notes = _usable(found, given)
    warnings = []
    sources: dict[str, list[Found]] = {}
    for one in found:
        sources.setdefault(one.source, []).append(one)
    taken: dict[str, list[Found]] = {}
    for rows in sources.values():
        if column := next((c for c in usable if any(one.people.get(c) for one in rows)), ""):
            taken.setdefault(column, []).extend(rows)
    for column, rows in taken.items():
        notes += [_said(column, given), *_merge_spellings(rows, column)]
        for one in rows:
            one.person = one.people.get(column, "")
    rows = [one for one in found if not one.reason]
    unnamed = sum(not one.person for one in rows)
    if taken and 0 < unnamed < len(rows):
        where = few(map(repr, taken))
        warnings.append(
            f"{unnamed} of {len(rows)} photographs have no patient in {where}: each is split as a "
            "patient of its own. If a cell stands for the rows below it, fill these cells"
        )
    return notes, warnings


def _usable(found: Sequence[Found], given: bool) -> tuple[list[str], list[str]]:
    """Return the columns that can be of persons by their values, and notes on the others."""
    names = list(dict.fromkeys(name for one in found for name in one.people))
    if given:
        return names, []
    usable, notes = [], []
    for column in person_columns(names):
        values = Counter(cell for one in found if (cell := one.people.get(column)))
        if not values or (rank_of(column) == _REPEATS and max(values.values()) == 1):
            continue
        if values.total() > MOST_OF_A_PATIENT * len(values):
            notes.append(
                f"{column!r} has {len(values)} values for {values.total()} photographs and is "
                "taken for no name of patients: if it is one, give --group-column."
            )
        else:
            usable.append(column)
    return usable, notes


def _said(column: str, given: bool) -> str:
    if not given and rank_of(column) == _NAMES:
        return (
            f"Patients are known by the names in {column!r}, which the records will hold: a number "
            "is safer (--group-column), and --anonymous hides both."
        )
    return f"Patients are those of the column {column!r}."


def _merge_spellings(rows: Sequence[Found], column: str) -> list[str]:
    """Give persons whose names differ by case, width or leading zeros one name, and note it."""
    counts = Counter(cell for one in rows if (cell := one.people.get(column)))
    first: dict[str, str] = {}
    for name, _ in counts.most_common():
        first.setdefault(spelling(name) or name, name)
    changed = {name: first[spelling(name) or name] for name in counts}
    changed = {name: to for name, to in changed.items() if name != to}
    for one in rows:
        if (cell := one.people.get(column, "")) in changed:
            one.people = {**one.people, column: changed[cell]}
    if not changed:
        return []
    such = few((f"{name!r} for {to!r}" for name, to in changed.items()), 3)
    return [f"{len(changed)} names of patients are other spellings of a name ({such}) and merged."]


def group_by_person(found: Sequence[Found]) -> list[str]:
    """Group photographs by person, store the person as a fact, and return notes.

    Sources that share names are taken to speak of the same persons.
    """
    sources: dict[str, set[str]] = {}
    for one in found:
        if one.person:
            one.group = one.facts[PATIENT] = one.person
            sources.setdefault(one.source, set()).add(one.person)
    seen: set[str] = set()
    shared: set[str] = set()
    for names in sources.values():
        shared |= names & seen
        seen |= names
    if not shared:
        return []
    return [
        f"{len(shared)} patients are named in several tables and taken for the same persons: if "
        "places number theirs alike, put the place before the number."
    ]


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
