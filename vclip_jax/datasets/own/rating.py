"""Classes and findings of a whole dataset, from its cells of labels and its columns of flags."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vclip_jax.datasets.own.classes import Classes, check_given, ordered
from vclip_jax.datasets.own.findings import CONFLICT, agreed, class_of, contradiction, words_of
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.names import denies, is_healthy, names_alike
from vclip_jax.files.errors import few


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
    notes = _rate_classes(usable, names, bool(classes.given)) if several else []
    told = [one for one in usable if one.findings and not one.labelled and not one.classes]
    for one in told:
        one.label = class_of(one.findings)
        check_given(one, classes.given)
    flags = [name for one in told for name in one.findings]
    if told and not classes.given:
        names = ordered(cells, tuple(dict.fromkeys((*classes.order, *flags))))
    findings = [name for one in usable for name in one.findings]
    every = dict.fromkeys([*(names if several else ()), *findings])
    return Rated(names, tuple(every), tuple(notes))


def _rate_classes(found: Sequence[Found], names: Sequence[str], given: bool) -> list[str]:
    """Make each class a finding of every photograph with a label, and return notes.

    `given` says that the user listed the classes: each is then one finding, whatever its name.
    """
    alike = {name: [] if given else names_alike(name, names) for name in names}
    unsure: Counter[str] = Counter()
    for one in (one for one in found if one.classes):
        own = {name: int(name in one.classes) for name in names}
        empty = {name for name, flag in one.findings.items() if flag == -1}
        unclear = {other for name in one.classes for other in alike[name]} - {*one.classes}
        own |= dict.fromkeys((empty & own.keys() - {*one.classes}) | unclear, -1)
        unsure.update(name for name in one.classes if unclear.intersection(alike[name]))
        one.findings, fault = agreed(own, one.findings)
        if fault:
            one.reason, one.detail = CONFLICT, f"{one.detail}: {fault}"
    notes = [
        f"{count} photographs of {name!r} are not rated for {few(map(repr, alike[name]), 3)}: one "
        "name is a part of the other. Give each finding one name, or list the classes (--classes)."
        for name, count in unsure.items()
    ]
    return notes + [
        f"{name!r} denies a finding and is one of its own: make its cells empty, or normal."
        for name in names
        if denies(name) and not given and not is_healthy(name)
    ]


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
