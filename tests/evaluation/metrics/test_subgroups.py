"""Figures by group: planted effects are found, and chance is not taken for one."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import bootstrap, classification
from vclip_jax.evaluation.metrics.subgroups import (
    FIGURES,
    OVER_CLASSES,
    SMALL,
    by_fact,
    by_group,
    groups_of,
    holm,
    permutation_test,
)


def clinic(seed: int, patients: int = 200, images: int = 1, effect: float = 0.0):
    """Answers, labels, cameras and patients; one camera has worse answers by `effect`.

    The cameras also differ in the share of the ill, which is no fault of the model.
    """
    rng = np.random.default_rng(seed)
    camera = rng.integers(0, 3, patients)
    labels = (rng.random(patients) < 0.3 + 0.15 * camera).astype(int)
    skill = 1.6 - effect * (camera == 2)
    person = rng.normal(size=patients)
    camera, labels, skill, person = (
        np.repeat(part, images) for part in (camera, labels, skill, person)
    )
    scores = skill * labels + np.sqrt(0.8) * person + np.sqrt(0.2) * rng.normal(size=len(labels))
    positive = 1 / (1 + np.exp(0.8 - scores))
    names = [f"camera {one}" for one in camera]
    return (
        np.stack([1 - positive, positive], 1),
        labels,
        names,
        np.repeat(np.arange(patients), images),
    )


def test_a_planted_camera_effect_is_found_in_every_seed():
    for seed in range(20):
        answers, labels, cameras, _ = clinic(seed, patients=600, effect=1.5)
        assert permutation_test(answers, labels, cameras, permutations=200) < 0.05, seed


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 3])
def test_without_an_effect_p_is_uniform(images):
    p = []
    for seed in range(200):
        answers, labels, cameras, patients = clinic(seed, patients=150, images=images)
        p.append(
            permutation_test(
                answers, labels, cameras, patients=patients, permutations=199, seed=seed
            )
        )
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    # Images of a patient are no evidence of their own.
    assert np.mean(np.array(p) < 0.05) < 0.1


@pytest.mark.slow
def test_eyes_of_one_patient_change_sides_in_the_test():
    p = []
    for seed in range(200):
        answers, labels, _, patients = clinic(seed, patients=150, images=2)
        sides = ["left", "right"] * 150
        p.append(
            permutation_test(answers, labels, sides, patients=patients, permutations=199, seed=seed)
        )
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_the_figures_of_a_group_are_those_of_its_images_alone():
    answers, labels, cameras, patients = clinic(1, images=2)
    found = by_group(answers, labels, cameras, patients=patients, resamples=300, permutations=20)
    assert [row["group"] for row in found["groups"]] == ["camera 0", "camera 1", "camera 2"]
    assert sum(row["n"] for row in found["groups"]) == found["n"] == 400
    for row in found["groups"]:
        here = np.array(cameras) == row["group"]
        want = classification.classification(answers[here], labels[here])
        others = classification.classification(answers[~here], labels[~here])
        for key in ("auc", "balanced_accuracy", "accuracy", "ece"):
            assert row[key] == want[key]
            assert row[f"{key}_gap"] == pytest.approx(want[key] - others[key])
        low, high = row["auc_gap_ci95"]
        assert low < row["auc_gap"] < high
        assert row["patients"] == row["n"] / 2
        alone = bootstrap.classification(
            answers[here], labels[here], patients=patients[here], resamples=300
        )
        assert np.diff(row["auc_ci95"]) == pytest.approx(np.diff(alone["auc_ci95"]), rel=0.25)


def test_small_groups_are_shown_and_stay_out_of_the_test():
    answers, labels, cameras, _ = clinic(2)
    rare = ["rare" if i < SMALL - 1 else name for i, name in enumerate(cameras)]
    rows = by_group(answers, labels, rare, resamples=50, permutations=50)["groups"]
    assert {row["group"]: row["small"] for row in rows}["rare"]
    assert not rows[0]["small"]
    without = ["" if name == "rare" else name for name in rare]
    p = (permutation_test(answers, labels, names, permutations=50) for names in (rare, without))
    assert next(p) == next(p)


def test_one_group_or_one_class_has_no_test_and_no_gap():
    answers, labels, _, _ = clinic(3)
    found = by_group(answers, labels, ["all"] * 200, resamples=50, permutations=10)
    assert found["p"] is None
    assert found["groups"][0]["auc_gap"] is None
    assert found["groups"][0]["auc_ci95"] is not None
    names = ["ill" if label else "well" for label in labels]
    by_label = by_group(answers, labels, names, resamples=50, permutations=10)
    assert by_label["p"] is None
    assert by_label["groups"][0]["auc"] is None
    assert by_label["groups"][0]["accuracy_gap"] is not None


def test_images_without_a_value_are_left_out():
    answers, labels, cameras, _ = clinic(4)
    some = [name if i % 4 else "" for i, name in enumerate(cameras)]
    assert by_group(answers, labels, some, resamples=20, permutations=10)["n"] == 150
    with pytest.raises(ValueError, match="expected a group for each of 200 images, got 3"):
        by_group(answers, labels, ["a"] * 3)


def test_numbers_become_ranges_and_few_numbers_stay():
    ages = groups_of([39, 40.0, "59", "60", 74.5, 75, "", -1, None], "age")
    assert ages[:4] == ["under 40", "40 to 59", "40 to 59", "60 to 74"]
    assert ages[4:] == ["60 to 74", "75 and over", "", "", ""]
    assert groups_of([0, 1, "2", 1.0, -1]) == ["0", "1", "2", "1", ""]
    thirds = groups_of(list(range(30)))
    assert [thirds.count(name) for name in dict.fromkeys(thirds)] == [10, 10, 10]
    assert groups_of(["1", "2", "good"]) == ["1", "2", "good"]


def test_the_rarest_of_many_names_are_one_group():
    values = [f"site {i}" for i in range(40) for _ in range(40 - i)]
    groups = set(groups_of(values))
    assert len(groups) == 12
    assert "other" in groups
    assert "site 0" in groups


@given(st.dictionaries(st.text(max_size=3), st.none() | st.floats(0, 1), max_size=8))
@settings(max_examples=60, deadline=None)
def test_holms_adjustment_keeps_the_order_and_never_helps(p):
    adjusted = holm(p)
    assert adjusted.keys() == p.keys()
    known = [name for name, value in p.items() if value is not None]
    for name in known:
        assert p[name] <= adjusted[name] <= 1
        for other in known:
            assert adjusted[name] <= adjusted[other] or p[name] >= p[other]
    if known:
        least = min(known, key=p.__getitem__)
        assert adjusted[least] == min(1.0, len(known) * p[least])


def test_facts_with_two_groups_are_tested_and_their_p_adjusted_together():
    rng = np.random.default_rng(0)
    n = 200
    labels = rng.integers(0, 2, n)
    raw = rng.random(n) * 0.6 + 0.4 * labels
    probabilities = np.stack([1 - raw, raw], axis=1)
    facts = {
        "sex": ["f", "m"] * (n // 2),
        "camera": ["Topcon"] * n,
        "age": [str(age) for age in rng.integers(20, 90, n)],
        "site": [""] * (n - 1) + ["A"],
    }
    found = by_fact(probabilities, labels, facts, resamples=100)
    assert set(found) == {"sex", "age"}
    assert [row["group"] for row in found["sex"]["groups"]] == ["female", "male"]
    alone = by_group(probabilities, labels, groups_of(facts["sex"], "sex"), resamples=100)
    assert found["sex"]["groups"] == alone["groups"]
    wanted = holm({fact: row["p"] for fact, row in found.items()})
    assert {fact: row["p_holm"] for fact, row in found.items()} == wanted


def test_ages_with_units_are_ranges_and_words_for_a_sex_are_two_groups():
    assert groups_of(["38", "61岁", "54 y", "80 Years"], "age") == [
        *("under 40", "60 to 74", "40 to 59", "75 and over")
    ]
    assert groups_of(["男", "M", "Male", "女", "f", "", "unknown"], "sex") == [
        *("male", "male", "male", "female", "female", "", "unknown")
    ]


def test_groups_of_other_classes_have_no_gap_in_a_mean_over_classes():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2, 0], 60)
    probabilities = rng.dirichlet(np.ones(3), 240) + np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    groups = np.where((labels == 2) | (np.arange(240) < 120), "A", "B")  # B has no class 2
    first, second = by_group(probabilities, labels, groups.tolist(), resamples=200)["groups"]
    assert first["images_per_class"] == np.bincount(labels[groups == "A"]).tolist()
    assert second["images_per_class"][2:] == [0]
    for row in (first, second):
        for key in FIGURES:
            assert row[key] is not None
            assert (row[f"{key}_gap"] is None) == (key in OVER_CLASSES)
            assert (row[f"{key}_gap_ci95"] is None) == (key in OVER_CLASSES)


def test_odd_cells_among_ages_are_unknown_and_do_not_part_the_others():
    cells = ["38", "63,5", "063Y", "<60", "1955", "76", "61", "45"]
    groups = ["under 40", "60 to 74", "60 to 74", "", "", "75 and over", "60 to 74", "40 to 59"]
    assert groups_of(cells, "age") == groups
    assert groups_of(["young", "old", "63"], "age") == ["young", "old", "63"]
