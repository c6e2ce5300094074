"""The comparison of systems that share images."""

from dataclasses import replace

import numpy as np
import pytest

from vclip_jax.evaluation.metrics import bootstrap, paired, predictions
from vclip_jax.evaluation.metrics.predictions import Predictions, Rows, predictions_of

CLASSES = ("no glaucoma", "glaucoma")


def system(
    seed: int, n: int = 60, skill: float = 1.0, dataset: str = "refuge", patients=()
) -> Predictions:
    """Labels are those of the image, whatever the seed."""
    labels = (np.arange(n) * 7 % 3 == 0).astype(np.int32)
    logits = np.random.default_rng(seed).standard_normal((n, 2)) + skill * np.eye(2)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = Rows(dataset, tuple(f"g{i:04}" for i in range(n)), tuple(patients))
    return predictions_of(rows, labels, scores, CLASSES)


def rows(system: Predictions, which) -> Predictions:
    order = np.arange(len(system.labels))[which].tolist()
    named = Rows(
        system.rows.dataset,
        tuple(system.rows.keys[i] for i in order),
        tuple(system.rows.patients[i] for i in order) if system.rows.patients else (),
    )
    return predictions_of(named, system.labels[order], system.probabilities[order], system.classes)


def test_patients_are_drawn_together_whichever_side_knows_them():
    known = system(0, patients=(f"p{i // 4}" for i in range(60)))
    other, patients = system(1, skill=2.0), known.patients
    order = np.argsort(known.hash)
    want = bootstrap.paired_test(
        *(s.probabilities[order] for s in (known, other)),
        known.labels[order],
        patients=patients[order],
    )
    shuffled = rows(known, np.random.default_rng(0).permutation(60))
    found = paired.compare(shuffled, other)
    assert (found["tests"], found["unit"], found["units"]) == (want, "patient", 15)
    swapped = paired.compare(other, known)
    assert swapped["units"] == 15
    assert swapped["tests"]["auc"]["difference"] == -want["auc"]["difference"]
    assert paired.compare(system(0), other, resamples=9)["unit"] == "image"


def test_images_are_matched_whatever_their_order():
    first, second = system(0), system(1, skill=2.0)
    want = bootstrap.paired_test(
        *(s.probabilities[np.argsort(s.hash)] for s in (first, second)),
        first.labels[np.argsort(first.hash)],
    )
    found = paired.compare(first, rows(second, np.random.default_rng(0).permutation(60)))
    assert found["tests"] == want
    assert (found["n"], found["only_first"], found["only_second"]) == (60, 0, 0)


def test_only_images_that_both_have_count():
    found = paired.compare(
        rows(system(0), slice(0, 50)), rows(system(1), slice(20, 60)), resamples=100
    )
    assert (found["n"], found["only_first"], found["only_second"]) == (30, 20, 10)


def test_what_cannot_be_compared_is_refused():
    good = system(0)
    other = replace(good, classes=("a", "b"))
    with pytest.raises(ValueError, match="classes differ"):
        paired.compare(good, other)
    with pytest.raises(ValueError, match="no image in common"):
        paired.compare(good, system(0, dataset="acrima"))
    wrong = replace(good, labels=1 - good.labels)
    with pytest.raises(ValueError, match="60 of their 60 common images have different labels"):
        paired.compare(good, wrong)


def test_every_two_are_compared_where_both_have_answers(tmp_path):
    systems = {"a": system(0), "b": system(1), "c": system(1, dataset="acrima")}
    files = {name: predictions.path_of(tmp_path / name, "refuge") for name in (*systems, "d", "e")}
    for name, one in systems.items():
        predictions.save(files[name], one)
    predictions.save(files["e"], system(2))
    files["e"].write_text("no archive")
    found, notices = paired.compare_each(files, "refuge", resamples=100)
    assert [(row["first"], row["second"]) for row in found] == [("a", "b")]
    assert found[0]["tests"] == paired.compare(system(0), system(1), resamples=100)["tests"]
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
    found, notices = paired.compare_systems(tmp_path, [*systems, "bad", "missing"])
    assert [(row["first"], row["second"]) for row in found] == [("zh", "en")]
    assert len(notices) == 1
    assert "bad.csv" in notices[0]
