"""Names of classes and findings: spelling, order, and the names of healthy eyes."""

from collections import Counter

import pytest

from vclip_jax.datasets.own.names import given_names, in_order, is_healthy, spelling, spelt_alike


@pytest.mark.parametrize(
    ("name", "healthy"),
    [
        ("normal", True),
        ("Healthy", True),
        ("No Findings", True),
        ("no_finding", True),
        ("正常", True),
        ("无异常", True),
        ("眼底未见异常", True),
        ("no DR", False),
        ("abnormal", False),
        ("other", False),
        ("0", False),
    ],
)
def test_a_name_of_no_disease_at_all_is_healthy(name, healthy):
    assert is_healthy(name) == healthy


def test_numbers_are_in_their_order_and_names_by_alphabet():
    assert in_order({"10", "9", "-1"}) == ("-1", "9", "10")
    assert in_order({"b", "10", "9"}) == ("10", "9", "b")


def test_spellings_are_told_apart_by_more_than_case_width_and_space():
    assert spelling("Ｇlau coma") == spelling("glaucoma")
    assert spelling("01") == spelling("1")
    assert spelling("no-DR\u200b") == spelling("no_dr") == spelling("NoDR")
    assert spelling("AMD") != spelling("AMDs")
    assert spelling("1-2") != spelling("12")
    counts = Counter({"dr": 3, "DR": 5, "amd": 1})
    assert spelt_alike(counts) == [["DR", "dr"]]


def test_given_classes_may_hold_commas_in_quotes():
    assert given_names('no DR, "severe, proliferative"') == ("no DR", "severe, proliferative")
    for text in ("a,,b", "a,a"):
        with pytest.raises(ValueError, match="the classes"):
            given_names(text)
