"""Classes and findings of a whole dataset, from its cells of labels and its columns of flags."""

from collections.abc import Sequence
from dataclasses import dataclass

from vclip_jax.datasets.own.classes import Classes, check_given, ordered
from vclip_jax.datasets.own.findings import CONFLICT, agreed, class_of, contradiction, words_of
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.names import is_healthy


@dataclass(frozen=True)
class Rated:
    """The names of classes and findings, in their order."""

    classes: tuple[str, ...]
    findings: tuple[str, ...]
    """Empty for a dataset with one label a photograph."""


def reject_contradictions(found: Sequence[Found]) -> None:
    """Reject the rows whose classes and findings cannot be true together."""
    for one in found:
        if not one.reason:
            one.reason, said = contradiction(one.classes, one.findings)
            one.detail += f": {said}" if said else ""


def rate(found: Sequence[Found], classes: Classes) -> Rated:
    """Give the photographs their findings and, where columns of flags alone tell it, their class.

    If a cell has several labels, every class is a finding: present or absent in the photographs
    with a label, not rated in the others. What a column of flags leaves empty stays not rated.

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
    for one in usable:
        if several and one.classes:
            empty = {name for name, flag in one.findings.items() if flag == -1}
            own = {name: int(name in one.classes) for name in names}
            own |= dict.fromkeys(empty.intersection(own) - set(one.classes), -1)
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
    return Rated(names, tuple(dict.fromkeys([*(names if several else ()), *findings])))


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
