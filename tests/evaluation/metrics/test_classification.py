"""Metrics against scikit-learn, brute force and the properties that they must have."""

import itertools
import json
import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import classification


def scores(seed: int, n: int, classes: int, ties: bool = False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    raw = rng.random((n, classes)) + 0.5 * np.eye(classes)[labels]
    if ties:
        raw = np.round(raw * 4) / 4 + 0.25
    return raw / raw.sum(axis=1, keepdims=True), labels


cases = st.tuples(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.booleans())


@given(cases)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_classification_equals_scikit_learn(case):
    probabilities, labels = scores(*case)
    predicted = probabilities.argmax(axis=1)
    result = classification.classification(probabilities, labels, ordered=True)
    classes = range(probabilities.shape[1])
    assert result["n"] == len(labels)
    assert result["accuracy"] == reference.accuracy_score(labels, predicted)
    assert (
        result["confusion"]
        == reference.confusion_matrix(labels, predicted, labels=classes).tolist()
    )
    recall = reference.recall_score(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    assert result["balanced_accuracy"] == pytest.approx(recall, abs=1e-12)
    f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert result["f1"] == pytest.approx(f1, abs=1e-12)
    kappa = reference.cohen_kappa_score(labels, predicted, labels=classes, weights="quadratic")
    if result["kappa"] is None:
        assert len(set(labels) | set(predicted)) == 1
    else:
        assert result["kappa"] == pytest.approx(kappa, abs=1e-12)
    json.dumps(result, allow_nan=False)


@given(cases)
@settings(max_examples=20, deadline=None)
def test_only_ordered_classes_have_a_kappa_unless_they_are_two(case):
    probabilities, labels = scores(*case)
    ordered = classification.classification(probabilities, labels, ordered=True)
    result = classification.classification(probabilities, labels)
    if probabilities.shape[1] == 2:
        assert result == ordered
    else:
        assert result["kappa"] is None
        assert result["undefined"]["kappa"] == "the classes have no order"
        for found in (result, ordered):
            del found["kappa"], found["undefined"]
        assert result == ordered


@given(cases)
@settings(max_examples=60, deadline=None)
def test_auc_equals_the_mean_of_scikit_learns_one_vs_rest_values(case):
    probabilities, labels = scores(*case)
    present = np.unique(labels)
    got = classification.classification(probabilities, labels)["auc"]
    if len(present) < 2:
        assert got is None
        return
    classes = [1] if probabilities.shape[1] == 2 else present
    want = np.mean([reference.roc_auc_score(labels == c, probabilities[:, c]) for c in classes])
    assert got == pytest.approx(want, abs=1e-12)


@given(cases)
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_the_figures_of_a_class_equal_scikit_learns(case):
    probabilities, labels = scores(*case)
    predicted = probabilities.argmax(axis=1)
    result = classification.classification(probabilities, labels)
    for c, row in enumerate(result["per_class"]):
        truth, said = labels == c, predicted == c
        options = {"zero_division": np.nan}
        want = {
            "n": truth.sum(),
            "predicted": said.sum(),
            "sensitivity": reference.recall_score(truth, said, **options),
            "specificity": reference.recall_score(~truth, ~said, **options),
            "f1": reference.f1_score(truth, said, **options),
            "auc": reference.roc_auc_score(truth, probabilities[:, c]),
        }
        for key, value in want.items():
            if np.isnan(value):
                assert row[key] is None
                assert "this class" in row["undefined"][key]
            else:
                assert row[key] == pytest.approx(value, abs=1e-9)
        assert result["auc_per_class"][c] == row["auc"]


@given(cases)
@settings(max_examples=40, deadline=None)
def test_the_calibration_error_is_that_of_scikit_learns_curve(case):
    probabilities, labels = scores(*case)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    result = classification.classification(probabilities, labels)
    share, mean = sklearn.calibration.calibration_curve(
        right, confidence, pos_label=True, n_bins=15
    )
    filled = [entry for entry in result["reliability"] if entry["n"]]
    assert len(result["reliability"]) == 15
    assert sum(entry["n"] for entry in filled) == len(labels)
    assert [entry["accuracy"] for entry in filled] == pytest.approx(share.tolist(), abs=1e-12)
    assert [entry["confidence"] for entry in filled] == pytest.approx(mean.tolist(), abs=1e-12)
    sizes = np.array([entry["n"] for entry in filled])
    want = np.sum(sizes / len(labels) * np.abs(share - mean))
    assert result["ece"] == pytest.approx(want, abs=1e-9)


def test_an_upper_edge_belongs_to_its_bin():
    confidence = np.array([0.0, 0.01, 1 / 15, 0.2, 0.21, 1.0])
    assert classification.calibration_bins(confidence).tolist() == [0, 0, 0, 2, 3, 14]


def test_auc_equals_scikit_learns_macro_value_where_every_class_occurs():
    probabilities, labels = scores(1, 200, 5)
    want = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert classification.auc(probabilities, labels) == pytest.approx(want, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_binary_auc_is_the_share_of_ordered_pairs(rows):
    values = np.array([v for v, _ in rows], float)
    positive = np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="positives and negatives"):
            classification.binary_auc(values, positive)
        return
    pairs = list(itertools.product(values[positive], values[~positive]))
    want = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert classification.binary_auc(values, positive) == pytest.approx(want, abs=1e-12)
    # Any increasing map leaves it, and turning the scores round turns it round.
    assert classification.binary_auc(np.exp(values), positive) == pytest.approx(want, abs=1e-12)
    assert classification.binary_auc(-values, positive) == pytest.approx(1 - want, abs=1e-12)


@given(st.integers(1, 3000), st.data())
def test_wilson_bounds_solve_the_score_equation_and_hold_the_estimate(n, data):
    right = data.draw(st.integers(0, n))
    lo, hi = classification.wilson_interval(right, n)
    share = right / n
    assert 0 <= lo <= share <= hi <= 1
    for bound in (lo, hi):  # |share - p| = z sqrt(p (1 - p) / n) defines the interval
        z = 1.959963984540054
        assert abs(share - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-7)


def test_wilson_gives_the_published_value():
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263 and 0 of 20.
    assert classification.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert classification.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_classes_that_never_occur_leave_the_means_alone():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    result = classification.classification(probabilities, np.array([0, 1, 1]))
    assert result["balanced_accuracy"] == pytest.approx(0.75)
    assert result["confusion"][2] == [0, 0, 0]
    assert result["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert result["auc"] is not None


def test_one_class_in_the_labels_has_no_auc_and_one_class_everywhere_no_kappa():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    result = classification.classification(probabilities, np.array([0, 0]))
    assert result["auc"] is None
    assert result["kappa"] is None
    assert result["undefined"] == {
        "auc": "only one class occurs in the labels",
        "kappa": "all labels and predictions are of the same class",
    }
    assert result["accuracy"] == 1


def test_many_confusion_matrices_at_once_give_what_each_gives():
    counts = np.random.default_rng(0).integers(0, 5, (7, 4, 4))
    counts[0, 2] = 0
    counts[1] = np.diag([3, 0, 0, 0])
    figures = (
        classification.accuracy,
        classification.sensitivity,
        classification.specificity,
        classification.class_f1,
        classification.balanced_accuracy,
        classification.macro_f1,
        classification.quadratic_kappa,
    )
    for figure in figures:
        np.testing.assert_array_equal(figure(counts), np.stack([figure(one) for one in counts]))
    assert np.isnan(classification.quadratic_kappa(counts[1]))


@pytest.mark.parametrize(
    ("probabilities", "labels", "says"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no images"),
        (np.zeros((2, 1)), np.zeros(2, int), "two classes"),
        (np.zeros((2, 3)), np.zeros(3, int), r"\[2, 3\] and \[3\]"),
        (np.zeros((2, 3)), np.array([0, -1]), "label -1 in row 1"),
        (np.zeros((2, 3)), np.array([0, 3]), "not in 0..2"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "integers"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), np.array([0, 1]), "not finite, the first is 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(probabilities, labels, says):
    with pytest.raises(ValueError, match=says) as error:
        classification.classification(probabilities, labels)
    assert "\n" not in str(error.value)


def test_mean_over_is_none_where_a_value_is_undefined():
    results = {"a": {"auc": 0.5}, "b": {"auc": 0.7}, "c": {"auc": None}}
    assert classification.mean_over(results, "auc", ["a", "b"]) == pytest.approx(0.6)
    assert classification.mean_over(results, "auc", ["a", "c"]) is None
    assert classification.mean_over(results, "auc", []) is None


# --- How good the probabilities are.


@given(cases)
@settings(max_examples=30, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_likelihood_and_brier_score_equal_scikit_learns(case):
    probabilities, labels = scores(*case)
    found = classification.classification(probabilities, labels)
    every = list(range(probabilities.shape[1]))
    log_loss = reference.log_loss(labels, probabilities, labels=every)
    brier = reference.brier_score_loss(labels, probabilities, labels=every, scale_by_half=False)
    assert found["nll"] == pytest.approx(log_loss, abs=1e-12)
    assert found["brier"] == pytest.approx(brier, abs=1e-12)


def test_what_is_no_probability_has_no_likelihood_and_says_why():
    sure = classification.classification(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert sure["nll"] is None
    assert sure["undefined"]["nll"].startswith("a true class has the score 0")
    assert sure["brier"] == 1.0
    scaled = classification.classification(np.array([[0.9, 0.3], [0.2, 0.4]]), np.array([0, 1]))
    assert scaled["nll"] is scaled["brier"] is None
    assert "its sum is not 1" in scaled["undefined"]["brier"]
