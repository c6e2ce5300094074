"""The classes of records, or the findings that are present in them, as groups of equal shares."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from vclip_jax.data.record import Record

NO_FINDING = "no finding"
"""The name of the group of records in which all findings are rated absent."""


def by_label(
    records: Iterable[Record], class_names: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return class -> the numbers of its records; a class without records is left out.

    Args:
        records: the records; those without a label are in no group.
        class_names: the names of the labels; a label without a name has its number as its name.
    """
    rows: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        if record["label"] >= 0:
            rows.setdefault(record["label"], []).append(row)
    named = dict(enumerate(class_names))
    return {named.get(label, str(label)): np.array(rows[label]) for label in sorted(rows)}


def by_finding(records: Iterable[Record]) -> dict[str, npt.NDArray[np.int64]]:
    """Return finding -> the numbers of the records in which it is present, and `NO_FINDING`.

    A record with several findings is in several groups. A record is in no group if nothing is
    present in it and a finding is not rated.
    """
    rows: dict[str, list[int]] = {}
    absent = []
    for row, record in enumerate(records):
        rated = record.get("findings", {})
        for name in (name for name, value in rated.items() if value == 1):
            rows.setdefault(name, []).append(row)
        if rated and not any(rated.values()):
            absent.append(row)
    groups = {name: np.array(rows[name]) for name in sorted(rows)}
    if absent:
        # A dataset may have a finding of this name.
        groups[NO_FINDING] = np.array(sorted([*rows.get(NO_FINDING, ()), *absent]))
    return groups
