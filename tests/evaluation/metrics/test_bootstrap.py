"""The bootstrap against scikit-learn on the same resamples; what intervals and tests must do."""

import json
import warnings
from statistics import NormalDist

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import bootstrap, classification

B = 12


def system(seed: int, n: int, classes: int, skill: float = 0.5, ties: bool = False):
    """Probabilities and labels; the labels depend on the seed, n and classes alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    raw = rng.random((n, classes)) + skill * np.eye(classes)[labels]
    if ties:
        raw = np.round(raw * 4) / 4 + 0.25
    return raw / raw.sum(axis=1, keepdims=True), labels


def resamples(probabilities, labels, count: int, seed: int):
    """The drawn images themselves, one resample after the other."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        drawn = rng.integers(0, len(labels), len(labels))
        yield probabilities[drawn], labels[drawn]


MEANS = ("balanced_accuracy", "auc", "f1")
"""Figures that are means over classes."""


def by_scikit_learn(p, labels, classes) -> dict[str, float]:
    """Figures of one resample; NaN where scikit-learn or the definition has none.

    `classes` are those of the sample's labels or answers.
    """
    answer, every = p.argmax(axis=1), range(p.shape[1])
    present = np.unique(labels)
    areas = [
        reference.roc_auc_score(labels == c, p[:, c]) if 0 < np.mean(labels == c) < 1 else np.nan
        for c in every
    ]
    specificities = [
        reference.recall_score(labels != c, answer != c, zero_division=np.nan) for c in every
    ]
    one = set(labels) | set(answer)
    return {
        "accuracy": reference.accuracy_score(labels, answer),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, answer),
        "auc": np.nan if len(present) < 2 else areas[1] if len(every) == 2 else np.nanmean(areas),
        "kappa": np.nan
        if len(one) == 1
        else reference.cohen_kappa_score(labels, answer, labels=list(every), weights="quadratic"),
        "f1": reference.f1_score(labels, answer, labels=classes, average="macro", zero_division=0),
        "nll": reference.log_loss(labels, p, labels=list(every)),
        "brier": reference.brier_score_loss(labels, p, labels=list(every), scale_by_half=False),
        "sensitivity_per_class": reference.recall_score(
            labels, answer, labels=list(every), average=None, zero_division=np.nan
        ),
        "specificity_per_class": specificities,
        "f1_per_class": reference.f1_score(
            labels, answer, labels=list(every), average=None, zero_division=np.nan
        ),
        "auc_per_class": areas,
    }


cases = st.tuples(
    st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6), st.just(0.5), st.booleans()
)


@given(cases)
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_every_figure_of_every_resample_equals_scikit_learns(case):
    """Ties, absent classes, classes that a resample loses and one image alone are among these."""
    probabilities, labels = system(*case)
    found = bootstrap.distributions(probabilities, labels, resamples=B, seed=case[0])
    classes = sorted({*labels, *probabilities.argmax(axis=1)})
    rows = [by_scikit_learn(*r, classes) for r in resamples(probabilities, labels, B, case[0])]
    for row, (_, drawn) in zip(rows, resamples(probabilities, labels, B, case[0]), strict=True):
        if set(drawn) != set(labels):  # a mean over fewer classes is another figure
            row |= dict.fromkeys(MEANS, np.nan)
    for key in rows[0]:
        want = np.array([row[key] for row in rows], float)
        np.testing.assert_allclose(found[key], want, rtol=0, atol=1e-9, err_msg=key)


@given(cases)
@settings(max_examples=25, deadline=None)
def test_every_figure_of_a_resample_is_that_of_the_images_drawn(case):
    probabilities, labels = system(*case)
    found = bootstrap.distributions(probabilities, labels, resamples=8, seed=1)
    for b, drawn in enumerate(resamples(probabilities, labels, 8, 1)):
        want = classification.classification(*drawn, ordered=True)
        lost = set(drawn[1]) != set(labels)
        if lost or set(drawn[0].argmax(axis=1)) != set(probabilities.argmax(axis=1)):
            want["f1"] = found["f1"][b]  # of other classes
        for key in classification.SCALARS:
            if lost and key in MEANS:
                assert np.isnan(found[key][b])
                continue
            value = np.nan if want[key] is None else want[key]
            np.testing.assert_allclose(found[key][b], value, rtol=0, atol=1e-12, err_msg=key)
        areas = [np.nan if area is None else area for area in want["auc_per_class"]]
        np.testing.assert_allclose(found["auc_per_class"][b], areas, rtol=0, atol=1e-12)


def test_the_chunk_and_the_number_of_resamples_do_not_change_a_resample(monkeypatch):
    case = system(3, 57, 4)
    whole = bootstrap.distributions(*case, resamples=50, seed=7)
    fewer = bootstrap.distributions(*case, resamples=20, seed=7)
    monkeypatch.setattr(bootstrap, "_CHUNK_ELEMENTS", 200)
    parts = bootstrap.distributions(*case, resamples=50, seed=7)
    for key, values in whole.items():
        np.testing.assert_array_equal(values, parts[key])
        np.testing.assert_array_equal(values[:20], fewer[key])
    other = bootstrap.distributions(*case, resamples=50, seed=8)
    assert (other["accuracy"] != whole["accuracy"]).any()


def test_intervals_are_the_percentiles_and_json_can_hold_the_result():
    probabilities, labels = system(5, 120, 4)
    result = bootstrap.classification(probabilities, labels, ordered=True, resamples=500, seed=2)
    samples = bootstrap.distributions(probabilities, labels, resamples=500, seed=2)
    for key in classification.SCALARS:
        name = "accuracy_bootstrap_ci95" if key == "accuracy" else f"{key}_ci95"
        assert result[name] == pytest.approx(np.quantile(samples[key], (0.025, 0.975)))
        if key != "ece":
            assert result[name][0] < result[key] < result[name][1]
    right = round(result["accuracy"] * 120)
    assert result["accuracy_ci95"] == list(classification.wilson_interval(right, 120))
    for c, row in enumerate(result["per_class"]):
        for key in ("f1", "auc"):
            want = np.quantile(samples[f"{key}_per_class"][:, c], (0.025, 0.975))
            assert row[f"{key}_ci95"] == pytest.approx(want)
        hits, count = round(row["sensitivity"] * row["n"]), row["n"]
        assert row["sensitivity_ci95"] == list(classification.wilson_interval(hits, count))
        assert result["auc_per_class_ci95"][c] == row["auc_ci95"]
    assert result["bootstrap"] == {"resamples": 500, "seed": 2, "unit": "image", "units": 120}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_resample_holds_all_images_of_the_patients_that_are_drawn():
    probabilities, labels = system(6, 90, 3)
    patients = np.random.default_rng(0).permutation(np.arange(90) // 2 * 7)
    found = bootstrap.distributions(probabilities, labels, patients=patients, resamples=B, seed=4)
    names = list(dict.fromkeys(patients.tolist()))
    rng = np.random.default_rng(4)
    for b in range(B):
        drawn = rng.integers(0, len(names), len(names))
        rows = np.concatenate([np.flatnonzero(patients == names[one]) for one in drawn])
        want = by_scikit_learn(probabilities[rows], labels[rows], range(3))
        for key, value in want.items():
            np.testing.assert_allclose(found[key][b], value, rtol=1e-9, err_msg=key)


def test_the_weights_of_patients_lie_in_memory_like_those_of_images(monkeypatch):
    """Sums over another order in memory differ in the last digit."""
    seen = []
    original = bootstrap._weighted_auc

    def look(weights, rank):
        seen.append(weights.flags.c_contiguous)
        return original(weights, rank)

    monkeypatch.setattr(bootstrap, "_weighted_auc", look)
    probabilities, labels = system(1, 60, 2)
    for patients in (None, np.arange(60), np.arange(60) // 2):
        bootstrap.distributions(probabilities, labels, patients=patients, resamples=20)
    assert len(seen) == 6  # two classes
    assert all(seen)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_patients_with_one_image_each_change_no_digit(seed, classes):
    probabilities, labels = system(seed, 40, classes)
    patients = np.random.default_rng(seed).permutation(10**6)[:40]
    options = {"ordered": True, "resamples": 50, "seed": seed}
    found, expected = (
        bootstrap.classification(probabilities, labels, **options, **more)
        for more in ({"patients": patients}, {})
    )
    assert found.pop("bootstrap") | {"unit": "image"} == expected.pop("bootstrap")
    assert found == expected
    second = probabilities[::-1]
    assert bootstrap.paired_test(
        probabilities, second, labels, patients=patients, resamples=50
    ) == bootstrap.paired_test(probabilities, second, labels, resamples=50)


@pytest.mark.parametrize("images", [1, 2, 4])
def test_intervals_over_patients_cover_the_truth(images):
    """Scores of a patient's images are correlated by 0.8, and a disease affects all of them."""
    draws, count, effect = 200, 100, 1.5
    auc, accuracy = (NormalDist().cdf(effect / scale) for scale in (np.sqrt(2), 2))
    covered = np.zeros(2)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        labels = np.repeat(rng.permutation(np.arange(count) % 2), images)
        patients = np.repeat(np.arange(count), images)
        scores = np.sqrt(0.8) * rng.normal(size=count)[patients]
        scores += np.sqrt(0.2) * rng.normal(size=count * images) + effect * labels
        positive = 1 / (1 + np.exp(effect / 2 - scores))
        figures = bootstrap.classification(
            np.stack([1 - positive, positive], 1), labels, patients=patients, resamples=400
        )
        intervals = [figures["auc_ci95"], figures["accuracy_ci95"]]
        truths = (auc, accuracy)
        covered += [low <= t <= high for (low, high), t in zip(intervals, truths, strict=True)]
    assert (covered / draws >= 0.92).all(), covered / draws


def test_alike_images_of_a_patient_count_once_in_the_interval_of_accuracy():
    probabilities, labels = system(1, 50, 3)
    once = bootstrap.classification(probabilities, labels, resamples=0)
    thrice = bootstrap.classification(
        np.repeat(probabilities, 3, 0),
        np.repeat(labels, 3),
        patients=np.repeat(np.arange(50), 3),
        resamples=0,
    )
    # G / (G - 1): the variance between patients is estimated from the patients.
    np.testing.assert_allclose(thrice["accuracy_ci95"], once["accuracy_ci95"], atol=0.004)
    alone = bootstrap.classification(
        np.repeat(probabilities, 3, 0), np.repeat(labels, 3), resamples=0
    )
    width = np.diff(once["accuracy_ci95"])
    assert np.diff(alone["accuracy_ci95"]) < 0.7 * width


def test_there_is_a_patient_for_each_image():
    with pytest.raises(ValueError, match="expected a patient for each of 50 images"):
        bootstrap.distributions(*system(1, 50, 3), patients=np.arange(49), resamples=1)


def test_without_resamples_there_are_wilsons_interval_and_no_other():
    result = bootstrap.classification(*system(5, 50, 3), resamples=0)
    assert [key for key in result if "ci95" in key] == ["accuracy_ci95"]


def test_the_interval_of_accuracy_is_the_binomial_one():
    probabilities, labels = system(1, 400, 3)
    found = bootstrap.classification(probabilities, labels)["accuracy_bootstrap_ci95"]
    share = np.mean(probabilities.argmax(axis=1) == labels)
    want = np.quantile(np.random.default_rng(0).binomial(400, share, 10**6) / 400, (0.025, 0.975))
    assert found == pytest.approx(want, abs=0.005)


def test_a_figure_that_is_often_lost_has_no_interval_and_says_why():
    probabilities, labels = system(2, 60, 3)
    labels = np.where(labels == 2, 1, labels)
    labels[0] = 2  # 37 % of the resamples do not draw the only image of class 2
    result = bootstrap.classification(probabilities, labels, resamples=400)
    rare = result["per_class"][2]
    assert rare["n"] == 1
    assert rare["sensitivity"] is not None
    assert rare["auc_ci95"] is None
    assert "of the resamples" in rare["undefined"]["auc_ci95"]
    low, high = rare["sensitivity_ci95"]
    assert high - low > 0.7
    assert rare["specificity_ci95"] is not None
    # Means over the classes would be means over other classes.
    for key in MEANS:
        assert result[f"{key}_ci95"] is None
        assert "of the resamples" in result["undefined"][f"{key}_ci95"]
    assert result["accuracy_bootstrap_ci95"] is not None


def test_a_resample_without_a_class_does_not_widen_a_mean_over_classes():
    """Three classes, one of four images: one resample in 60 has none of these."""
    probabilities, labels = system(2, 90, 3, skill=1.0)
    labels = np.where(labels == 2, np.arange(90) % 2, labels)
    labels[:4] = 2
    probabilities[labels == 2] = (0.1, 0.2, 0.7)
    found = bootstrap.distributions(probabilities, labels, resamples=4000)
    drawn = np.stack([w[:4].sum() for w in bootstrap.resampled(90, None, 4000, 0)])
    recalls = found["sensitivity_per_class"]
    for key in MEANS:
        np.testing.assert_array_equal(np.isnan(found[key]), drawn == 0)
    kept = drawn > 0
    np.testing.assert_allclose(found["balanced_accuracy"][kept], recalls[kept].mean(axis=1))
    result = bootstrap.classification(probabilities, labels, resamples=4000)
    want = np.quantile(recalls[kept].mean(axis=1), (0.025, 0.975))
    np.testing.assert_allclose(result["balanced_accuracy_ci95"], want)


def test_undefined_figures_are_none_with_a_reason():
    result = bootstrap.classification(np.array([[0.9, 0.1]] * 4), np.zeros(4, int), resamples=100)
    assert result["auc"] is result["kappa"] is result["auc_ci95"] is None
    assert result["undefined"].keys() == {"auc", "kappa", "auc_ci95", "kappa_ci95"}
    absent = result["per_class"][1]
    assert absent["sensitivity"] is absent["auc"] is absent["f1"] is None
    assert absent["undefined"]["sensitivity"] == "no image is of this class"
    assert result["per_class"][0]["undefined"]["specificity"] == "every image is of this class"
    json.dumps(result, allow_nan=False)


def test_scores_that_are_no_probabilities_have_no_calibration_error():
    probabilities, labels = system(2, 30, 3)
    result = bootstrap.classification(5 * probabilities, labels, resamples=100)
    assert result["ece"] is result["ece_ci95"] is None
    assert "not probabilities" in result["undefined"]["ece"]
    assert result["reliability"] == []
    assert result["auc"] == classification.classification(probabilities, labels)["auc"]


# --- two systems ---------------------------------------------------------------------------------


def test_a_system_does_not_differ_from_itself():
    probabilities, labels = system(4, 80, 3)
    rows = bootstrap.paired_test(probabilities, probabilities, labels, ordered=True, resamples=200)
    for row in rows.values():
        assert row["difference"] == 0
        assert row["difference_ci95"] == [0, 0]
        assert row["p"] == 1


def test_exchanging_the_systems_turns_the_signs_and_keeps_p():
    first, labels = system(4, 90, 4, skill=0.6)
    second, _ = system(4, 90, 4, skill=0.4)
    there = bootstrap.paired_test(first, second, labels, ordered=True, resamples=300)
    back = bootstrap.paired_test(second, first, labels, ordered=True, resamples=300)
    for key in classification.SCALARS:
        assert there[key]["first"] == back[key]["second"]
        assert there[key]["difference"] == -back[key]["difference"]
        assert there[key]["p"] == back[key]["p"]
        np.testing.assert_allclose(
            there[key]["difference_ci95"], -np.array(back[key]["difference_ci95"])[::-1], atol=1e-12
        )


def test_a_test_says_what_its_interval_says():
    for seed in range(10):
        first, labels = system(seed, 60, 2, skill=0.55)
        second, _ = system(seed, 60, 2, skill=0.45)
        for row in bootstrap.paired_test(first, second, labels, resamples=999).values():
            low, high = row["difference_ci95"]
            if low > 0 or high < 0:
                assert row["p"] <= 0.05 + 2 / 1000
            if low < 0 < high:
                assert row["p"] >= 0.05 - 2 / 1000


def test_pairing_finds_what_separate_intervals_hide():
    first, labels = system(6, 300, 3, skill=0.5)
    second = first.copy()
    wrong = np.flatnonzero(first.argmax(axis=1) == labels)[:12]
    second[wrong] = np.roll(first[wrong], 1, axis=1)  # twelve right answers become wrong ones
    row = bootstrap.paired_test(first, second, labels)["accuracy"]
    own = bootstrap.classification(first, labels)["accuracy_bootstrap_ci95"]
    assert own[0] < row["second"] < own[1]
    assert row["p"] < 0.01


def test_p_is_below_five_percent_in_five_percent_of_cases_without_a_difference():
    below = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 150)
        first, second = rng.dirichlet((1, 1), (2, 150))
        row = bootstrap.paired_test(first, second, labels, resamples=199, seed=seed)["auc"]
        below.append(row["p"] < 0.05)
    assert 0.02 < np.mean(below) < 0.09


def test_p_is_never_zero_and_one_at_most():
    assert bootstrap.two_sided_p(np.full(99, 3.0)) == 0.02
    assert bootstrap.two_sided_p(np.full(99, -3.0)) == 0.02
    assert bootstrap.two_sided_p(np.zeros(99)) == 1
    assert bootstrap.two_sided_p(np.array([1.0, np.nan, -1.0])) == 1


def test_an_undefined_figure_has_no_test_and_says_why():
    first, second = (np.random.default_rng(s).dirichlet((1, 1), 9) for s in (0, 1))
    row = bootstrap.paired_test(first, second, np.zeros(9, int), resamples=50)["auc"]
    assert row["difference"] is row["difference_ci95"] is row["p"] is None
    assert row["undefined"] == "only one class occurs in the labels"


def test_bad_input_is_refused_in_one_line():
    probabilities, labels = system(0, 10, 3)
    with pytest.raises(ValueError, match=r"differ in images or classes: \[10, 3\] and \[9, 3\]"):
        bootstrap.paired_test(probabilities, probabilities[1:], labels)
    with pytest.raises(ValueError, match="at least one resample, got 0"):
        bootstrap.distributions(probabilities, labels, resamples=0)
    with pytest.raises(ValueError, match="labels"):
        bootstrap.classification(probabilities, labels[1:])


def test_nothing_warns_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bootstrap.classification(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]), resamples=100)


def test_classes_without_an_order_have_no_kappa_no_interval_and_no_test():
    first, labels = system(4, 60, 3, skill=0.6)
    second, _ = system(4, 60, 3, skill=0.4)
    result = bootstrap.classification(first, labels, resamples=100)
    assert result["kappa"] is result["kappa_ci95"] is None
    assert result["undefined"]["kappa_ci95"] == "the classes have no order"
    row = bootstrap.paired_test(first, second, labels, resamples=100)["kappa"]
    assert (row["difference"], row["p"]) == (None, None)
    assert row["undefined"] == "the classes have no order"
