"""The rows of one photograph: joined across tables, or rejected as repeated or contradicting."""

from collections import Counter
from collections.abc import Sequence

from vclip_jax.datasets.own.findings import CONFLICT, agreed, contradiction
from vclip_jax.datasets.own.found import Found
from vclip_jax.files.errors import few


def join(found: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """Return one entry a photograph, and notes on joined rows.

    Rows of several tables are joined; rows that repeat are rejects, and so are all rows that
    contradict each other. A fact with two values, such as an age, is left out.
    """
    groups: dict[str, list[Found]] = {}
    for one in found:
        if not one.reason and one.image is not None:
            groups.setdefault(one.key, []).append(one)
    joined: set[int] = set()
    unsure: Counter[str] = Counter()
    for rows in groups.values():
        if len(rows) > 1:
            joined.update(_join_rows(rows))
            unsure.update(_drop_unsure(rows))
    notes = []
    if joined:
        many = len(joined)
        notes.append(f"{many} rows describe a photograph of another table's row and are joined.")
    notes += [
        f"{count} photographs have two values of {fact!r} in their tables, and none is kept."
        for fact, count in unsure.items()
    ]
    return [one for one in found if id(one) not in joined], notes


def _drop_unsure(rows: Sequence[Found]) -> list[str]:
    """Leave facts of which the rows have several values out of the first row; return these."""
    values: dict[str, set[str]] = {}
    for one in rows:
        for fact, value in one.facts.items():
            values.setdefault(fact, set()).add(value)
    unsure = [fact for fact, found in values.items() if len(found) > 1]
    rows[0].facts = {fact: value for fact, value in rows[0].facts.items() if fact not in unsure}
    return unsure


def _join_rows(rows: list[Found]) -> list[int]:
    labels = {frozenset(one.classes): one.classes for one in rows if one.classes}
    splits = list(dict.fromkeys(one.split for one in rows if one.split))
    people = list(dict.fromkeys(one.person for one in rows if one.person))
    said = ["|".join(classes) for classes in labels.values()]
    for what, values in (("labels", said), ("splits", splits), ("patients", people)):
        if len(values) > 1:
            return _reject(rows, f"conflicting {what}", few(map(repr, values)))
    classes = next(iter(labels.values()), ())
    findings: dict[str, int] = {}
    for one in rows:
        findings, fault = agreed(findings, one.findings)
        if fault:
            return _reject(rows, CONFLICT, fault)
    reason, detail = contradiction(classes, findings)
    if reason:
        return _reject(rows, reason, detail)
    first, joined = rows[0], []
    for one in rows[1:]:
        if one.image != first.image:  # in shards, whose keys are not paths
            one.reason = "second sample of a key"
        elif one.caption and first.caption and one.caption != first.caption:
            one.reason = "second caption"
        elif one.source == first.source:
            one.reason = "duplicate row"
        else:
            joined.append(id(one))
        first.caption = first.caption or one.caption
        first.person = first.person or one.person
        first.group = first.group or one.group
        first.facts = one.facts | first.facts
        first.labelled = first.labelled or one.labelled
        first.split = "".join(splits)
    first.set_classes(classes)
    first.findings = findings
    return joined


def _reject(rows: Sequence[Found], reason: str, detail: str) -> list[int]:
    """Reject all rows, as none is known to be right; join none."""
    for one in rows:
        one.reason, one.detail = reason, f"{one.detail}: {detail}"
    return []
