"""The classes of a dataset: what the cells of all photographs name, in one spelling and order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vclip_jax.datasets.own.findings import CONFLICT, agreed
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import (
    LIST_OF_FLAGS,
    REPEATED_NUMBER,
    is_parted,
    is_undecided,
    read_labels,
)
from vclip_jax.datasets.own.names import in_order, spelling, spelt_alike
from vclip_jax.files.errors import few

SPELLINGS: Final = ("refuse", "merge", "keep")


@dataclass(frozen=True)
class Classes:
    """Facts about the classes besides the labels themselves."""

    order: tuple[str, ...] = ()
    """The order in the files."""
    given: tuple[str, ...] = ()
    """The user's classes; labels that are numbers count from the first, 0."""
    ordered: bool = False
    """True if the classes are grades, in this order."""
    spellings: str = "refuse"
    """The treatment of classes that differ only by case, width or white space."""


def ordered(labels: set[str], order: Sequence[str]) -> tuple[str, ...]:
    """Return the files' order, then the other labels."""
    return (*order, *in_order(labels - set(order)))


def read_cells(found: Sequence[Found], classes: Classes) -> list[str]:
    """Interpret the cells: their classes, or the reason why they have none; return notes."""
    cells = [one for one in found if not one.is_name and one.label not in classes.given]
    read = read_labels([one.label for one in cells], classes.given)
    nothing: Counter[str] = Counter()
    several: Counter[str] = Counter()
    for one, (names, fault) in zip(cells, read, strict=True):
        cell = one.label
        one.word = cell if not names and is_undecided(cell) else ""
        one.set_classes(names)
        if one.reason:
            continue
        if fault:
            one.reason, one.detail = fault, f"{one.detail}: {cell!r}"
            if fault in (LIST_OF_FLAGS, REPEATED_NUMBER):
                one.detail += " (give each class a column of 0 and 1)"
        nothing[cell] += bool(cell and not names and not fault)
        several[cell] += len(names) > 1
    notes = []
    if nothing.total():
        notes.append(
            f"{nothing.total()} labels ({_such(nothing)}) are taken for no class: list one that is "
            "a class in --classes."
        )
    if several.total():
        notes.append(
            f"{several.total()} labels ({_such(several)}) are several in one cell: each class is a "
            "finding. List a label that is a single class in --classes."
        )
    named = Counter(
        one.label
        for one in found
        if one.is_name and one.label not in classes.given and is_undecided(one.label)
    )
    notes += [
        f"{text!r} is a class of {count} photographs, by their folder or file: move them out if "
        "it is none, or list the classes in --classes."
        for text, count in named.items()
    ]
    parted = sorted({one.label for one in cells if not one.reason and is_parted(one.label)})
    if parted:
        such = few(map(repr, parted), 3)
        notes.append(f"{len(parted)} classes may be several in one cell, such as {such}.")
    return notes


def _such(counts: Counter[str]) -> str:
    return few((repr(text) for text, count in counts.most_common() if count), 3)


def spell(name: str, found: Sequence[Found], classes: Classes) -> list[str]:
    """Give each class and each finding one spelling; numbers become the given names."""
    usable = [one for one in found if (one.classes or one.findings) and not one.reason]
    notes = _as_given(usable, classes) if classes.given else []
    return notes + _spell_alike(name, usable, classes)


def _as_given(usable: Sequence[Found], classes: Classes) -> list[str]:
    """Name the classes, and the findings of these names, as the user gave them."""
    given, notes = classes.given, []
    texts = {text for one in usable for text in one.classes}
    new = {text: text for one in usable for text in (*one.classes, *one.findings)}
    if texts and all(text.isdecimal() for text in texts) and not texts & set(given):
        none = "" if "0" in texts else "; no label is 0: do yours count from 1?"
        notes.append(f"Labels are numbers of the given classes, 0 is {given[0]!r}{none}.")
        new |= {text: given[int(text)] for text in texts if int(text) < len(given)}
    merged: dict[str, list[str]] = {}
    if classes.spellings == "merge":
        by_spelling = {spelling(text): text for text in given}
        for text, as_new in new.items():
            if as_new not in given and (as_given := by_spelling.get(spelling(text))):
                merged.setdefault(as_given, []).append(text)
                new[text] = as_given
    for one in usable:
        _rename(one, new)
        check_given(one, given)
    if merged:
        notes.append(_merged([[name, *others] for name, others in merged.items()]))
    return notes


def check_given(one: Found, given: Sequence[str]) -> None:
    """Check the classes of a photograph against those that the user gave.

    Raises:
        ValueError: one line: a class is none of them.
    """
    for text in one.classes if given else ():
        if text not in given:
            raise ValueError(
                f"{one.detail or one.key}: the label {text!r} is none of the given "
                f"classes ({few(given)})"
            )


def _spell_alike(name: str, usable: Sequence[Found], classes: Classes) -> list[str]:
    """Refuse, merge or keep the classes and findings that differ only by spelling."""
    counts = Counter(text for one in usable for text in {*one.classes, *one.findings})
    counts.update(set(classes.given) - set(counts))
    groups = [group for group in spelt_alike(counts) if not set(group) <= set(classes.given)]
    if groups and classes.spellings == "refuse":
        where = dict.fromkeys(classes.given, "--classes")
        where |= {text: one.detail for one in reversed(usable) for text in one.findings}
        where |= {text: one.detail for one in reversed(usable) for text in one.classes}
        pair = " and ".join(f"{label!r} ({where[label]})" for label in groups[0][:3])
        raise ValueError(
            f"{name}: the classes {pair} differ by case, width, "
            "hyphens or white space alone: --spellings merge makes them one, --spellings keep "
            "leaves them"
        )
    if not groups or classes.spellings != "merge":
        return []
    new = {text: group[0] for group in groups for text in group}
    for one in usable:
        _rename(one, new)
    return [_merged(groups)]


def _rename(one: Found, new: Mapping[str, str]) -> None:
    """Rename the classes and findings of a photograph; what contradicts itself is a reject."""
    one.set_classes(tuple(dict.fromkeys(new.get(text, text) for text in one.classes)))
    findings: dict[str, int] = {}
    for text, flag in one.findings.items():
        findings, fault = agreed(findings, {new.get(text, text): flag})
        if fault and not one.reason:
            one.reason, one.detail = CONFLICT, f"{one.detail}: {fault}"
    one.findings = findings


def _merged(groups: Sequence[Sequence[str]]) -> str:
    """Return a sentence on the spellings that became the first of their group."""
    merged = few((f"{few(map(repr, group[1:]))} as {group[0]!r}" for group in groups), between="; ")
    return f"Classes of another spelling are counted as one: {merged}."
