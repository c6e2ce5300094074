"""The classes of a dataset: what the cells of all photographs name, in one spelling and order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import (
    SEVERAL,
    in_order,
    is_parted,
    is_undecided,
    listed,
    read_labels,
    spelling,
    spelt_alike,
)
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
    """Interpret the cells; cells without a class, or with several, are noted or rejected."""
    cells = [one for one in found if not one.is_name and one.label not in classes.given]
    read = read_labels([one.label for one in cells], classes.given)
    nothing = Counter(
        one.label
        for one, (text, fault) in zip(cells, read, strict=True)
        if one.label and not text and not fault and not one.reason
    )
    several = Counter(
        one.label
        for one, (_, fault) in zip(cells, read, strict=True)
        if fault == SEVERAL and not one.reason
    )
    for one, (text, fault) in zip(cells, read, strict=True):
        if fault and not one.reason:
            one.reason, one.detail = fault, f"{one.detail}: {one.label!r}"
            if fault == SEVERAL and listed(one.label) is None:
                one.detail += " (if it is one class, list it with all others in --classes)"
        one.word = one.label if not text and is_undecided(one.label) else ""
        one.label = text
    notes = []
    if nothing:
        such = few((repr(text) for text, _ in nothing.most_common()), 3)
        notes.append(
            f"{nothing.total()} labels ({such}) are taken for no class: list one that is "
            "a class in --classes."
        )
    if several:
        such = few((repr(text) for text, _ in several.most_common()), 3)
        notes.append(
            f"{several.total()} labels ({such}) are several in one cell and rejected: list one "
            "that is a single class in --classes."
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


def spell(name: str, found: Sequence[Found], classes: Classes) -> list[str]:
    """Give each class one spelling; numbers become the given names."""
    usable = [one for one in found if one.label and not one.reason]
    given = classes.given
    notes = []
    if given:
        texts = {one.label for one in usable}
        if texts and all(text.isdecimal() for text in texts) and not texts & set(given):
            none = "" if "0" in texts else "; no label is 0: do yours count from 1?"
            notes.append(f"Labels are numbers of the given classes, 0 is {given[0]!r}{none}.")
            for one in usable:
                one.label = given[int(one.label)] if int(one.label) < len(given) else one.label
        by_spelling = {spelling(text): text for text in given}
        merged: dict[str, list[str]] = {}
        for one in usable:
            as_given = by_spelling.get(spelling(one.label), one.label)
            if one.label not in given and as_given in given and classes.spellings == "merge":
                merged.setdefault(as_given, [])
                if one.label not in merged[as_given]:
                    merged[as_given].append(one.label)
                one.label = as_given
            if one.label not in given:
                raise ValueError(
                    f"{one.detail or one.key}: the label {one.label!r} is none of the given "
                    f"classes ({few(given)})"
                )
        if merged:
            notes.append(_merged([[name, *others] for name, others in merged.items()]))
        return notes
    groups = spelt_alike(Counter(one.label for one in usable))
    if groups and classes.spellings == "refuse":
        where = {one.label: one.detail for one in reversed(usable)}
        pair = " and ".join(f"{label!r} ({where[label]})" for label in groups[0][:3])
        raise ValueError(
            f"{name}: the classes {pair} differ by case, width, "
            "hyphens or white space alone: --spellings merge makes them one, --spellings keep "
            "leaves them"
        )
    if groups and classes.spellings == "merge":
        for one in usable:
            one.label = next((group[0] for group in groups if one.label in group), one.label)
        notes.append(_merged(groups))
    return notes


def _merged(groups: Sequence[Sequence[str]]) -> str:
    """Return a sentence on the spellings that became the first of their group."""
    merged = few((f"{few(map(repr, group[1:]))} as {group[0]!r}" for group in groups), between="; ")
    return f"Classes of another spelling are counted as one: {merged}."
