"""Answers on disk: a table that people and programs read, and files of earlier versions."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import predictions
from vclip_jax.evaluation.metrics.predictions import Rows, predictions_of

CLASSES = ("no glaucoma", "glaucoma")


def system(n: int = 60, *, ordered: bool = False, **rows):
    labels = (np.arange(n) * 7 % 3 == 0).astype(np.int32)
    logits = np.random.default_rng(0).standard_normal((n, 2)) + np.eye(2)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = {"dataset": "refuge", "keys": tuple(f"g{i:04}" for i in range(n))} | rows
    return predictions_of(Rows(**rows), labels, scores, CLASSES, ordered=ordered)


def same(found, saved):
    for name in ("hash", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(saved, name))
        assert getattr(found, name).dtype == getattr(saved, name).dtype
    for name in ("classes", "ordered", "rows", "gate"):
        assert getattr(found, name) == getattr(saved, name)
    assert (found.patients is None) == (saved.patients is None)
    if found.patients is not None:
        np.testing.assert_array_equal(found.patients, saved.patients)


def test_a_file_gives_back_what_was_saved_in_little_space(tmp_path):
    saved = system(2000)
    path = predictions.path_of(tmp_path, "a/b 糖 c:d")
    predictions.save(path, saved)
    same(predictions.load(path), saved)
    assert path.stat().length < 80 * 2000
    assert path.parent == predictions.path_of(tmp_path, "x").parent  # a name makes no folder
    assert [p.name for p in path.parent.iterdir()] == [path.name]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(TEXT, min_size=1, max_size=6, unique=True),
    st.lists(TEXT, min_size=2, max_size=4, unique=True),
    st.data(),
)
def test_any_names_come_back(tmp_path_factory, keys, classes, data):
    keys = [key for key in keys if not key.startswith("'")] or ["k"]

    def column():
        return data.draw(st.tuples(*[TEXT.filter(lambda t: not t.startswith("'"))] * len(keys)))

    rows = Rows("d/1", tuple(keys), column(), {"sex": column(), "camera": column()})
    scores = np.random.default_rng(0).random((len(keys), len(classes)))
    labels = np.arange(len(keys)) % len(classes)
    gate = data.draw(st.sampled_from(((), ("too dark; out of focus",) * len(keys))))
    for ordered in (True, False):
        saved = predictions_of(rows, labels, scores, classes, ordered=ordered, gate=gate)
        path = predictions.path_of(tmp_path_factory.mktemp("p"), "x")
        predictions.save(path, saved)
        found = predictions.load(path)
        if not any(rows.patients):
            saved = replace(saved, rows=replace(rows, patients=found.rows.patients))
        same(found, saved)


def test_the_table_is_what_its_page_says(tmp_path):
    rows = {"patients": ("p1", "p1", ""), "facts": {"sex": ("f", "f", "m")}}
    saved = replace(
        system(3, ordered=True, keys=("a", "=b", "c"), **rows), gate=("", "too dark", "")
    )
    path = predictions.path_of(tmp_path, "x")
    predictions.save(path, saved)
    with open(path, newline="", encoding="utf-8") as file:
        header, first, second, _ = csv.reader(file)
    assert header == [
        *("dataset", "key", "patient", "label", "answer", "gate"),
        *("p0:no glaucoma", "p1:glaucoma", "sex"),
    ]
    assert first[:6] == [
        "refuge",
        "a",
        "p1",
        "glaucoma",
        CLASSES[saved.probabilities[0].argmax()],
        "",
    ]
    assert second[1] == "'=b"  # no spreadsheet runs it
    assert second[5] == "too dark"
    assert np.float32(first[6]) == saved.probabilities[0, 0]


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    saved = system(patients=tuple(f"p{i // 4}" for i in range(60)))
    path = predictions.path_of(tmp_path, "x")
    path.parent.mkdir(parents=True)
    arrays = {
        name: getattr(saved, name) for name in ("hash", "labels", "probabilities", "patients")
    }
    np.savez_compressed(
        path.with_suffix(".npz"), classes=np.array(CLASSES), ordered=False, **arrays
    )
    found = predictions.load(path)
    same(replace(found, rows=saved.rows), saved)
    assert found.rows is None
    with pytest.raises(ValueError, match="without the images' keys"):
        predictions.save(path, found)
    predictions.save(path, system(5))
    assert len(predictions.load(path).labels) == 5  # the newer file counts


def test_hashes_tell_images_and_datasets_apart_whoever_computes_them():
    one, other = (predictions.hash_keys(name, ["a", "b"]) for name in ("fives", "idrid"))
    assert one.dtype == np.uint64
    assert len({*one.tolist(), *other.tolist()}) == 4
    assert predictions.hash_keys("fives", iter(["a", "b"])).tolist() == one.tolist()
    assert predictions.hash_keys("fives", []).shape == (0,)


def test_an_image_without_a_patient_is_a_patient_of_its_own():
    people = ["p1", "p1", "", "", "p2"]
    records = [{"key": f"k{i}", "patient": one} for i, one in enumerate(people)]
    rows = predictions.rows_of(records, "odir")
    assert rows.hash.tolist() == predictions.hash_keys("odir", [f"k{i}" for i in range(5)]).tolist()
    _, numbers = np.unique(rows.people, return_inverse=True)
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 4
    assert predictions.rows_of([{"key": "a", "patient": ""}], "odir").people is None
    assert predictions.rows_of([{"key": "a"}], "odir").people is None


def test_facts_are_columns_and_unknown_ones_empty():
    records = [{"key": "a", "facts": {"camera": "x", "eye": "left"}}, {"key": "b"}]
    rows = predictions.rows_of(records, "mine")
    assert rows.facts == {"eye": ("left", ""), "camera": ("x", "")}
    assert rows.only(np.array([False, True])).facts == {"eye": ("",), "camera": ("",)}


def test_a_secret_hides_names_and_keeps_who_is_who():
    rows = Rows("d", ("a", "b", "c"), ("p", "p", ""), {"sex": ("f", "m", "")})
    hidden = rows.hidden(b"secret")
    assert hidden == rows.hidden(b"secret")
    assert not {*hidden.keys, *hidden.patients} & {*rows.keys, *rows.hidden(b"other").keys, "p"}
    assert hidden.patients[0] == hidden.patients[1] != hidden.patients[2] == ""
    assert len(set(hidden.keys)) == 3
    assert hidden.facts == rows.facts
    with pytest.raises(ValueError, match="secret is empty"):
        rows.hidden(b"")


def rewritten(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text[:-20], "another number of cells|could not convert"),
        (lambda text: "no table", "columns are not those"),
        (lambda text: "", "could not be read"),
        (lambda text: text.replace("refuge", "other", 1), "one dataset"),
        (lambda text: text.replace(",glaucoma,", ",cataract,", 1), "'cataract' has no column"),
        (lambda text: text.replace("p:no glaucoma", "key", 1), "columns are not those"),
        (lambda text: text.replace("refuge,g0001", 'refuge,"g0001', 1), "could not be read"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, change, match):
    path = predictions.path_of(tmp_path, "x")
    predictions.save(path, system())
    rewritten(path, change)
    with pytest.raises(ValueError, match=match) as error:
        predictions.load(path)
    assert "x.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "shapes", "patients"])
def test_a_damaged_file_of_an_earlier_version_is_refused_in_one_line(tmp_path, damage):
    saved = system()
    path = predictions.path_of(tmp_path, "x").with_suffix(".npz")
    path.parent.mkdir(parents=True)
    arrays = {"hash": saved.hash, "labels": saved.labels, "probabilities": saved.probabilities}
    arrays |= {
        "shapes": {"labels": saved.labels[1:]},
        "patients": {"patients": saved.hash[1:]},
    }.get(damage, {})
    np.savez_compressed(path, classes=np.array(CLASSES), ordered=False, **arrays)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"x\.npz") as error:
        predictions.load(predictions.path_of(tmp_path, "x"))
    assert "\n" not in str(error.value)
