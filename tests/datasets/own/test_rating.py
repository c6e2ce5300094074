"""Datasets of several labels a photograph, from their tables to the records."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclip_jax.datasets import open_source
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.built import open_builder
from vclip_jax.datasets.fixtures import generic as fixture
from vclip_jax.datasets.fixtures.pictures import photograph_of, save
from vclip_jax.datasets.ingest import build
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.listing import anonymous, split_by_hash
from vclip_jax.datasets.own import generic

from ...audit.photographs import jpeg
from .listings import findings, labels, place, reasons, splits, tar


def table_of(folder, header, rows, name="t.csv"):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    (folder / name).write_text(text.getvalue(), "utf-8")


@pytest.fixture
def six(tmp_path):
    place(tmp_path, *(f"{index}.jpg" for index in range(6)))
    return tmp_path


def test_a_cell_of_several_labels_gives_every_photograph_findings(six):
    cells = ["dr|amd", "dr", "normal", "", "normal; dr", "unknown"]
    rows = [[f"{index}.jpg", cell, ""] for index, cell in enumerate(cells)]
    rows[3][2] = rows[5][2] = "a caption"
    table_of(six, ["image", "label", "caption"], rows)
    listing = generic.scan(six)
    assert listing.classes == ("amd", "dr", "normal")
    assert listing.columns == {f"findings/{name}": int for name in listing.classes}
    assert {item.key: item.values for item in listing.items} == {
        "0.jpg": (1, 1, 0),
        "1.jpg": (0, 1, 0),
        "2.jpg": (0, 0, 1),
        "3.jpg": (-1, -1, -1),
        "5.jpg": (-1, -1, -1),
    }
    expected = {"0.jpg": None, "1.jpg": "dr", "2.jpg": "normal", "3.jpg": None, "5.jpg": None}
    assert labels(listing) == expected
    captions = ["amd, dr", "dr", "normal", "a caption", "a caption"]
    assert [item.caption for item in listing.items] == captions
    (reject,) = listing.rejects
    assert (reject.key, reject.reason) == ("4.jpg", "healthy with a disease")
    assert reject.detail == "t.csv, row 6: 'normal' and 'dr'"
    assert any(note.startswith("2 labels ('dr|amd', 'normal; dr')") for note in listing.notes)
    assert "1 photographs have several findings, 1 of them no class." in listing.notes
    assert any(
        note.startswith("1 captions are the findings in words, such as 'amd, dr'")
        for note in listing.notes
    )


def test_an_empty_flag_is_not_rated_although_labels_list_other_findings(six):
    cells = [("dr|amd", "1"), ("dr", ""), ("normal", "0"), ("amd", ""), ("dr", "0"), ("amd", "1")]
    table_of(six, ["image", "label", "amd"], [[f"{i}", *cell] for i, cell in enumerate(cells)])
    flags = {
        key: row["amd"] for key, row in findings(generic.scan(six, finding_columns="amd")).items()
    }
    assert flags == {"0.jpg": 1, "1.jpg": -1, "2.jpg": 0, "3.jpg": 1, "4.jpg": 0, "5.jpg": 1}


@pytest.mark.parametrize("cells", [["1", "2", "1", "2", "2", "1"], ["1", "2", "3", "4", "2", ""]])
def test_a_named_column_of_numbers_without_0_is_refused(six, cells):
    table_of(six, ["image", "amd", "label"], [[f"{i}", cell, "x"] for i, cell in enumerate(cells)])
    with pytest.raises(ValueError, match="holds numbers above 0 and no 0"):
        generic.scan(six, finding_columns="amd")


def test_a_label_that_holds_the_name_of_a_finding_does_not_deny_it(tmp_path):
    cells = ["DR|AMD", "severe DR", "DR?", "no DR", "AMD", "双眼 青光眼", "青光眼", "drusen"]
    place(tmp_path, *(f"{index}.jpg" for index in range(8)))
    table_of(tmp_path, ["image", "label"], [[f"{i}", cell] for i, cell in enumerate(cells)])
    listing = generic.scan(tmp_path)
    rows = [findings(listing)[f"{index}.jpg"] for index in range(8)]
    assert [row["DR"] for row in rows] == [1, -1, -1, 0, 0, 0, 0, 0]
    assert [row["severe DR"] for row in rows] == [-1, 1, -1, 0, 0, 0, 0, 0]
    assert [row["青光眼"] for row in rows] == [0, 0, 0, 0, 0, -1, 1, 0]
    assert [row["AMD"] for row in rows] == [1, 0, 0, 0, 1, 0, 0, 0]
    said = " ".join(listing.notes)
    assert "1 photographs of 'severe DR' are not rated for 'DR', 'DR?': one" in said
    assert "'no DR' denies a finding" in said
    given = generic.scan(tmp_path, classes=",".join(sorted({*cells[1:], "DR"})))
    assert findings(given)["1.jpg"]["DR"] == 0


@pytest.mark.parametrize(
    ("finding", "mild"),
    [
        ("diabetic retinopathy", "non-proliferative diabetic retinopathy"),
        ("糖尿病视网膜病变", "非增殖性糖尿病视网膜病变"),
    ],
)
def test_a_form_of_a_disease_called_non_is_no_denial_of_it(six, finding, mild):
    rows = [["0", f"{finding}|amd"], ["1", mild], ["2", "amd"]]
    table_of(six, ["image", "label"], rows)
    listing = generic.scan(six)
    assert findings(listing)["1.jpg"][finding] == -1
    assert not any("denies" in note for note in listing.notes)


def test_given_classes_are_the_findings_in_their_order(six):
    table_of(six, ["image", "label"], [["0", "糖网、青光眼"], ["1", "青光眼"], ["2", "糖网"]])
    listing = generic.scan(six, classes="青光眼,白内障,糖网")
    assert findings(listing)["0.jpg"] == {"青光眼": 1, "白内障": 0, "糖网": 1}
    assert listing.items[0].caption == "青光眼、糖网"
    with pytest.raises(ValueError, match=r"t\.csv, row 2: the label '糖网' is none of the given"):
        generic.scan(six, classes="青光眼,白内障")


def test_numbers_in_a_list_are_named_by_given_classes(six):
    table_of(six, ["image", "label"], [["0", "[0, 2]"], ["1", "[1]"], ["2", "2"]])
    listing = generic.scan(six, classes="dr,amd,scar")
    assert findings(listing)["0.jpg"] == {"dr": 1, "amd": 0, "scar": 1}
    assert labels(listing) == {"0.jpg": None, "1.jpg": "amd", "2.jpg": "scar"}


def test_a_contradiction_alone_makes_no_findings(six):
    table_of(six, ["image", "label"], [["0", "normal|dr"], ["1", "dr"], ["2", "normal"]])
    listing = generic.scan(six)
    assert not listing.columns
    assert reasons(listing)["healthy with a disease"] == 1


@pytest.mark.parametrize("kind", ["cells", "columns"])
def test_findings_of_two_spellings_are_refused_merged_or_kept(six, kind):
    if kind == "cells":
        table_of(six, ["image", "label"], [["0", "DR|amd"], ["1", "dr"], ["2", "DR"]])
    else:
        table_of(six, ["image", "DR", "amd"], [["0", 1, 1], ["2", 1, 0]], "a.csv")
        table_of(six, ["image", "dr", "amd"], [["1", 1, 0]], "b.csv")
    with pytest.raises(ValueError, match=r"'DR' \(.*\.csv, row 2\) and 'dr' .*--spellings merge"):
        generic.scan(six)
    merged = findings(generic.scan(six, spellings="merge"))
    assert merged == {
        "0.jpg": {"DR": 1, "amd": 1},
        "1.jpg": {"DR": 1, "amd": 0},
        "2.jpg": {"DR": 1, "amd": 0},
    }
    assert set(findings(generic.scan(six, spellings="keep"))["0.jpg"]) == {"DR", "dr", "amd"}


def test_cells_that_become_one_class_by_merging_have_one(six):
    table_of(six, ["image", "label"], [["0", "DR|dr"], ["1", "dr"], ["2", "amd"]])
    listing = generic.scan(six, spellings="merge")
    assert labels(listing) == {"0.jpg": "dr", "1.jpg": "dr", "2.jpg": "amd"}
    assert not listing.columns
    table_of(six, ["image", "DR", "dr"], [["0", 1, 0], ["1", 1, ""], ["2", "", 1]])
    listing = generic.scan(six, spellings="merge")
    assert findings(listing) == {"1.jpg": {"DR": 1}, "2.jpg": {"DR": 1}}
    assert reasons(listing)["conflicting findings"] == 1


def test_given_classes_name_the_flags_too(six):
    table_of(six, ["image", "dr", "amd"], [["0", 1, 0], ["1", 0, 1], ["2", 1, 1]])
    listing = generic.scan(six, classes="AMD,DR", spellings="merge")
    assert listing.classes == ("AMD", "DR")
    assert labels(listing) == {"0.jpg": "DR", "1.jpg": "AMD", "2.jpg": None}
    assert findings(listing)["2.jpg"] == {"DR": 1, "AMD": 1}
    with pytest.raises(ValueError, match=r"the label 'dr' is none of the given classes \(x, amd\)"):
        generic.scan(six, classes="x,amd")
    table_of(six, ["image", "dr", "amd"], [["0", 1, 1]])
    with pytest.raises(ValueError, match=r"'DR' \(--classes\) and 'dr' \(t\.csv, row"):
        generic.scan(six, classes="DR,amd")


# --- Several rows of a photograph.


def test_rows_of_two_tables_complete_each_others_findings(six):
    table_of(six, ["image", "DR", "AMD"], [["0", 1, ""], ["1", 0, 0]], "a.csv")
    table_of(six, ["image", "AMD", "scar"], [["0", 1, 0], ["1", "", 1]], "b.csv")
    listing = generic.scan(six)
    assert findings(listing) == {
        "0.jpg": {"DR": 1, "AMD": 1, "scar": 0},
        "1.jpg": {"DR": 0, "AMD": 0, "scar": 1},
    }
    assert labels(listing) == {"0.jpg": None, "1.jpg": "scar"}
    assert set(reasons(listing)) == {"missing row"}


@pytest.mark.parametrize("tables", [1, 2])
def test_rows_that_contradict_each_other_are_all_rejected(six, tables):
    rows = [["0", 1, 0, 0], ["0", 1, 1, 0], ["1", 1, "", ""], ["1", "", "", 1]]
    header = ["image", "DR", "AMD", "normal"]
    if tables == 1:
        table_of(six, header, [*rows, ["2", 1, 0, 0], ["2", 1, "", ""]])
    else:
        table_of(six, header, rows[::2], "a.csv")
        table_of(six, header, rows[1::2], "b.csv")
    listing = generic.scan(six)
    said = {one.detail.partition(": ")[2] for one in listing.rejects if one.key == "0.jpg"}
    assert said == {"'AMD' is present and absent"}
    counts = reasons(listing)
    assert counts["conflicting findings"] == counts["healthy with a disease"] == 2
    assert counts.get("duplicate row", 0) == (1 if tables == 1 else 0)
    assert ("2.jpg" in findings(listing)) == (tables == 1)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("dr|amd", "amd;dr", ""),
        ("dr|amd", "", ""),
        ("dr|amd", "dr", "conflicting labels"),
        ("dr|amd", "dr|scar", "conflicting labels"),
    ],
)
def test_cells_of_one_photograph_agree_as_sets(six, one, other, reason):
    table_of(six, ["image", "label"], [["0", one], ["1", "dr|scar"], ["2", "scar"]], "a.csv")
    table_of(six, ["image", "label"], [["0", other]], "b.csv")
    listing = generic.scan(six)
    assert reasons(listing).get(reason, 0) == (2 if reason else 0)
    assert findings(listing).get("0.jpg") == (None if reason else {"amd": 1, "dr": 1, "scar": 0})


def test_a_column_of_labels_counts_before_flags_of_the_same_photographs(six):
    table_of(six, ["image", "label"], [["0", "2"], ["1", ""], ["2", "0"]], "grades.csv")
    rows = [["0", 1, 1], ["1", 1, 0], ["2", 0, 0], ["3", 0, 1]]
    table_of(six, ["image", "DR", "AMD"], rows, "flags.csv")
    listing = generic.scan(six)
    assert labels(listing) == {"0.jpg": "2", "1.jpg": None, "2.jpg": "0", "3.jpg": "AMD"}
    assert [item.caption for item in listing.items] == ["DR, AMD", "DR", "0", "AMD"]
    assert findings(listing)["1.jpg"] == {"DR": 1, "AMD": 0}


def test_a_table_of_labels_and_one_of_flags_may_be_splits(six):
    rows = [["0", "DR|AMD"], ["1", "DR"], ["2", "scar"]]
    table_of(six, ["image", "label"], rows, "train.csv")
    table_of(six, ["image", "DR", "AMD"], [["3", 1, ""], ["4", 1, 1], ["5", 0, 1]], "test.csv")
    listing = generic.scan(six)
    assert labels(listing) == {
        "0.jpg": None,
        "1.jpg": "DR",
        "2.jpg": "scar",
        "3.jpg": "DR",
        "4.jpg": None,
        "5.jpg": "AMD",
    }
    found = findings(listing)
    assert found["2.jpg"] == {"AMD": 0, "DR": 0, "scar": 1}
    assert found["3.jpg"] == {"AMD": -1, "DR": 1, "scar": -1}  # nobody asked for a scar
    assert set(splits(listing).values()) == {"train", "test"}


def test_labels_in_cells_and_flags_of_the_same_findings_must_agree(six):
    rows = [["0", "DR|AMD", 1, 1], ["1", "DR", 1, 1], ["2", "DR", 0, ""], ["3", "AMD", "", ""]]
    table_of(six, ["image", "label", "DR", "AMD"], rows)
    listing = generic.scan(six, finding_columns="DR,AMD")
    assert findings(listing) == {"0.jpg": {"AMD": 1, "DR": 1}, "3.jpg": {"AMD": 1, "DR": -1}}
    assert {one.key: one.detail for one in listing.rejects if "findings" in one.reason} == {
        "1.jpg": "t.csv, row 3: 'AMD' is present and absent",
        "2.jpg": "t.csv, row 4: 'DR' is the label and absent",
    }


def test_no_split_and_no_patient_depends_on_findings(six):
    header = ["image", "patient", "split", "DR", "AMD", "caption"]
    rows = [[f"{i}.jpg", i % 2, ["", "test"][i == 5], i % 2, 0, "text"] for i in range(6)]
    table_of(six, header, rows)
    plain, rated = generic.scan(six), generic.scan(six, finding_columns="DR,AMD")
    assert splits(plain) == splits(rated)
    assert [item.values for item in plain.items] == [item.values[:1] for item in rated.items]
    assert plain.warnings == rated.warnings


def test_labels_of_shards_may_be_several_by_their_names(tmp_path):
    members = {}
    for index, cell in enumerate(("[0, 2]", "1", "[2]")):
        members[f"{index}.jpg"], members[f"{index}.cls"] = b"x", cell.encode()
    tar(tmp_path / "a.tar", members)
    (tmp_path / "classnames.txt").write_text("dr\namd\nscar\n")
    listing = generic.scan(tmp_path)
    assert findings(listing)["0"] == {"dr": 1, "amd": 0, "scar": 1}
    assert labels(listing) == {"0": None, "1": "amd", "2": "scar"}


def test_shards_keep_patients_facts_and_findings(six):
    source, data = six / "source", six / "data"
    for index in range(6):
        save(source / f"{index}.jpg", photograph_of("fives_like", 0, index))
    rows = [
        [f"{i}.jpg", ("dr", "amd", "")[i % 3], f"P{i // 2}", "LR"[i % 2], 50 + i, 1, "", 0, "train"]
        for i in range(6)
    ]
    header = ["image", "label", "patient", "eye", "age", "dr", "scar/x", "amd", "split"]
    rows[1][5:8] = [0, 1, 1]
    rows[4][5:8] = [0, 0, 1]
    table_of(source, header, rows)
    listing = generic.scan(source, name="mine", finding_columns="dr,scar/x,amd")
    build.build(listing, data, workers=1)
    main(["export", "mine", "--data-dir", str(data), "--out", str(six / "shards")])
    again = generic.scan(six / "shards", name="again")
    build.build(again, data, workers=1)
    first, second = (
        {record["key"]: record for record in open_source(name, data, "train")}
        for name in ("mine", "again")
    )
    assert len(first) == len(listing.items) > 3
    for key, record in first.items():
        for what in ("caption", "patient", "facts", "findings"):
            assert second[key][what] == record[what], what


# --- Any table of labels.

CLASSES = ("dr", "amd", "glaucoma", "scar", "normal", "糖网", "x:y", "a/b")
JOIN = {
    "|": "|".join,
    ";": " ; ".join,
    "json": lambda names: json.dumps(names, ensure_ascii=False) if names else "",
    "python": lambda names: repr(names) if names else "",
}
CELLS = st.lists(st.sampled_from(CLASSES), max_size=3, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CELLS, min_size=1, max_size=10), st.sampled_from(sorted(JOIN)))
def test_any_table_of_labels_comes_out_as_it_went_in(tmp_path_factory, rows, notation):
    folder = tmp_path_factory.mktemp("several")
    keys = [f"{index}.jpg" for index in range(len(rows))]
    place(folder, *keys)
    cells = [[key, JOIN[notation](names)] for key, names in zip(keys, rows, strict=True)]
    table_of(folder, ["image", "label"], cells)
    listing = generic.scan(folder)
    ill = [len(names) > 1 and "normal" in names for names in rows]
    usable = {key: names for key, names, bad in zip(keys, rows, ill, strict=True) if not bad}
    known = sorted({name for names in usable.values() for name in names})
    several = any(len(names) > 1 for names in usable.values())
    expected = {}
    for key, names in usable.items():
        if names:
            present = [name for name in known if name in names]
            chinese = any(mark >= "\u4e00" for name in present for mark in name)
            flags = {name.replace("/", "／"): int(name in names) for name in known}
            expected[key] = (
                names[0] if len(names) == 1 else None,
                ("、" if chinese else ", ").join(present),
                flags if several else {},
                split_by_hash(key),
            )
    found, said, of = findings(listing), labels(listing), splits(listing)
    assert {
        item.key: (said[item.key], item.caption, found.get(item.key, {}), of[item.key])
        for item in listing.items
    } == expected
    silent = "no label" if any(rows) else "neither caption nor label"
    assert {one.key: one.reason for one in listing.rejects} == {
        key: "healthy with a disease" if bad else silent
        for key, names, bad in zip(keys, rows, ill, strict=True)
        if bad or not names
    }
    assert tuple(listing.classes) == tuple(known)


def test_a_dataset_of_one_label_is_what_it_was(tmp_path):
    """The digest that the records of the fixture had before findings were known."""
    fixture.write(tmp_path)
    listing = generic.scan(tmp_path)
    assert not listing.columns
    digest = "d7093b54a40251e5abbd79335cd93a58d0975ce5d2c0850a17d684c55c63bcde"
    assert build._content(listing) == digest


# --- Built.


NAMES = ["DR/DME", "x:y", "两\n行", "糖网", "n" * 900, "a|b", "%s {x}", "patient id", "label"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder of eight photographs and a table of flags with strange names."""
    folder = tmp_path_factory.mktemp("mine")
    for index in range(8):
        image = np.full((48, 48, 3), 20 * min(index, 6), np.uint8)  # 6 and 7 are the same
        (folder / f"{index}.jpg").write_bytes(jpeg(image))
    rows = [[1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0, ""], [0] * 9]
    rows += [[0, 0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0]]
    rows += [[0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0, 0]]
    cells = [[f"{index}.jpg", "test", *row] for index, row in enumerate(rows)]
    table_of(folder, ["image", "split", *NAMES], cells)
    return folder


STORED = [" ".join(name.split("\n")).replace("/", "／") for name in NAMES]
OPTIONS = ["--finding-columns", ",".join(f'"{name}"' for name in NAMES if name != "两\n行")]


def test_strange_names_of_findings_are_stored_and_read_back(mine, tmp_path):
    quoted = ",".join(f'"{name}"' for name in NAMES)
    listing = generic.scan(mine, name="mine", finding_columns=quoted)
    assert not listing.rejects
    assert sum("is stored as" in note for note in listing.notes) == 1
    build.build(listing, tmp_path, workers=1)
    source = open_source("mine", tmp_path, "test")
    assert source.finding_names == tuple(sorted(STORED))
    expected = findings(listing)
    assert {record["key"]: record["findings"] for record in source} == expected
    rows = {row["key"].decode(): row["findings"] for row in tfds_rows(tmp_path)}
    assert {key: {n: int(f) for n, f in row.items()} for key, row in rows.items()} == expected


def tfds_rows(folder):
    return open_builder("mine", folder).as_data_source("test")


def test_the_build_the_card_and_show_count_findings(mine, tmp_path, capsys):
    data = str(tmp_path / "data")
    command = ["build", "generic", "--source", str(mine), "--name", "mine", "--data-dir", data]
    assert main([*command, *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert "findings: DR／DME 2, x:y 1, 糖网 1, " in printed
    assert "photographs with several findings: 2" in printed
    assert "warning: 1 photographs occur twice with different classes or findings" in printed
    folder = tmp_path / "data/mine/512px-q92/2.0.0"
    card = json.loads((folder / "card.json").read_text())
    assert card["findings"]["several"] == 2
    assert card["findings"]["counts"]["label"] == {"present": 0, "absent": 7, "not rated": 1}
    page = (folder / "card.md").read_text()
    assert "| DR／DME | 2 | 6 | 0 |" in page
    assert r"| a\|b | 2 | 6 | 0 |" in page
    assert "- photographs with several findings: 2" in page
    assert main(["show", "mine", "--data-dir", data]) == 0
    assert "finding DR／DME: 2" in capsys.readouterr().out


def test_an_anonymous_dataset_keeps_its_findings(mine, tmp_path):
    listing = generic.scan(mine, name="mine", finding_columns=OPTIONS[1])
    hidden = anonymous(listing, b"secret")
    assert hidden.columns == listing.columns
    assert sorted(i.values for i in hidden.items) == sorted(i.values for i in listing.items)
    folder = build.build(listing, tmp_path, Storage(anonymous=True), workers=1)
    assert "photographs with several findings: 2" in (folder / "card.md").read_text()
    records = open_source("mine", tmp_path, "test")
    assert sum(record["findings"]["DR／DME"] for record in records) == 2
