"""Patients in tables: each patient is in one split, and the patient's facts are in the records."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.datasets import open_source
from vclip_jax.datasets.fixtures.pictures import photograph_of, save
from vclip_jax.datasets.ingest import build, data_card
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.listing import anonymous
from vclip_jax.datasets.own import generic
from vclip_jax.datasets.own.facts import FACTS, fact_columns

from .listings import place, tar

PEOPLE = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 5).map(str),
            st.integers(0, 5).map(lambda number: f"{number}.0"),
            st.sampled_from(["", "张三", "P-7", "a b", "nan"]),
        ),
        st.sampled_from(["", "", "", "train", "val", "test"]),
    ),
    min_size=1,
    max_size=40,
)


def table_of(folder: Path, header: list[str], rows: list[list[str]], name: str = "t.csv") -> None:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    (folder / name).write_text(text.getvalue(), "utf-8")


@given(rows=PEOPLE, column=st.sampled_from(["patient_id", "患者编号", "MRN", "Subject"]))
@settings(max_examples=60, deadline=None)
def test_no_patient_is_parted_unless_the_source_parts_him(tmp_path_factory, rows, column):
    folder = tmp_path_factory.mktemp("people")
    names = [f"{index}.jpg" for index in range(len(rows))]
    place(folder, *names)
    cells = [[name, "dr", *row] for name, row in zip(names, rows, strict=True)]
    table_of(folder, ["image", "label", column, "split"], cells)
    listing = generic.scan(folder)
    assert len(listing.items) == len(rows)
    found: dict[str, set[str]] = {}
    given_splits: dict[str, set[str]] = {}
    for item in listing.items:
        row = rows[names.index(item.key)]
        patient = item.values[0] if listing.columns else ""
        assert (patient == "") == (row[0] in ("", "nan"))
        if patient:
            found.setdefault(str(patient), set()).add(item.split)
            given_splits.setdefault(str(patient), set()).update({row[1]} - {""})
        if row[1]:
            assert item.split == {"val": "validation"}.get(row[1], row[1])
    for patient, splits in found.items():
        assert len(splits) <= max(1, len(given_splits[patient]) + (len(given_splits[patient]) > 1))


def test_facts_are_known_by_usual_names_and_none_is_read_twice(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    header = ["image", "label", "病历号", "眼别", "性别", "Age", "Device", "hospital", "ExamDate"]
    header += ["image quality"]
    table_of(
        tmp_path,
        header,
        [
            ["a.jpg", "dr", "77.0", "左", "女", "61", "Topcon", "甲医院", "2020-01-02", "good"],
            ["b.jpg", "normal", "78", "OD", "男", "", "Zeiss", "乙医院", "2020-01-03", "poor"],
        ],
    )
    listing = generic.scan(tmp_path)
    assert tuple(listing.columns) == FACTS
    rows = {item.key: dict(zip(FACTS, item.values, strict=True)) for item in listing.items}
    assert rows["a.jpg"] == {
        "patient": "77",
        "eye": "left",
        "sex": "女",
        "age": "61",
        "camera": "Topcon",
        "site": "甲医院",
        "visit": "2020-01-02",
        "quality": "good",
    }
    assert (rows["b.jpg"]["age"], rows["b.jpg"]["eye"]) == ("", "right")
    assert not any("not read" in note for note in listing.guesses)
    as_label = generic.scan(tmp_path, label_column="image quality")
    assert "quality" not in as_label.columns


def test_a_fact_has_one_column():
    assert fact_columns(["sex", "Gender", "x"]) == {"sex": "sex"}
    assert fact_columns(["Image Age"]) == {}


def test_the_column_of_patients_can_be_named(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(30)))
    table_of(
        tmp_path, ["image", "label", "family"], [[f"{i}.jpg", "dr", str(i % 3)] for i in range(30)]
    )
    assert not generic.scan(tmp_path).columns
    listing = generic.scan(tmp_path, group_column="Family")
    assert len({(item.values[0], item.split) for item in listing.items}) == 3
    with pytest.raises(ValueError, match=r"no column 'familie' for --group-column"):
        generic.scan(tmp_path, group_column="familie")
    with pytest.raises(ValueError, match=r"'label' has another use already"):
        generic.scan(tmp_path, group_column="label")


@pytest.mark.parametrize("kind", ["table", "shards"])
def test_a_column_of_few_values_names_no_patients_and_is_said(tmp_path, kind):
    wards = [f"ward {index % 2}" for index in range(60)]
    if kind == "table":
        place(tmp_path, *(f"{i}.jpg" for i in range(60)))
        rows = [[f"{i}.jpg", "dr", ward] for i, ward in enumerate(wards)]
        table_of(tmp_path, ["image", "label", "patient_code"], rows)
    else:
        members = {}
        for i, ward in enumerate(wards):
            members[f"{i}.jpg"] = b"x"
            members[f"{i}.json"] = json.dumps({"label": 1, "patient_code": ward}).encode()
        tar(tmp_path / "a.tar", members)
    listing = generic.scan(tmp_path)
    assert not listing.columns
    assert len({item.split for item in listing.items}) == 3
    assert any("'patient_code' has 2 values for 60 photographs" in note for note in listing.notes)
    named = generic.scan(tmp_path, group_column="patient_code")
    assert len({(item.values[0], item.split) for item in named.items}) == 2


@pytest.mark.parametrize(
    "column",
    ["inpatient", "Out-patient", "patient type", "Patient_Race", "subject group", "患者类型"],
)
def test_a_column_that_describes_patients_names_none(tmp_path, column):
    place(tmp_path, *(f"{i}.jpg" for i in range(12)))
    table_of(tmp_path, ["image", "label", column], [[f"{i}.jpg", "dr", "yes"] for i in range(12)])
    listing = generic.scan(tmp_path)
    assert not listing.columns
    assert any(f"not read: {column!r}" in note for note in listing.guesses)


def test_rows_of_two_tables_complete_each_others_facts(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    table_of(tmp_path, ["image", "label"], [["a.jpg", "dr"], ["b.jpg", "amd"]], "labels.csv")
    table_of(
        tmp_path,
        ["image", "caption", "patient", "age"],
        [["a.jpg", "x", "1", "50"], ["b.jpg", "y", "1", "50"]],
        "people.csv",
    )
    listing = generic.scan(tmp_path)
    assert {item.values for item in listing.items} == {("1", "50")}
    assert len({item.split for item in listing.items}) == 1


def test_shards_name_patients_too(tmp_path):
    members = {}
    for index in range(20):
        members[f"{index}.jpg"] = b"x"
        entry = {"label": 1, "kin": index // 10, "sex": "f", "eye": "left"}
        members[f"{index}.json"] = json.dumps(entry).encode()
    tar(tmp_path / "a.tar", members)
    listing = generic.scan(tmp_path, group_column="kin")
    assert listing.columns == {"patient": str, "eye": str, "sex": str}
    assert {item.values for item in listing.items} == {("0", "left", "f"), ("1", "left", "f")}
    assert len({(item.values[0], item.split) for item in listing.items}) == 2
    with pytest.raises(ValueError, match=r"no \.json has the entry 'kim' for the patient"):
        generic.scan(tmp_path, group_column="kim")


def test_records_hold_the_patient_and_an_anonymous_build_a_hash_of_him(tmp_path):
    source = tmp_path / "source"
    header = ["image", "label", "patient", "sex", "hospital", "visit", "split"]
    rows = []
    for index in range(6):
        save(source / f"{index}.jpg", photograph_of("fives_like", 0, index))
        person = "" if index == 5 else f"MUELLER {index // 2}"
        rows.append([f"{index}.jpg", "dr", person, "f", "MUELLER clinic", "2020", "test"])
    table_of(source, header, rows)
    listing = generic.scan(source, name="mine")
    folder = build.build(listing, tmp_path / "data", workers=1)
    card = json.loads((folder / "card.json").read_text())
    assert card["patients"] == {"known": 3, "photographs": 5, "in_several_splits": 0}
    assert "5 photographs are of 3 known patients" in data_card.summary(card)
    card["patients"]["in_several_splits"] = 2
    assert any("2 of 3 patients have photographs in" in line for line in data_card.summary(card))
    records = list(open_source("mine", tmp_path / "data", "test"))
    assert (
        sorted(record["patient"] for record in records) == ["", *sorted(row[2] for row in rows)][1:]
    )
    build.build(listing, tmp_path / "hidden", Storage(anonymous=True), workers=1)
    hidden = [record["patient"] for record in open_source("mine", tmp_path / "hidden", "test")]
    assert sorted(map(hidden.count, set(hidden))) == [1, 1, 2, 2]
    assert "" in hidden
    for path in (tmp_path / "hidden").rglob("*"):
        assert b"MUELLER" not in (path.read_bytes() if path.is_file() else b"")
    columns = anonymous(listing, b"s").columns
    assert columns == {"patient": str, "sex": str}


def test_an_anonymous_dataset_keeps_no_rare_text(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(10)))
    rows = [[f"{i}.jpg", "dr", "MUELLER" if i == 3 else "f"] for i in range(10)]
    table_of(tmp_path, ["image", "label", "sex"], rows)
    hidden = anonymous(generic.scan(tmp_path), b"s")
    assert sorted(item.values for item in hidden.items) == [("",), *[("f",)] * 9]


@pytest.mark.parametrize("persons", [1, 4, 5])
def test_an_anonymous_dataset_keeps_no_text_of_few_people(tmp_path, persons):
    place(tmp_path, *(f"{i}.jpg" for i in range(20)))
    rows = [
        [f"{i}.jpg", "dr", f"p{i % persons}" if i < 10 else f"q{i}", "MUELLER" if i < 10 else "f"]
        for i in range(20)
    ]
    table_of(tmp_path, ["image", "label", "patient", "sex"], rows)
    hidden = anonymous(generic.scan(tmp_path), b"s")
    texts = Counter(
        dict(zip(hidden.columns, item.values, strict=True))["sex"] for item in hidden.items
    )
    assert texts == {"f": 10, "MUELLER" if persons == 5 else "": 10}


def test_a_patient_whose_name_is_a_key_has_another_hash_than_the_key(tmp_path):
    place(tmp_path, "a.jpg")
    table_of(tmp_path, ["image", "label", "patient"], [["a.jpg", "dr", "a.jpg"]])
    (item,) = anonymous(generic.scan(tmp_path), b"s").items
    assert str(item.values[0]).rpartition("-")[2] != item.key.rpartition("-")[2]


# --- which column names the patients -------------------------------------------------------------


def splits_of(listing, truth):
    """The splits of each true patient, by the photographs' keys."""
    found: dict[str, set[str]] = {}
    for item in listing.items:
        found.setdefault(truth[item.key], set()).add(item.split)
    return found


@pytest.mark.parametrize(
    ("others", "patient"),
    [
        ({"就诊号": lambda i: f"V{i}"}, "病历号"),
        ({"患者来源": lambda i: ("门诊", "住院")[i % 2]}, "病历号"),
        ({"患者来源": lambda i: f"来源{i % 7}"}, "病历号"),
        ({"Patient Phone": lambda i: f"1380{i}"}, "Hosp No"),
        ({"姓名": lambda i: f"刘洋{i % 26}"}, "病历号"),
        ({"Patient Name": lambda i: f"Li {i % 3}"}, "MRN"),
        ({"Patient visit no": lambda i: str(i)}, "MRN"),
        ({"Patient consent": lambda i: "yes"}, "patient_id"),
        ({"Patient eye": lambda i: ("L", "R")[i % 2]}, "Patient"),
        ({"subjective_quality": lambda i: ("good", "fair", "poor")[i % 3]}, "patient_id"),
        ({"patient_city": lambda i: f"city {i % 7}"}, "UHID"),
        ({"是否住院患者": lambda i: "是否"[i % 2]}, "病例号"),
        ({"case_id": lambda i: f"c{i // 4}"}, "NHS number"),
        ({}, "Study ID"),
        ({}, "Pat. ID"),
        ({}, "EMR No"),
        ({}, "就诊卡号"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_number_of_a_patient_is_taken_before_what_is_said_about_him(
    tmp_path, others, patient, first
):
    place(tmp_path, *(f"{i}.jpg" for i in range(40)))
    header = [*others, patient] if first else [patient, *others]
    rows = []
    for i in range(40):
        cells = {patient: f"P{i // 2 * 7}", **{name: of(i) for name, of in others.items()}}
        rows.append([f"{i}.jpg", "dr", *(cells[name] for name in header)])
    table_of(tmp_path, ["image", "label", *header], rows)
    listing = generic.scan(tmp_path)
    truth = {f"{i}.jpg": f"P{i // 2 * 7}" for i in range(40)}
    assert {item.key: item.values[0] for item in listing.items} == truth
    assert all(len(splits) == 1 for splits in splits_of(listing, truth).values())
    assert f"Patients are those of the column {patient!r}." in listing.notes


def test_a_number_that_every_photograph_has_of_its_own_names_no_patient(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(10)))
    rows = [[f"{i}.jpg", "dr", f"c{i}"] for i in range(10)]
    table_of(tmp_path, ["image", "label", "case_id"], rows)
    listing = generic.scan(tmp_path)
    assert not listing.columns
    assert any(note.startswith("No patients are known") for note in listing.notes)


def test_a_column_that_may_be_of_patients_is_named_with_the_option_for_it(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(4)))
    table_of(
        tmp_path,
        ["image", "label", "patient_city", "x"],
        [[f"{i}.jpg", "dr", f"c{i}", "y"] for i in range(4)],
    )
    (note,) = generic.scan(tmp_path).guesses
    assert (
        "not read: 'patient_city', 'x' ('patient_city' if it names patients: --group-column)"
        in note
    )


def test_names_of_people_are_taken_last_and_said(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(4)))
    table_of(
        tmp_path,
        ["image", "label", "姓名"],
        [[f"{i}.jpg", "dr", "张三李四"[i % 2 * 2 :][:2]] for i in range(4)],
    )
    listing = generic.scan(tmp_path)
    assert {item.values for item in listing.items} == {("张三",), ("李四",)}
    assert any(
        "known by the names in '姓名', which the records will hold" in n for n in listing.notes
    )


def test_photographs_without_a_patient_among_others_are_warned_of(tmp_path):
    place(tmp_path, *(f"{i}.jpg" for i in range(10)))
    rows = [[f"{i}.jpg", "dr", f"P{i // 2}" if i % 2 == 0 else ""] for i in range(10)]
    table_of(tmp_path, ["image", "label", "pid"], rows)
    (warning,) = generic.scan(tmp_path).warnings
    assert warning.startswith("5 of 10 photographs have no patient in 'pid': each is split")
    assert "fill these cells" in warning


@pytest.mark.parametrize("word", ["None", "missing", "ANONYMOUS", "无", ".", "unknown", "-"])
def test_words_for_an_unknown_patient_are_no_patient(tmp_path, word):
    place(tmp_path, *(f"{i}.jpg" for i in range(6)))
    rows = [[f"{i}.jpg", "dr", f"P{i}" if i < 3 else word] for i in range(6)]
    table_of(tmp_path, ["image", "label", "pid"], rows)
    listing = generic.scan(tmp_path)
    assert sorted(item.values[0] for item in listing.items) == ["", "", "", "P0", "P1", "P2"]


@pytest.mark.parametrize(
    ("one", "other"), [("7", "007"), ("A12", "a12"), ("P-0", "p-0"), ("12", "１２")]
)
def test_spellings_of_a_patient_are_one_patient_and_said(tmp_path, one, other):
    place(tmp_path, *(f"{i}.jpg" for i in range(5)))
    people = [one, one, other, "x", "y"]
    table_of(
        tmp_path, ["image", "label", "pid"], [[f"{i}.jpg", "dr", p] for i, p in enumerate(people)]
    )
    listing = generic.scan(tmp_path)
    assert [item.values[0] for item in sorted(listing.items, key=lambda i: i.key)] == [
        *(one, one, one, "x", "y")
    ]
    assert any("1 names of patients are other spellings" in note for note in listing.notes)


def test_tables_that_name_different_patients_for_a_photograph_contradict_each_other(tmp_path):
    place(tmp_path, "0.jpg", "1.jpg")
    table_of(
        tmp_path, ["image", "label", "pid"], [["0.jpg", "dr", "A"], ["1.jpg", "dr", "B"]], "a.csv"
    )
    table_of(
        tmp_path, ["image", "pid", "caption"], [["0.jpg", "A", "x"], ["1.jpg", "C", "y"]], "b.csv"
    )
    listing = generic.scan(tmp_path)
    assert [item.key for item in listing.items] == ["0.jpg"]
    assert {reject.reason for reject in listing.rejects} == {"conflicting patients"}


def test_tables_that_share_names_of_patients_are_said(tmp_path):
    for site in "ab":
        place(tmp_path, *(f"{site}/{i}.jpg" for i in range(2)))
        (tmp_path / site).mkdir(exist_ok=True)
        table_of(
            tmp_path / site,
            ["image", "label", "pid"],
            [[f"{i}.jpg", "dr", str(i)] for i in range(2)],
        )
    listing = generic.scan(tmp_path)
    assert any("2 patients are named in several tables" in note for note in listing.notes)


def test_a_table_a_patient_is_no_ward(tmp_path):
    for who in range(3):
        place(tmp_path, *(f"{who}/{i}.jpg" for i in range(30)))
        rows = [[f"{i}.jpg", "dr", f"P{who}"] for i in range(30)]
        table_of(tmp_path / str(who), ["image", "label", "pid"], rows)
    listing = generic.scan(tmp_path, group_column="pid")
    assert len({(item.values[0], item.split) for item in listing.items}) == 3


@pytest.mark.parametrize(
    ("column", "fact"),
    [
        ("相机型号", "camera"),
        ("Age (yrs)", "age"),
        ("年龄（岁）", "age"),
        ("Sex (M/F)", "sex"),
        ("医院名称", "site"),
        ("Exam Dt", "visit"),
        ("Manufacturer", "camera"),
        ("就诊号", "visit"),
    ],
)
def test_facts_have_the_names_that_clinics_use(column, fact):
    assert fact_columns([column]) == {fact: column}


@pytest.mark.parametrize("column", ["code", "Number", "No", "key", "exam no", "lesion number"])
def test_numbers_of_other_things_name_no_patient(tmp_path, column):
    place(tmp_path, *(f"{i}.jpg" for i in range(30)))
    rows = [[f"{i}.jpg", "dr", str(i % 6)] for i in range(30)]
    table_of(tmp_path, ["image", "label", column], rows)
    assert not generic.scan(tmp_path).columns


# --- folders of patients below the classes --------------------------------------------------------


@pytest.mark.parametrize("name", ["P{:02}", "{}", "patient_{}", "患者{}", "P{}_OD"])
@pytest.mark.parametrize("above", ["", "archive/"])
def test_folders_of_patients_below_the_classes_stay_together(tmp_path, name, above):
    keys = [
        f"{above}{('dr', 'normal')[n % 2]}/{name.format(n)}/{i}.jpg"
        for n in range(30)
        for i in range(3)
    ]
    place(tmp_path, *keys)
    listing = generic.scan(tmp_path)
    assert listing.classes == ("dr", "normal")
    truth = {key: key.split("/")[-2] for key in keys}
    assert {item.key: item.values[0] for item in listing.items} == truth
    assert all(len(found) == 1 for found in splits_of(listing, truth).values())
    assert "Patients are the 30 folders below the classes." in listing.guesses


@pytest.mark.parametrize("name", ["2023-{:02}", "camera {}", "mild{}", "x"])
def test_other_folders_below_the_classes_are_no_patients_and_are_noted(tmp_path, name):
    keys = [f"{('dr', 'normal')[n % 2]}/{name.format(n + 1)}/{n}.jpg" for n in range(8)]
    place(tmp_path, *keys)
    listing = generic.scan(tmp_path)
    assert "patient" not in listing.columns
    assert any("do not count: if they are of patients" in note for note in listing.guesses)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([f"P{n:02}" for n in range(8)], "patients"),
        ([f"患者{n}" for n in range(8)], "patients"),
        ([f"2023-0{n + 1}-17" for n in range(8)], "dates"),
        (["images", "Masks"], "masks"),
    ],
)
def test_folders_of_other_things_than_classes_are_refused(tmp_path, names, what):
    place(tmp_path, *(f"{name}/{i}.jpg" for name in names for i in range(2)))
    with pytest.raises(ValueError, match=f"looks? like.*{what}"):
        generic.scan(tmp_path)


@pytest.mark.parametrize("names", [["0", "1", "2", "3", "4"], ["P0", "P1"], ["DR1", "DR2"]])
def test_folders_of_grades_are_classes(tmp_path, names):
    place(tmp_path, *(f"{name}/{i}.jpg" for name in names for i in range(2)))
    assert generic.scan(tmp_path).classes == tuple(names)


# --- facts of several tables -------------------------------------------------------------------


def test_a_fact_of_which_two_tables_differ_is_left_out_and_counted(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    header = ["image", "label", "age", "sex"]
    table_of(tmp_path, header, [["a", "dr", 50, "f"], ["b", "amd", 60, "m"]], "one.csv")
    table_of(tmp_path, header, [["a", "dr", 15, "f"], ["b", "amd", 60, ""]], "two.csv")
    listing = generic.scan(tmp_path)
    facts = {
        item.key: dict(zip(listing.columns, item.values, strict=True)) for item in listing.items
    }
    assert facts == {"a.jpg": {"sex": "f", "age": ""}, "b.jpg": {"sex": "m", "age": "60"}}
    assert (
        "1 photographs have two values of 'age' in their tables, and none is kept." in listing.notes
    )


@pytest.mark.parametrize(
    ("table", "eye"),
    [
        ("l1", ""),
        ("R2", ""),
        ("reader_r", ""),
        ("left", "left"),
        ("labels OD", "right"),
        ("L", "left"),
    ],
)
def test_one_letter_in_the_name_of_a_table_is_no_eye(tmp_path, table, eye):
    place(tmp_path, "a.jpg", "b.jpg")
    table_of(tmp_path, ["image", "label"], [["a", "dr"], ["b", "amd"]], f"{table}.csv")
    listing = generic.scan(tmp_path)
    assert {item.values for item in listing.items} == ({(eye,)} if eye else {()})
    assert any("eye, by its name" in note for note in [*listing.notes, *listing.guesses]) == bool(
        eye
    )


def test_cells_that_name_no_eye_are_counted(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table_of(
        tmp_path, ["image", "label", "eye"], [["a", "dr", 1], ["b", "amd", 2], ["c", "dr", "OD"]]
    )
    notes = generic.scan(tmp_path).guesses
    assert any("2 cells of 'eye' name no eye, such as '1'" in note for note in notes)
