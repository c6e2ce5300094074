"""The audit: the counts that it prints, and the pairs and the page that it writes."""

import csv
import re

import numpy as np
import pytest

from vclip_jax.audit import findings as audit
from vclip_jax.audit import near_duplicates
from vclip_jax.audit.near_duplicates import compare
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.fixtures.pictures import photograph_of, save
from vclip_jax.datasets.ingest.build import build as build_files
from vclip_jax.datasets.own import generic
from vclip_jax.datasets.synthetic.builder import build

from .photographs import Model, entry, jpeg


def test_the_table_counts_what_was_left_out(sources):
    a, b = sources
    black = entry(jpeg(np.zeros((64, 64, 3), np.uint8)), "black")
    bad = [black, entry(b"junk", "junk"), entry(a[0]["image"][:900], "half")]
    printed = audit.table(compare([*a, *bad], b), "x:train", "y:test")
    assert "A  x:train: 8 pictures compared, 2 damaged, 1 blank" in printed
    assert "damaged in A: junk, half" in printed


def test_the_table_of_an_empty_source_has_no_pairs(sources):
    for pair in ((sources[0], []), ([], sources[1]), ([], [])):
        assert "0.00 %" in audit.table(compare(*pair, model=Model()), "a", "b")


def test_the_table_says_how_many_of_the_pairs_are_listed(sources, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_SIMILAR", 4)
    assert "listed: 6" in audit.table(compare(*sources, model=Model(), cosine=-1), "a", "b")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("synfundus_like", 64, 24, 0, folder, workers=1)
    build("messidor_like", 64, 4, 0, folder, workers=1)
    return str(folder)


SETS = ["synthetic/synfundus_like-64px-24-s0", "synthetic/messidor_like-64px-4-s0"]


def test_the_command_prints_counts_and_writes_pairs(data_dir, tmp_path, capsys):
    wide = ["--data-dir", data_dir, "--distance", "256", "--workers", "2", "--out", str(tmp_path)]
    assert main(["audit", *SETS, *wide]) == 0
    printed = capsys.readouterr()
    assert re.search(r"B  \S+messidor_like-64px-4-s0:test: 4 pictures compared", printed.out)
    assert re.search(r"by hash, distance <= 256 +\d+ +4 +100.00 %", printed.out)
    with open(tmp_path / "audit.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key_a", "key_b", "kind", "distance", "cosine", "mirrored"]
    distances = [int(row["distance"]) for row in rows]
    assert distances == sorted(distances)
    assert {row["cosine"] for row in rows} == {""}
    page = (tmp_path / "audit.html").read_text()
    shown = min(len(rows), audit.MAX_SHOWN)
    assert page.count("data:image/jpeg;base64,") == 2 * shown
    assert f"Shown: all {shown}." in page


def test_one_split_is_compared_with_itself(data_dir, capsys):
    command = ["audit", SETS[1], SETS[1], "--split-a", "test", "--data-dir", data_dir]
    assert main([*command, "--distance", "256"]) == 0
    assert re.search(r"by hash, distance <= 256 +6 +4 ", capsys.readouterr().out)


def test_patients_in_both_splits_of_a_dataset_are_counted(tmp_path, capsys):
    source, rows = tmp_path / "source", ["image,label,patient,split"]
    for index, whose in enumerate(["1,train", "1,test", "2,test", "3,train", ",test"]):
        save(source / f"{index}.jpg", photograph_of("fives_like", 0, index))
        rows.append(f"{index}.jpg,dr,{whose}")
    (source / "t.csv").write_text("\n".join(rows))
    build_files(generic.scan(source, name="mine"), tmp_path / "data", workers=1)
    command = ["audit", "mine", "mine", "--data-dir", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path)]) == 0
    said = "1 of the 2 patients of B also have photographs in A"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "audit.html").read_text()
    assert main([*command, "--split-a", "test"]) == 0
    assert "patients" not in capsys.readouterr().out


def test_a_checkpoint_adds_cosines(data_dir, portable_folder, tmp_path, capsys):
    command = ["audit", SETS[1], SETS[1], "--split-a", "test", "--data-dir", data_dir]
    more = ["--model", str(portable_folder), "--cosine", "-1", "--out", str(tmp_path)]
    assert main([*command, *more]) == 0
    assert re.search(r"by embedding, cosine >= -1 +6 +4 ", capsys.readouterr().out)
    with open(tmp_path / "audit.csv", newline="") as file:
        assert all(-1 <= float(row["cosine"]) <= 1 for row in csv.DictReader(file))


def test_an_unknown_split_is_one_line(data_dir, capsys):
    assert main(["audit", *SETS, "--split-a", "holdout", "--data-dir", data_dir]) == 1
    assert "no split 'holdout'" in capsys.readouterr().err.splitlines()[-1]


def test_the_page_says_how_many_pairs_it_does_not_show(sources, monkeypatch):
    monkeypatch.setattr(audit, "MAX_SHOWN", 1)
    a, b = sources
    b = [*b, entry(a[1]["image"], "<b>&")]
    result = compare(a, b)
    page = audit.render(result, a, b, "x:train", "y:test")
    assert page.count("<figure>") == 1
    assert "Shown: the closest 1 of 3. Not shown, but in\naudit.csv: 2." in page
    monkeypatch.setattr(audit, "MAX_SHOWN", 9)
    page = audit.render(result, a, b, "x:train", "y:test")
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)|<script|url\(", page)


def test_keys_in_the_pairs_are_one_cell_each_and_no_formula(sources, tmp_path):
    a, b = sources
    keys = ["=1+1", "@a\nb", "a,b"]
    a = [record | {"key": key} for record, key in zip(a, keys, strict=False)]
    audit.write_csv(compare(a, b, distance=256), tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["key_a"] for row in rows} <= {"'=1+1", "'@a\nb", "a,b"}
    assert {row["key_b"] for row in rows} <= {record["key"] for record in b}
