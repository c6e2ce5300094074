"""What cells say of classes and captions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.own.labels import read_caption, read_labels
from vclip_jax.datasets.own.names import spelling


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
    assert read_labels([cell]) == [((label,) if label else (), "")]


@pytest.mark.parametrize(
    ("cell", "classes"),
    [
        ("dr|amd", ("dr", "amd")),
        ("dr; amd", ("dr", "amd")),
        ("糖网；青光眼|白内障", ("糖网", "青光眼", "白内障")),
        ('["dr", "amd"]', ("dr", "amd")),
        ("['dr', 'amd']", ("dr", "amd")),
        ('["dr|amd", "scar"]', ("dr", "amd", "scar")),
        ("[0, 1]", ("0", "1")),
        ("[2.0, 3]", ("2", "3")),
        ("dr|amd|dr", ("dr", "amd")),
        ("dr|dr", ("dr",)),
        ("dr|", ("dr|",)),
        ("dr||amd|", ("dr", "amd")),
        ("|", ("|",)),
        ("dr|nan", ("dr",)),
        ('["dr", ""]', ("dr",)),
        ('["dr", null]', ("dr",)),
        ("-1|2", ("2",)),
        ("mild\nDR|amd", ("mild DR", "amd")),
        ("true|amd", ("1", "amd")),
    ],
)
def test_several_labels_are_all_read(cell, classes):
    assert read_labels([cell]) == [(classes, "")]


def test_a_label_may_end_with_the_separator_where_others_have_it_between():
    assert read_labels(["dr|", "dr|amd"]) == [(("dr",), ""), (("dr", "amd"), "")]
    assert read_labels(["2.0;", "|", "2;3"]) == [(("2",), ""), ((), ""), (("2", "3"), "")]
    assert read_labels(["dr|", "dr|amd"], ["dr|", "dr", "amd"])[0] == (("dr|",), "")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("dr|unknown", "several labels, one undecided"),
        ("糖网|待查", "several labels, one undecided"),
        ("dr; ?", "several labels, one undecided"),
        ('["dr", "ungradable"]', "several labels, one undecided"),
        ("0.5|1", "label is not whole"),
        ("2|2", "a number twice among the labels"),
        ("[1, 1]", "list of 0 and 1 as label"),
        ('[{"name": "dr"}, {"name": "amd"}]', "label is a list or an object"),
        ('[["dr"], ["amd"]]', "label is a list or an object"),
    ],
)
def test_a_cell_of_several_that_cannot_be_read_has_a_reason(cell, reason):
    assert read_labels([cell]) == [((), reason)]


@pytest.mark.parametrize(
    "lists", [["[0, 1]", "[1, 0]"], ["[0, 0, 1]"], ["[true, false, true]"], ["['0', '1', '0']"]]
)
def test_lists_of_0_and_1_for_each_class_are_not_taken_for_classes(lists):
    reasons = {fault for _, fault in read_labels([*lists, "1"])[:-1]}
    assert reasons == {"list of 0 and 1 as label"}
    assert read_labels(["[0, 1]", "[0]", "[1]"]) == [(("0", "1"), ""), (("0",), ""), (("1",), "")]


@pytest.mark.parametrize(
    "separator", [", ", "/", "+", "、", " & ", " ", "，", "\\", "_", "-", " and ", "和", "\n"]
)
def test_other_separators_count_where_the_parts_are_classes(separator):
    cell = f"scar{separator}Drusen"
    assert read_labels([cell])[0] == ((" ".join(cell.split("\n")),), "")
    both = (("scar", "drusen"), "")
    assert read_labels([cell, "scar", "drusen"])[0] == both
    assert read_labels([cell], ["scar", "drusen"])[0] == both
    assert read_labels([cell, "scar|drusen"])[0] == both
    assert read_labels([cell, "scar"])[0] == ((" ".join(cell.split("\n")),), "")


@pytest.mark.parametrize(
    ("cell", "classes"),
    [
        ("DR/AMD", ("DR", "AMD")),
        ("糖网 青光眼", ("糖网", "青光眼")),
        ("diabetic retinopathy + Glaucoma", ("diabetic retinopathy", "Glaucoma")),
        ("age-related macular degeneration & DR", ("age-related macular degeneration", "DR")),
        ("青光眼合并白内障", ("青光眼", "白内障")),
        ("未见异常、白内障", ("未见异常", "白内障")),
    ],
)
def test_common_names_of_different_findings_are_several(cell, classes):
    assert read_labels([cell]) == [(classes, "")]


def test_a_row_of_names_is_read_with_the_fewest_names():
    cells = ["severe", "npdr", "severe npdr", "dr", "macular edema, dr", "severe npdr, dr"]
    read = dict(zip(cells, read_labels(cells), strict=True))
    assert read["severe npdr"] == (("severe", "npdr"), "")
    assert read["severe npdr, dr"] == (("severe", "npdr", "dr"), "")
    assert read["macular edema, dr"] == (("macular edema", "dr"), "")
    read = dict(zip(cells, read_labels(cells, ["severe npdr"]), strict=True))
    assert read["severe npdr"] == (("severe npdr",), "")
    assert read["severe npdr, dr"] == (("severe npdr", "dr"), "")


@pytest.mark.parametrize(
    "cell", ["normal/healthy", "no DR", "mild DR", "macular degeneration", "1-2", "DR", "糖网 ?"]
)
def test_what_is_no_row_of_names_is_one_class(cell):
    assert read_labels([cell, "1", "2", "wet"])[0] == ((cell,), "")


def test_the_comma_is_a_decimal_point_where_all_cells_say_so():
    assert read_labels(["1,0", "2,0", ""]) == [(("1",), ""), (("2",), ""), ((), "")]
    assert read_labels(["1,0", "2,3"])[1] == ((), "label is not whole")


@given(st.lists(st.text(max_size=12), max_size=8))
def test_labels_keep_their_number_and_order(cells):
    read = read_labels(cells)
    assert len(read) == len(cells)
    assert all(not (classes and fault) for classes, fault in read)
    assert all(len(set(classes)) == len(classes) and all(classes) for classes, _ in read)


NAMES = st.text("abcdefgh 糖网眼", min_size=1, max_size=6).map(str.strip).filter(bool)
WRITTEN = {
    "|": "|".join,
    ";": "; ".join,
    "；": "；".join,
    "json": lambda names: json.dumps(names, ensure_ascii=False),
    "python": repr,
}


@given(
    st.lists(st.lists(NAMES, min_size=2, max_size=4, unique_by=spelling), max_size=6),
    st.sampled_from(sorted(WRITTEN)),
)
def test_any_names_in_a_cell_come_back_in_their_order(rows, separator):
    cells = [WRITTEN[separator](names) for names in rows]
    assert read_labels(cells) == [(tuple(names), "") for names in rows]


@given(st.integers(0, 10**6))
def test_whole_numbers_are_one_class_however_stored(number):
    assert (
        len({names for names, _ in read_labels([f"{number}", f"{number}.0", f"[{number}]"])}) == 1
    )


def test_a_caption_is_one_text():
    assert read_caption("[左眼] 正常") == ("[左眼] 正常", "")
    assert read_caption('["one"]') == ("one", "")
    assert read_caption('[""]') == ("", "")
    assert read_caption("['']") == ("['']", "")
    assert read_caption("['one', 'two']") == ("", "several captions")
