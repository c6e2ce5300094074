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

from vclip_jax import metrics


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
    result = metrics.classification(probabilities, labels)
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
@settings(max_examples=60, deadline=None)
def test_auc_equals_the_mean_of_scikit_learns_one_vs_rest_values(case):
    probabilities, labels = scores(*case)
    present = np.unique(labels)
    got = metrics.classification(probabilities, labels)["auc"]
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
    result = metrics.classification(probabilities, labels)
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
    result = metrics.classification(probabilities, labels)
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
    assert metrics.calibration_bins(np.array([0.0, 0.01, 1 / 15, 0.2, 0.21, 1.0])).tolist() == [
        0, 0, 0, 2, 3, 14,
    ]  # fmt: skip


def test_auc_equals_scikit_learns_macro_value_where_every_class_occurs():
    probabilities, labels = scores(1, 200, 5)
    want = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert metrics.auc(probabilities, labels) == pytest.approx(want, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_binary_auc_is_the_share_of_ordered_pairs(rows):
    values = np.array([v for v, _ in rows], float)
    positive = np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="positives and negatives"):
            metrics.binary_auc(values, positive)
        return
    pairs = list(itertools.product(values[positive], values[~positive]))
    want = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert metrics.binary_auc(values, positive) == pytest.approx(want, abs=1e-12)
    # Any increasing map leaves it, and turning the scores round turns it round.
    assert metrics.binary_auc(np.exp(values), positive) == pytest.approx(want, abs=1e-12)
    assert metrics.binary_auc(-values, positive) == pytest.approx(1 - want, abs=1e-12)


@given(st.integers(1, 3000), st.data())
def test_wilson_bounds_solve_the_score_equation_and_hold_the_estimate(n, data):
    right = data.draw(st.integers(0, n))
    lo, hi = metrics.wilson_interval(right, n)
    share = right / n
    assert 0 <= lo <= share <= hi <= 1
    for bound in (lo, hi):  # |share - p| = z sqrt(p (1 - p) / n) defines the interval
        z = 1.959963984540054
        assert abs(share - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-7)


def test_wilson_gives_the_published_value():
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263 and 0 of 20.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_classes_that_never_occur_leave_the_means_alone():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    result = metrics.classification(probabilities, np.array([0, 1, 1]))
    assert result["balanced_accuracy"] == pytest.approx(0.75)
    assert result["confusion"][2] == [0, 0, 0]
    assert result["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert result["auc"] is not None


def test_one_class_in_the_labels_has_no_auc_and_one_class_everywhere_no_kappa():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    result = metrics.classification(probabilities, np.array([0, 0]))
    assert result["auc"] is None
    assert result["kappa"] is None
    assert result["undefined"] == {
        "auc": "only one class occurs in the labels",
        "kappa": "labels and predictions are all in one same class",
    }
    assert result["accuracy"] == 1


def test_many_confusion_matrices_at_once_give_what_each_gives():
    counts = np.random.default_rng(0).integers(0, 5, (7, 4, 4))
    counts[0, 2] = 0
    counts[1] = np.diag([3, 0, 0, 0])
    figures = (
        metrics.accuracy,
        metrics.sensitivity,
        metrics.specificity,
        metrics.class_f1,
        metrics.balanced_accuracy,
        metrics.macro_f1,
        metrics.quadratic_kappa,
    )
    for figure in figures:
        np.testing.assert_array_equal(figure(counts), np.stack([figure(one) for one in counts]))
    assert np.isnan(metrics.quadratic_kappa(counts[1]))


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
        metrics.classification(probabilities, labels)
    assert "\n" not in str(error.value)


def test_mean_over_is_none_where_a_value_is_undefined():
    results = {"a": {"auc": 0.5}, "b": {"auc": 0.7}, "c": {"auc": None}}
    assert metrics.mean_over(results, "auc", ["a", "b"]) == pytest.approx(0.6)
    assert metrics.mean_over(results, "auc", ["a", "c"]) is None
    assert metrics.mean_over(results, "auc", []) is None


# --- retrieval -----------------------------------------------------------------------------------


def brute_force(images, texts, ids):
    """Recall by sorting every row, in plain Python."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    out = {"image_to_text": {}, "text_to_image": {}}
    asked = sorted(set(ids.tolist()))
    for k in (1, 5, 10):
        hits = [ids[i] in np.argsort(-similarity[i])[:k] for i in range(len(images))]
        out["image_to_text"][f"r{k}"] = sum(hits) / len(hits)
        hits = [t in ids[np.argsort(-similarity[:, t])[:k]] for t in asked]
        out["text_to_image"][f"r{k}"] = sum(hits) / len(hits)
    return out


def pairs(seed, n, m, d=16, noise=1.0):
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((m, d))
    ids = rng.integers(0, m, n)
    return texts[ids] + noise * rng.standard_normal((n, d)), texts, ids


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_retrieval_equals_sorting_every_row(seed, n, m):
    images, texts, ids = pairs(seed, n, m)
    result = metrics.retrieval(images, texts, ids)
    want = brute_force(images, texts, ids)
    assert result["n"] == n
    assert result["texts"] == m
    for direction, values in want.items():
        assert result[direction] == pytest.approx(values, abs=1e-12)
        assert result[direction]["r1"] <= result[direction]["r5"] <= result[direction]["r10"] <= 1


def test_float32_embeddings_give_the_same_recalls():
    images, texts, ids = pairs(3, 300, 120, noise=2.0)
    single = metrics.retrieval(images.astype(np.float32), texts.astype(np.float32), ids)
    assert single == metrics.retrieval(images, texts, ids)


def test_chunks_do_not_change_the_result(monkeypatch):
    images, texts, ids = pairs(4, 97, 41)
    whole = metrics.retrieval(images, texts, ids)
    monkeypatch.setattr(metrics, "_CHUNK_ELEMENTS", 300)
    assert metrics.retrieval(images, texts, ids) == whole


def test_any_image_with_the_caption_counts():
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    result = metrics.retrieval(images, np.eye(2), np.array([0, 0, 1]))
    # Caption 0 finds image 0 first; that image 1, with the same caption, is far does not matter.
    assert result["text_to_image"]["r1"] == pytest.approx(0.5)
    assert result["image_to_text"]["r1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_collapsed_model_scores_chance(dtype):
    rng = np.random.default_rng(0)
    point = rng.standard_normal(1024)
    ids = np.arange(60) % 20
    # Not bit for bit: cosines that differ by rounding only must not decide the order either.
    images = point + 1e-5 * rng.standard_normal((60, 1024))
    texts = point + 1e-5 * rng.standard_normal((20, 1024))
    result = metrics.retrieval(images.astype(dtype), texts.astype(dtype), ids)
    assert result["image_to_text"] == pytest.approx({"r1": 0.05, "r5": 0.25, "r10": 0.5})
    assert result["text_to_image"] == pytest.approx(result["chance"]["text_to_image"])
    want = 1 - math.comb(57, 5) / math.comb(60, 5)
    assert result["chance"]["text_to_image"]["r5"] == pytest.approx(want)


def test_captions_without_an_image_are_distractors_only():
    images, texts = np.eye(3), np.vstack([np.eye(3), [[1.0, 1.0, 1.0]]])
    result = metrics.retrieval(images, texts, np.arange(3))
    assert result["texts"] == 4
    assert result["text_to_image"]["r1"] == 1


@pytest.mark.parametrize(
    ("images", "texts", "ids", "says"),
    [
        (np.zeros((0, 4)), np.ones((2, 4)), np.zeros(0, int), "image_embeddings must be"),
        (np.ones((2, 4)), np.ones((2, 3)), np.array([0, 1]), "do not match"),
        (np.ones((2, 4)), np.ones((2, 4)), np.array([0, 2]), r"0\.\.1"),
        (np.zeros((2, 4)), np.ones((2, 4)), np.array([0, 1]), "zero or not finite"),
        (np.ones((2, 4)), np.full((2, 4), np.nan), np.array([0, 1]), "text_embeddings"),
    ],
)
def test_retrieval_refuses_bad_input(images, texts, ids, says):
    with pytest.raises(ValueError, match=says):
        metrics.retrieval(images, texts, ids)
