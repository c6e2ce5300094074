"""Answers on disk, and the comparison of systems that share images."""

from dataclasses import replace

import numpy as np
import pytest

from vclip_jax.evaluation.metrics import bootstrap, predictions
from vclip_jax.evaluation.metrics.predictions import Predictions

CLASSES = ("no glaucoma", "glaucoma")


def system(seed: int, n: int = 60, skill: float = 1.0, dataset: str = "refuge") -> Predictions:
    """Labels are those of the image, whatever the seed."""
    labels = (np.arange(n) * 7 % 3 == 0).astype(np.int32)
    logits = np.random.default_rng(seed).standard_normal((n, 2)) + skill * np.eye(2)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hashes = predictions.hash_keys(dataset, (f"g{i:04}" for i in range(n)))
    return Predictions(hashes, labels, scores.astype(np.float32), CLASSES)


def rows(system: Predictions, which) -> Predictions:
    return Predictions(
        system.hash[which],
        system.labels[which],
        system.probabilities[which],
        system.classes,
        patients=None if system.patients is None else system.patients[which],
    )


def test_a_file_gives_back_what_was_saved_in_little_space(tmp_path):
    saved = system(0, n=2000)
    path = predictions.path_of(tmp_path, "a/b 糖 c:d")
    predictions.save(path, saved)
    found = predictions.load(path)
    for name in ("hash", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(saved, name))
        assert getattr(found, name).dtype == getattr(saved, name).dtype
    assert found.classes == CLASSES
    assert path.stat().length < 20 * 2000
    assert path.parent == predictions.path_of(tmp_path, "x").parent  # a name makes no folder
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with np.load(path) as file:
        assert sorted(file) == ["classes", "hash", "labels", "ordered", "probabilities"]


def test_hashes_tell_images_and_datasets_apart_whoever_computes_them():
    one, other = (predictions.hash_keys(name, ["a", "b"]) for name in ("fives", "idrid"))
    assert one.dtype == np.uint64
    assert len({*one.tolist(), *other.tolist()}) == 4
    assert predictions.hash_keys("fives", iter(["a", "b"])).tolist() == one.tolist()
    assert predictions.hash_keys("fives", []).shape == (0,)


def test_patients_are_kept_and_drawn_together_whichever_side_knows_them(tmp_path):
    patients = (np.arange(60) // 4).astype(np.uint64)
    known, other = replace(system(0), patients=patients), system(1, skill=2.0)
    path = predictions.path_of(tmp_path, "x")
    predictions.save(path, known)
    np.testing.assert_array_equal(predictions.load(path).patients, patients)
    order = np.argsort(known.hash)
    want = bootstrap.paired_test(
        *(s.probabilities[order] for s in (known, other)),
        known.labels[order],
        patients=patients[order],
    )
    shuffled = rows(known, np.random.default_rng(0).permutation(60))
    found = predictions.compare(shuffled, other)
    assert (found["tests"], found["unit"], found["units"]) == (want, "patient", 15)
    swapped = predictions.compare(other, known)
    assert swapped["units"] == 15
    assert swapped["tests"]["auc"]["difference"] == -want["auc"]["difference"]
    assert predictions.compare(system(0), other, resamples=9)["unit"] == "image"


def test_an_image_without_a_patient_is_a_patient_of_its_own():
    people = ["p1", "p1", "", "", "p2"]
    records = [{"key": f"k{i}", "patient": one} for i, one in enumerate(people)]
    keys, patients = predictions.identities(records, "odir")
    assert keys.tolist() == predictions.hash_keys("odir", ["k0", "k1", "k2", "k3", "k4"]).tolist()
    _, numbers = np.unique(patients, return_inverse=True)
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 4
    assert predictions.identities([{"key": "a", "patient": ""}], "odir")[1] is None
    assert predictions.identities([{"key": "a"}], "odir")[1] is None


@pytest.mark.parametrize("damage", ["truncated", "text", "shapes", "patients"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    path = predictions.path_of(tmp_path, "x")
    predictions.save(path, system(0))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "patients":
        predictions.save(path, replace(system(0), patients=np.arange(59, dtype=np.uint64)))
    else:
        bad = system(0)
        predictions.save(path, Predictions(bad.hash[1:], bad.labels, bad.probabilities, CLASSES))
    with pytest.raises(ValueError, match=r"x\.npz") as error:
        predictions.load(path)
    assert "\n" not in str(error.value)


def test_images_are_matched_whatever_their_order():
    first, second = system(0), system(1, skill=2.0)
    want = bootstrap.paired_test(
        *(s.probabilities[np.argsort(s.hash)] for s in (first, second)),
        first.labels[np.argsort(first.hash)],
    )
    found = predictions.compare(first, rows(second, np.random.default_rng(0).permutation(60)))
    assert found["tests"] == want
    assert (found["n"], found["only_first"], found["only_second"]) == (60, 0, 0)


def test_only_images_that_both_have_count():
    found = predictions.compare(
        rows(system(0), slice(0, 50)), rows(system(1), slice(20, 60)), resamples=100
    )
    assert (found["n"], found["only_first"], found["only_second"]) == (30, 20, 10)


def test_what_cannot_be_compared_is_refused():
    good = system(0)
    other = Predictions(good.hash, good.labels, good.probabilities, ("a", "b"))
    with pytest.raises(ValueError, match="classes differ"):
        predictions.compare(good, other)
    with pytest.raises(ValueError, match="no image in common"):
        predictions.compare(good, system(0, dataset="acrima"))
    wrong = Predictions(good.hash, 1 - good.labels, good.probabilities, CLASSES)
    with pytest.raises(ValueError, match="60 of their 60 common images have different labels"):
        predictions.compare(good, wrong)


def test_every_two_are_compared_where_both_have_answers(tmp_path):
    systems = {"a": system(0), "b": system(1), "c": system(1, dataset="acrima")}
    files = {name: predictions.path_of(tmp_path / name, "refuge") for name in (*systems, "d", "e")}
    for name, one in systems.items():
        predictions.save(files[name], one)
    predictions.save(files["e"], system(2))
    files["e"].write_text("no archive")
    found, notices = predictions.compare_each(files, "refuge", resamples=100)
    assert [(row["first"], row["second"]) for row in found] == [("a", "b")]
    assert found[0]["tests"] == predictions.compare(system(0), system(1), resamples=100)["tests"]
    assert notices[0] == f"d is not compared on refuge: there is no {files['d']}."
    assert "e is not compared on refuge: " in notices[1]
    assert notices[2:] == [
        f"{name} is not compared with c on refuge: they have no image in common." for name in "ab"
    ]


def test_systems_of_one_run_are_compared_if_they_share_all_images_and_classes(tmp_path):
    systems = {
        "zh": system(0),
        "en": system(1),
        "part": rows(system(2), slice(0, 40)),
        "else": system(3, dataset="acrima"),
    }
    for name, one in systems.items():
        predictions.save(predictions.path_of(tmp_path, name), one)
    predictions.path_of(tmp_path, "bad").write_text("x")
    found, notices = predictions.compare_systems(tmp_path, [*systems, "bad", "missing"])
    assert [(row["first"], row["second"]) for row in found] == [("zh", "en")]
    assert len(notices) == 1
    assert "bad.npz" in notices[0]
