"""Classes and findings of a whole dataset, from its cells of labels and its columns of flags."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vclip_jax.datasets.own.classes import Classes, check_given, ordered
from vclip_jax.datasets.own.findings import CONFLICT, agreed, class_of, contradiction, words_of
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.names import is_healthy
from vclip_jax.files.errors import few

_DENIAL: Final = re.compile(
    r"(no|non|not|without|absen[ct]e?|negative|neg|free)\b|no_|[无無未非否]", re.IGNORECASE
)


@dataclass(frozen=True)
class Rated:
    """The names of classes and findings, in their order."""

    classes: tuple[str, ...]
    findings: tuple[str, ...]
    """Empty for a dataset with one label a photograph."""
    notes: tuple[str, ...] = ()


def reject_contradictions(found: Sequence[Found]) -> None:
    """Reject the rows whose classes and findings cannot be true together."""
    for one in found:
        if not one.reason:
            one.reason, said = contradiction(one.classes, one.findings)
            one.detail += f": {said}" if said else ""


def rate(found: Sequence[Found], classes: Classes) -> Rated:
    """Give the photographs their findings and, where columns of flags alone tell it, their class.

    If a cell has several labels, every class is a finding: present or absent in the photographs
    with a label, not rated in the others. Not rated either: what a column of flags leaves empty,
    and a class whose name is a part of a label's or the reverse, as "DR" of "severe DR" and "DR?".

    Args:
        found: one entry a photograph, whose cells are read.
        classes: what is known of the classes.

    Raises:
        ValueError: one line: a class is none of the given ones.
    """
    usable = [one for one in found if not one.reason]
    cells = {name for one in usable for name in one.classes}
    names = classes.given or ordered(cells, classes.order)
    several = any(one.several for one in usable)
    # Given classes are what the user calls one class each.
    unclear = several and not classes.given
    alike = {name: names_alike(name, names) if unclear else [] for name in names}
    unsure: Counter[str] = Counter()
    for one in usable:
        if several and one.classes:
            open_to = {name for name, flag in one.findings.items() if flag == -1}
            for name in one.classes:
                open_to.update(alike[name])
                unsure[name] += bool(set(alike[name]) - set(one.classes))
            own = {name: int(name in one.classes) for name in names}
            own |= dict.fromkeys(open_to.intersection(own) - set(one.classes), -1)
            one.findings, fault = agreed(own, one.findings)
            if fault:
                one.reason, one.detail = CONFLICT, f"{one.detail}: {fault}"
    told = [one for one in usable if one.findings and not one.labelled and not one.classes]
    for one in told:
        one.label = class_of(one.findings)
        check_given(one, classes.given)
    flags = [name for one in told for name in one.findings]
    if told and not classes.given:
        names = ordered(cells, tuple(dict.fromkeys((*classes.order, *flags))))
    findings = [name for one in usable for name in one.findings]
    notes = [
        f"{count} photographs of {name!r} are not rated for {few(map(repr, alike[name]), 3)}: one "
        "name is a part of the other. Give each finding one name, or list the classes (--classes)."
        for name, count in unsure.items()
        if count
    ]
    notes += [
        f"{name!r} denies a finding and is one of its own: make its cells empty, or normal."
        for name in names
        if unclear and _DENIAL.match(name.casefold()) and not is_healthy(name)
    ]
    every = dict.fromkeys([*(names if several else ()), *findings])
    return Rated(names, tuple(every), tuple(notes))


def names_alike(name: str, names: Sequence[str]) -> list[str]:
    """Return the other names that are a part of a name, or that it is a part of.

    A name that denies something, such as "no DR", is no part of another's.

    Examples:
        >>> from vclip_jax.datasets.own.rating import names_alike
        >>> names_alike("DR", ["DR", "severe DR", "DR?", "no DR", "drusen", "AMD"])
        ['severe DR', 'DR?']
    """
    own = _plain_words(name)
    parts = ((other, _plain_words(other)) for other in names if other != name)
    return [other for other, words in parts if own and words and (own in words or words in own)]


def _plain_words(name: str) -> str:
    """Return a name's words with spaces around each, each Chinese character as a word.

    A denial gives "".
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = " ".join(re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", folded))
    return "" if _DENIAL.match(folded.strip()) else f" {words} "


def caption_of(one: Found) -> str:
    """Return the caption of a photograph, else its findings or its class in words, or ""."""
    if one.findings and (not one.label or 1 in one.findings.values()):
        return one.caption or words_of(one.findings)
    return one.caption or one.label


def notes_on_findings(usable: Sequence[Found]) -> list[str]:
    """Note how classes follow from findings, and which photographs have none for their findings."""
    present = [sum(flag == 1 for flag in one.findings.values()) for one in usable]
    several = [one for one, count in zip(usable, present, strict=True) if count > 1]
    notes = []
    if several:
        without = sum(not one.label for one in several)
        of_them = f", {without} of them no class" if without else ""
        notes.append(f"{len(several)} photographs have several findings{of_them}.")
    healthy = [one for one in usable if one.findings.get(one.label) == -1 and is_healthy(one.label)]
    if healthy:
        notes.append(
            f"{len(healthy)} photographs are of the class {healthy[0].label!r}, because all "
            "diseases are absent: it is not rated itself."
        )
    denied = [
        one
        for one in usable
        if one.findings and not any(one.findings.values()) and any(map(is_healthy, one.findings))
    ]
    if denied:
        name = next(filter(is_healthy, denied[0].findings))
        notes.append(
            f"{len(denied)} photographs have no finding and are not {name!r} either: they have no "
            "class."
        )
    return notes
