"""Columns of flags: the cells that are flags, and the columns of a table that hold them."""

import csv
import io
import json

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.own import generic
from vclip_jax.datasets.own.flags import (
    Flags,
    are_flags,
    flag_of,
    flags_in,
    named_flags,
    summary_of,
)

from .listings import findings, labels, place, reasons, splits, tar


def table_of(folder, header, rows, name="t.csv"):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    (folder / name).write_text(text.getvalue(), "utf-8")


@pytest.mark.parametrize(
    ("cells", "flag"),
    [
        ("1 1.0 True TRUE yes Y 有 是 阳性 positive present １ 1,0 1.000000e+00", 1),
        ("0 0.0 false No n 无 否 阴性 negative absent ０", 0),
        ("nan N/A - ? unknown ungradable 待查 -1 -9.0 <NA>", -1),
        ("2 maybe 0.5 0,1 1|0 good 轻度 10 yes/no", None),
    ],
)
def test_a_cell_is_present_absent_not_rated_or_no_flag(cells, flag):
    assert {cell: flag_of(cell) for cell in cells.split()} == dict.fromkeys(cells.split(), flag)
    assert flag_of("") == -1
    assert flag_of(" yes ") == 1


@pytest.mark.parametrize(
    ("cells", "graded"),
    [
        ("0 1 2 3 4 0", 3),
        ("0 1 2 2 unknown", 2),
        ("0 0 1 2", 0),  # one cell may be a slip
        ("0 1 5 5 9", 0),
        ("0 1 2 3 5", 2),  # a grade of the one who could not grade
        ("0 1 2 2 good good bad poor fair", 0),
        ("yes no 2", 0),
    ],
)
def test_grades_are_known_by_several_cells_above_1(cells, graded):
    assert named_flags("DR", "DR", cells.split()) == Flags("DR", "DR", graded)


def test_of_many_cells_one_in_a_hundred_must_be_above_1():
    cells = ["0", "1"] * 150
    assert named_flags("DR", "DR", [*cells, "2", "2"]).graded == 0
    assert named_flags("DR", "DR", [*cells, "2", "2", "2", "3"]).graded == 4


@pytest.mark.parametrize("cells", ["good bad", "5 6 7", "x"])
def test_a_named_column_without_a_flag_is_refused(cells):
    with pytest.raises(ValueError, match=r"the column 'DR' for --finding-columns holds neither"):
        named_flags("DR", "DR", cells.split())
    assert named_flags("DR", "DR", ["", "nan"]).graded == 0


@pytest.mark.parametrize(
    ("cells", "held"),
    [
        ("0 1 0 1", True),
        ("0 0 0", True),
        ("yes no maybe no yes", True),
        ("0 1 2 3 4 1", False),
        ("f m f", False),
        ("1 2 3", False),
        ("", False),
        (" ".join(map(str, range(500))), False),
        ("0 1 " * 50 + "2 maybe", True),
        ("0 1 " * 50 + "maybe " * 12, False),
    ],
)
def test_a_column_of_flags_may_have_a_few_faults(cells, held):
    assert are_flags(cells.split()) == held


def test_the_fault_of_a_row_names_column_and_cell():
    columns = [Flags("DR", "left DR"), Flags("AMD", "left AMD")]
    read = flags_in({"left DR": "1", "left AMD": ""}, columns)
    assert read == ({"DR": 1, "AMD": -1}, "")
    assert flags_in({}, columns) == ({"DR": -1, "AMD": -1}, "")
    found, fault = flags_in({"left DR": "1", "left AMD": "maybe"}, columns)
    assert (found, fault[:25]) == ({}, "'left AMD' is 'maybe': wr")


def test_a_summary_of_the_other_columns_is_told():
    columns = [Flags(name, name) for name in ("any", "DR", "AMD")]
    rows = [{"any": "1", "DR": str(i % 2), "AMD": str(1 - i % 2)} for i in range(10)]
    rows += [{"any": "1", "DR": "0", "AMD": "0"}, {"any": "0", "DR": "0", "AMD": "0"}]
    assert summary_of(columns, rows) == "any"
    assert summary_of(columns, rows[1:]) == ""  # too few rows
    assert summary_of(columns, [*rows, {"any": "0", "DR": "1"}]) == ""
    assert summary_of(columns[:2], rows) == ""
    assert summary_of([], rows) == ""


# --- Tables.


def test_a_table_of_flags_alone_is_read_and_said(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(7)))
    rows = [
        ["0.jpg", 1, 0, "no"],
        ["1.jpg", 1, 1, "no"],
        ["2.jpg", 0, 0, "yes"],
        ["3.jpg", 0, 0, ""],
        ["4.jpg", 0, "", ""],
        ["5.jpg", "maybe", 0, "no"],
        ["6.jpg", 1, "", ""],
    ]
    table_of(tmp_path, ["image", "DR", "AMD", "normal"], rows)
    listing = generic.scan(tmp_path)
    assert listing.classes == ("DR", "AMD", "normal")
    assert findings(listing) == {
        "0.jpg": {"DR": 1, "AMD": 0, "normal": 0},
        "1.jpg": {"DR": 1, "AMD": 1, "normal": 0},
        "2.jpg": {"DR": 0, "AMD": 0, "normal": 1},
        "3.jpg": {"DR": 0, "AMD": 0, "normal": -1},
        "6.jpg": {"DR": 1, "AMD": -1, "normal": -1},
    }
    expected = {"0.jpg": "DR", "1.jpg": None, "2.jpg": "normal", "3.jpg": "normal", "6.jpg": "DR"}
    assert labels(listing) == expected
    captions = ["DR", "DR, AMD", "normal", "normal", "DR"]
    assert [item.caption for item in listing.items] == captions
    assert {one.key: (one.reason, one.detail) for one in listing.rejects} == {
        "4.jpg": ("neither caption nor label", "t.csv, row 6"),
        "5.jpg": (
            "finding is neither present nor absent",
            "t.csv, row 7: 'DR' is 'maybe': write 1, 0, or nothing where it is not rated",
        ),
    }
    assert any("the columns 'DR', 'AMD', 'normal' hold flags" in note for note in listing.guesses)
    assert "1 photographs have several findings, 1 of them no class." in listing.notes
    assert any("1 photographs are of the class 'normal', because" in n for n in listing.notes)


def test_facts_splits_ids_and_patients_are_no_findings(tmp_path):
    place(tmp_path, "0.jpg", "1.jpg")
    header = ["image", "id", "sex", "quality", "眼别", "split", "patient", "set", "DR", "AMD"]
    rows = [
        ["0.jpg", 0, 0, 1, "左", "train", 1, 0, 1, 0],
        ["1.jpg", 1, 1, 0, "右", "test", 0, 1, 0, 1],
    ]
    table_of(tmp_path, header, rows)
    listing = generic.scan(tmp_path)
    assert set(findings(listing)["0.jpg"]) == {"DR", "AMD"}
    assert [name for name in listing.columns if "/" not in name] == [
        *("patient", "eye", "sex", "quality")
    ]
    assert splits(listing) == {"0.jpg": "train", "1.jpg": "test"}


def test_one_column_of_flags_is_refused_until_it_is_named(tmp_path):
    place(tmp_path, "0.jpg", "1.jpg")
    table_of(tmp_path, ["image", "DR"], [["0.jpg", 1], ["1.jpg", 0]])
    with pytest.raises(ValueError, match=r"'DR': name them with --finding-columns"):
        generic.scan(tmp_path)
    listing = generic.scan(tmp_path, finding_columns="dr")
    assert findings(listing) == {"0.jpg": {"DR": 1}, "1.jpg": {"DR": 0}}
    assert [item.caption for item in listing.items] == ["DR", "no finding of DR"]


def test_columns_beside_a_label_or_a_caption_are_read_if_they_are_named(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(4)))
    rows = [["0.jpg", 0, "", 0, 0], ["1.jpg", 2, "x", 1, 1], ["2.jpg", 3, "", 1, 0]]
    table_of(tmp_path, ["image", "grade", "caption", "A/B", "C"], [*rows, ["3.jpg", "", "", 1, 0]])
    plain = generic.scan(tmp_path)
    assert not plain.columns
    assert any("'A/B', 'C' hold flags, such as 1 and 0, and are not" in n for n in plain.guesses)
    listing = generic.scan(tmp_path, finding_columns="a/b,c")
    assert labels(listing) == {"0.jpg": "0", "1.jpg": "2", "2.jpg": "3", "3.jpg": None}
    assert [item.caption for item in listing.items] == ["0", "x", "A/B", "A/B"]
    assert tuple(listing.columns) == ("findings/A／B", "findings/C")
    assert [item.values for item in listing.items] == [(0, 0), (1, 1), (1, 0), (1, 0)]
    assert any("'A/B' is stored as 'A／B'" in note for note in listing.notes)
    assert not any("hold flags" in note for note in listing.guesses)


def test_grades_in_a_named_column_are_present_from_1_on_and_said(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(6)))
    rows = [[f"{i}.jpg", grade, 0] for i, grade in enumerate((0, 1, 2, 3, 4, ""))]
    table_of(tmp_path, ["image", "DR", "AMD"], rows)
    listing = generic.scan(tmp_path, finding_columns="DR,AMD")
    assert [item.values for item in listing.items] == [(0, 0), *[(1, 0)] * 4]
    said = "t.csv: 'DR' holds grades: the finding is present from 1 on (3 cells are above 1)."
    assert said in listing.guesses
    with pytest.raises(ValueError, match=r"columns of flags, such as 1 and 0, are 'AMD': name"):
        generic.scan(tmp_path)
    rows = [[f"{i}.jpg", flag, 0] for i, flag in enumerate((0, 1, 2, 1, 0, 1))]
    table_of(tmp_path, ["image", "DR", "AMD"], rows)
    (reject,) = generic.scan(tmp_path, finding_columns="DR,AMD").rejects
    assert reject.detail.startswith("t.csv, row 4: 'DR' is '2': write 1, 0")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("DR,ARMD", r"t\.csv: there is no column 'ARMD' for --finding-columns, only 'DR'"),
        ("DR,dr", r"--finding-columns names 'DR' twice"),
        ("DR,note", r"the column 'note' for --finding-columns holds neither .* but 'good', 'bad'"),
        ("DR,,AMD", r"the columns 'DR,,AMD' hold an empty name"),
    ],
)
def test_a_column_that_cannot_be_a_finding_is_refused(tmp_path, wanted, message):
    place(tmp_path, "0.jpg", "1.jpg")
    rows = [["0.jpg", 1, 0, "good"], ["1.jpg", 0, 1, "bad"]]
    table_of(tmp_path, ["image", "DR", "AMD", "note"], rows)
    with pytest.raises(ValueError, match=message) as caught:
        generic.scan(tmp_path, finding_columns=wanted)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="--finding-columns and another option name 'DR'"):
        generic.scan(tmp_path, finding_columns="DR,AMD", label_column="dr")


def test_columns_need_a_table(tmp_path):
    place(tmp_path, "dr/0.jpg", "amd/1.jpg")
    with pytest.raises(ValueError, match=r"there is no table, so no column 'DR'"):
        generic.scan(tmp_path, finding_columns="DR")


def test_a_formula_or_a_missing_cell_of_a_flag_is_a_reject(tmp_path):
    place(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    book = openpyxl.Workbook()
    for row in (("image", "DR", "AMD"), ("0", True, False), ("1", "=1", 0), ("2", False, True)):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    listing = generic.scan(tmp_path)
    assert findings(listing) == {"0.jpg": {"DR": 1, "AMD": 0}, "2.jpg": {"DR": 0, "AMD": 1}}
    assert reasons(listing) == {"formula without a stored value": 1}
    (tmp_path / "t.xlsx").unlink()
    (tmp_path / "t.csv").write_text("image,DR,AMD\n0,1,0\n1,0\n2,0,1\n")
    listing = generic.scan(tmp_path)
    assert reasons(listing) == {"cells are missing": 1}


@pytest.mark.parametrize("options", [{}, {"finding_columns": "DR,AMD"}])
def test_each_eye_has_its_own_findings(tmp_path, options):
    place(tmp_path, "0l.jpg", "0r.jpg", "1l.jpg", "1r.jpg")
    header = ["image_left", "image_right", "Left-DR", "right DR", "left_AMD", "right_AMD", "N"]
    rows = [["0l.jpg", "0r.jpg", 1, 0, 0, 0, 0], ["1l.jpg", "1r.jpg", 0, 1, 1, 1, 1]]
    table_of(tmp_path, header, rows)
    listing = generic.scan(tmp_path, **options)
    assert findings(listing) == {
        "0l.jpg": {"DR": 1, "AMD": 0},
        "0r.jpg": {"DR": 0, "AMD": 0},
        "1l.jpg": {"DR": 0, "AMD": 1},
        "1r.jpg": {"DR": 1, "AMD": 1},
    }
    of = splits(listing)
    assert of["0l.jpg"] == of["0r.jpg"]
    assert listing.rejects == []


def test_flags_for_both_eyes_are_refused_until_they_are_named(tmp_path):
    place(tmp_path, "0l.jpg", "0r.jpg")
    table_of(tmp_path, ["Left-Fundus", "Right-Fundus", "N", "D"], [["0l.jpg", "0r.jpg", 0, 1]])
    with pytest.raises(ValueError, match=r"for both eyes together, .* 'N', 'D': name .* each eye$"):
        generic.scan(tmp_path)
    listing = generic.scan(tmp_path, finding_columns="N,D")
    assert findings(listing) == {key: {"N": 0, "D": 1} for key in ("0l.jpg", "0r.jpg")}


def test_a_finding_of_one_eye_alone_is_no_finding_of_the_other(tmp_path):
    place(tmp_path, "0l.jpg", "0r.jpg")
    table_of(tmp_path, ["image_left", "image_right", "left_DR"], [["0l.jpg", "0r.jpg", 1]])
    with pytest.raises(ValueError, match=r"'left_DR' is of the left eye, and the other has no"):
        generic.scan(tmp_path, finding_columns="left_DR")


def shard(path, **columns):
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    count = len(next(iter(columns.values())))
    table = {"image": pyarrow.array([{"bytes": b"x", "path": None}] * count, image)}
    pyarrow.parquet.write_table(pyarrow.table(table | columns), path)


@pytest.mark.parametrize("options", [{}, {"finding_columns": "DR,AMD"}])
def test_shards_hold_flags_beside_the_images(tmp_path, options):
    shard(tmp_path / "a.parquet", DR=[True, False, None], AMD=[1, 0, 0], age=[50, 60, 70])
    listing = generic.scan(tmp_path, **options)
    assert findings(listing) == {"a/0": {"DR": 1, "AMD": 1}, "a/1": {"DR": 0, "AMD": 0}}
    assert reasons(listing) == {"neither caption nor label": 1}
    assert [item.values[0] for item in listing.items] == ["50", "60"]
    shard(tmp_path / "a.parquet", DR=[True, False], AMD=[1, 0], label=["x", "y"])
    assert bool(findings(generic.scan(tmp_path, **options))) == bool(options)


def test_entries_of_webdataset_are_findings_if_they_are_named(tmp_path):
    entries = [{"DR": True, "AMD": 0}, {"DR": False, "AMD": 0}, {"DR": 1, "AMD": "x"}]
    members = {}
    for index, entry in enumerate(entries):
        members[f"{index}.jpg"] = b"x"
        members[f"{index}.json"] = json.dumps(entry).encode()
    tar(tmp_path / "a.tar", members)
    listing = generic.scan(tmp_path, finding_columns="DR,AMD")
    assert findings(listing) == {"0": {"DR": 1, "AMD": 0}, "1": {"DR": 0, "AMD": 0}}
    assert reasons(listing) == {"finding is neither present nor absent": 1}
    with pytest.raises(ValueError, match=r"no \.json has the entry 'dr' for a finding"):
        generic.scan(tmp_path, finding_columns="dr")


# --- Any table.

WORDS = {1: ["1", "1.0", "True", "yes", "阳性", "有"], 0: ["0", "0.0", "no", "否", "无"]}
WORDS[-1] = ["", "nan", "-1", "?", "待查"]
DISEASES = ("DR", "AMD", "糖网", "scar: old", "a|b", "rvo / crvo")
FLAGS = st.sampled_from([1, 0, -1])


@st.composite
def tables(draw):
    """Return names of findings, and rows: photographs with findings, as numbers and as cells."""
    names = draw(st.lists(st.sampled_from(DISEASES), min_size=2, max_size=4, unique=True))
    names += draw(st.sampled_from([[], ["normal"], ["正常"]]))
    rows = draw(st.lists(st.lists(FLAGS, min_size=len(names), max_size=len(names)), max_size=12))
    # Every column has a flag, so that it is known to hold flags.
    rows = [[1] + [0] * (len(names) - 1), [0] * len(names), *rows]
    cells = [[draw(st.sampled_from(WORDS[flag])) for flag in row] for row in rows]
    return names, rows, cells, draw(st.booleans())


def expected_of(names, row):
    """Return the class, the caption and the reason of a reject, by the rules as documented."""
    rated = dict(zip(names, row, strict=True))
    healthy = next((name for name in names if name in ("normal", "正常")), None)
    diseases = {name: flag for name, flag in rated.items() if name != healthy}
    present = [name for name in names if rated[name] == 1]
    chinese = any("\u4e00" <= mark <= "\u9fff" for name in present or diseases for mark in name)
    if healthy in present and len(present) > 1:
        return None, None, "healthy with a disease"
    if present:
        caption = ("、" if chinese else ", ").join(present)
        return (present[0] if len(present) == 1 else None), caption, None
    if any(flag == -1 for flag in diseases.values()):
        return None, None, "neither caption nor label"
    if healthy and rated[healthy] == -1:
        return healthy, healthy, None
    text = ("、" if chinese else ", ").join(diseases)
    return None, f"未见{text}" if chinese else f"no finding of {text}", None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_any_table_of_flags_comes_out_as_it_went_in(tmp_path_factory, table):
    names, rows, cells, named = table
    folder = tmp_path_factory.mktemp("flags")
    keys = [f"{index}.jpg" for index in range(len(rows))]
    place(folder, *keys)
    table_of(folder, ["image", *names], [[k, *row] for k, row in zip(keys, cells, strict=True)])
    options = {"finding_columns": ",".join(names)} if named else {}
    listing = generic.scan(folder, **options)
    assert listing.classes == tuple(names)
    kept, rejected = {}, {}
    for key, row in zip(keys, rows, strict=True):
        label, caption, reason = expected_of(names, row)
        if reason:
            rejected[key] = reason
        else:
            stored = {name.replace("/", "／"): f for name, f in zip(names, row, strict=True)}
            kept[key] = (label, caption, stored, split_by_hash(key))
    found, said, of = findings(listing), labels(listing), splits(listing)
    items = {item.key: item.caption for item in listing.items}
    assert {k: (said[k], items[k], found[k], of[k]) for k in items} == kept
    assert {one.key: one.reason for one in listing.rejects} == rejected
