"""The findings of one photograph: agreement, contradiction, class and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.own.findings import (
    agreed,
    class_of,
    contradiction,
    stored_names,
    words_of,
)

FINDINGS = st.dictionaries(
    st.sampled_from(["DR", "AMD", "normal", "糖网"]), st.sampled_from([1, 0, -1])
)


@given(FINDINGS, FINDINGS)
def test_two_rows_agree_where_no_finding_is_present_and_absent(one, other):
    both, fault = agreed(one, other)
    assert set(both) == {*one, *other}
    against = [name for name in other if {one.get(name), other[name]} == {0, 1}]
    assert bool(fault) == bool(against)
    for name in set(both) - set(against):
        rated = {one.get(name, -1), other.get(name, -1)} - {-1}
        assert both[name] == (rated.pop() if rated else -1)
    assert agreed(other, one)[0] == both


@pytest.mark.parametrize(
    ("classes", "findings", "reason"),
    [
        ((), {"normal": 1, "DR": 1}, "healthy with a disease"),
        (("normal", "DR"), {}, "healthy with a disease"),
        (("正常",), {"糖网": 1}, "healthy with a disease"),
        (("DR", "AMD"), {"AMD": 0}, "conflicting findings"),
        (("DR",), {"DR": 0}, "conflicting findings"),
        (("DR",), {"normal": 1, "DR": 1}, "healthy with a disease"),
        (("normal",), {"normal": 0}, "conflicting findings"),
        # A grade or the main diagnosis contradicts no other finding.
        (("0",), {"normal": 1}, ""),
        (("2",), {"normal": 1, "DR": 0}, ""),
        (("DR",), {"AMD": 1}, ""),
        (("normal", "healthy"), {}, ""),
        ((), {}, ""),
    ],
)
def test_a_healthy_eye_has_no_disease_and_a_label_is_not_absent(classes, findings, reason):
    found, said = contradiction(classes, findings)
    assert found == reason
    assert bool(said) == bool(reason)


@pytest.mark.parametrize(
    ("findings", "name", "words"),
    [
        ({"DR": 1, "AMD": 0}, "DR", "DR"),
        ({"DR": 1, "AMD": -1}, "DR", "DR"),
        ({"DR": 1, "AMD": 1}, "", "DR, AMD"),
        ({"糖网": 1, "AMD": 1}, "", "糖网、AMD"),
        ({"DR": 0, "AMD": 0}, "", "no finding of DR, AMD"),
        ({"糖网": 0, "青光眼": 0}, "", "未见糖网、青光眼"),
        ({"DR": 0, "AMD": -1}, "", ""),
        ({"DR": -1}, "", ""),
        ({"normal": 1, "DR": 0}, "normal", "normal"),
        ({"normal": 1, "DR": -1}, "normal", "normal"),
        ({"normal": -1, "DR": 0}, "normal", "normal"),
        ({"normal": 0, "DR": 0}, "", "no finding of DR"),
        ({"normal": 0, "DR": -1}, "", ""),
        ({"normal": 0}, "", ""),
        ({"正常": -1, "糖网": 0}, "正常", "正常"),
        ({}, "", ""),
    ],
)
def test_class_and_words_follow_from_the_findings(findings, name, words):
    assert class_of(findings) == name
    assert words_of(findings) == words


def test_a_stored_name_has_no_slash_and_is_not_shared():
    assert stored_names(["a/b", "c:d"], "mine") == {"a/b": "a／b", "c:d": "c:d"}
    with pytest.raises(ValueError, match="mine: the findings 'a/b' and 'a／b' are too alike"):
        stored_names(["a/b", "a／b"], "mine")
