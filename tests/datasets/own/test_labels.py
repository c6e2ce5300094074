"""What cells say of classes and captions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.own.labels import (
    given_classes,
    in_order,
    read_caption,
    read_labels,
    spelling,
    spelt_alike,
)


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("2.0", "2"),
        ("+2", "2"),
        ("2.000000e+00", "2"),
        ("2.", "2."),
        ("-1.0", ""),
        ("-3", ""),
        ("NaN", ""),
        ("N/A", ""),
        ("?", ""),
        ("None", "None"),
        ("TRUE", "1"),
        ("False", "0"),
        (" mild  DR ", "mild  DR"),
        ("mild\nDR", "mild DR"),
        ('["dr"]', "dr"),
        ("['dr']", "dr"),
        ("[3.0]", "3"),
        ("[]", ""),
        ("10", "10"),
    ],
)
def test_a_cell_is_a_class_or_none(cell, label):
    assert read_labels([cell]) == [(label, "")]


@pytest.mark.parametrize("cell", ["dr|amd", "dr; amd", '["dr", "amd"]', "['dr', 'amd']", "[0, 1]"])
def test_several_labels_are_no_class(cell):
    assert read_labels([cell]) == [("", "several labels")]


@pytest.mark.parametrize(
    "separator", [", ", "/", "+", "、", " & ", " ", "，", "\\", "_", "-", " and ", "和", "\n"]
)
def test_other_separators_count_where_the_parts_are_classes(separator):
    cell = f"scar{separator}Drusen"
    assert read_labels([cell])[0] == (" ".join(cell.split("\n")), "")
    assert read_labels([cell, "scar", "drusen"])[0] == ("", "several labels")
    assert read_labels([cell], ["scar", "drusen"])[0] == ("", "several labels")
    assert read_labels([cell, "scar"])[0] == (" ".join(cell.split("\n")), "")


@pytest.mark.parametrize(
    "cell", ["DR/AMD", "糖网 青光眼", "diabetic retinopathy + Glaucoma", "青光眼合并白内障"]
)
def test_common_names_of_different_findings_are_several(cell):
    assert read_labels([cell]) == [("", "several labels")]


@pytest.mark.parametrize(
    "cell", ["normal/healthy", "no DR", "mild DR", "macular degeneration", "1-2", "DR", "糖网 ?"]
)
def test_what_is_no_row_of_names_is_one_class(cell):
    assert read_labels([cell, "1", "2", "wet"])[0] == (cell, "")


def test_the_comma_is_a_decimal_point_where_all_cells_say_so():
    assert read_labels(["1,0", "2,0", ""]) == [("1", ""), ("2", ""), ("", "")]
    assert read_labels(["1,0", "2,3"])[1] == ("", "label is not whole")


@given(st.lists(st.text(max_size=12), max_size=8))
def test_labels_keep_their_number_and_order(cells):
    read = read_labels(cells)
    assert len(read) == len(cells)
    assert all(not (label and fault) for label, fault in read)


@given(st.integers(0, 10**6))
def test_whole_numbers_are_one_class_however_stored(number):
    assert (
        len({label for label, _ in read_labels([f"{number}", f"{number}.0", f"[{number}]"])}) == 1
    )


def test_a_caption_is_one_text():
    assert read_caption("[左眼] 正常") == ("[左眼] 正常", "")
    assert read_caption('["one"]') == ("one", "")
    assert read_caption('[""]') == ("", "")
    assert read_caption("['']") == ("['']", "")
    assert read_caption("['one', 'two']") == ("", "several captions")


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
    assert given_classes('no DR, "severe, proliferative"') == ("no DR", "severe, proliferative")
    for text in ("a,,b", "a,a"):
        with pytest.raises(ValueError, match="the classes"):
            given_classes(text)
