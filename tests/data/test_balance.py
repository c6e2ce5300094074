"""Classes and findings have equal turns, however many records they have."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from vclip_jax.data.balance import NO_FINDING, by_finding, by_label
from vclip_jax.data.mixture import Mixture
from vclip_jax.data.pipeline import step_records
from vclip_jax.data.shares import Group


def record(key: int, label: int = -1, **findings: int) -> dict:
    made = {"key": f"k{key}", "caption": "", "image": b"", "label": label}
    return made | ({"findings": findings} if findings else {})


def listed(groups: dict) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in groups.items()}


def test_records_of_a_class_are_a_group_and_those_without_a_label_are_in_none():
    records = [record(n, label) for n, label in enumerate((1, -1, 0, 1, 4, 1))]
    groups = by_label(records, ("a", "b", "c"))
    assert listed(groups) == {"a": [2], "b": [0, 3, 5], "4": [4]}


def test_a_finding_called_no_finding_and_records_without_findings_are_one_group():
    healthy, silent = {"dr": 0, NO_FINDING: 1}, {"dr": 0, NO_FINDING: 0}
    rows = [{"dr": 1, NO_FINDING: 0}, healthy, silent, healthy]
    records = [record(n, **findings) for n, findings in enumerate(rows)]
    assert listed(by_finding(records)) == {"dr": [0], NO_FINDING: [1, 2, 3]}


def test_a_record_is_in_the_group_of_each_finding_that_is_present():
    records = [
        record(0, dr=1, amd=0),
        record(1, dr=1, amd=1),
        record(2, dr=0, amd=0),
        record(3, dr=0, amd=-1),  # nothing is present, and not all is rated
        record(4, dr=-1, amd=1),
        record(5, dr=-1, amd=-1),
        record(6),
    ]
    assert listed(by_finding(records)) == {"amd": [1, 4], "dr": [0, 1], NO_FINDING: [2]}


@pytest.mark.parametrize("sizes", [(1, 5), (3, 40, 7), (100, 1, 2, 50, 9)])
def test_every_class_has_exactly_its_share_and_all_its_records_equally_often(sizes):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    source = [record(n, label) for n, label in enumerate(labels)]
    classes = by_label(source, ())
    groups = tuple(Group(name, rows, Fraction(1)) for name, rows in classes.items())
    mixture = Mixture((source,), groups, tuple(classes))
    batch = 64 * len(sizes)  # whole blocks and whole cycles
    for step in (0, 7, 2**30):
        drawn = step_records(mixture, seed=5, global_batch_size=batch, step=step, rows=range(batch))
        assert Counter(one["label"] for one in drawn) == dict.fromkeys(range(len(sizes)), 64)
    keys = Counter(
        one["key"]
        for step in range(4)
        for one in step_records(
            mixture, seed=5, global_batch_size=batch, step=step, rows=range(batch)
        )
    )
    for rows in classes.values():
        times = [keys[f"k{row}"] for row in rows]
        assert max(times) - min(times) <= 1
    assert mixture.drawn_from(4 * batch, 5) == dict.fromkeys(classes, 256)
    assert np.unique([len(rows) for rows in classes.values()]).size > 1
