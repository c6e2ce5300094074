"""Several diseases an eye, against scikit-learn and by properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.findings import FIGURES, findings
from vclip_jax.evaluation.metrics.thresholds import weighted_areas

NAMES = ("DR", "AMD", "glaucoma")


def case(seed: int = 0, n: int = 90, unrated: float = 0.0, ties: bool = False):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < (0.4, 0.2, 0.1)).astype(int)
    truth[:2] = [[1, 1, 1], [0, 0, 0]]
    p = 1 / (1 + np.exp(0.5 - 1.5 * truth - rng.normal(size=(n, 3))))
    truth[2:][rng.random((n - 2, 3)) < unrated] = -1
    return (np.round(p, 1) if ties else p), truth


@given(st.integers(0, 10**6), st.integers(8, 60), st.sampled_from([0.0, 0.4]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_figures_are_scikit_learns(seed, n, unrated, ties):
    p, truth = case(seed, n, unrated, ties)
    found = findings(p, truth, NAMES, resamples=0)

    def reference(scores, positive):
        called = scores >= 0.5
        return {
            "auc": sklearn.roc_auc_score(positive, scores),
            "average_precision": sklearn.average_precision_score(positive, scores),
            "sensitivity": sklearn.recall_score(positive, called),
            "specificity": sklearn.recall_score(~positive, ~called),
        }

    want = []
    for k, row in enumerate(found["findings"]):
        rated = truth[:, k] >= 0
        want.append(reference(p[rated, k], truth[rated, k] == 1))
        assert {key: row[key] for key in FIGURES} == pytest.approx(want[-1], abs=1e-9)
        assert row["present"] + row["absent"] + row["unrated"] == n
    for key in FIGURES:
        assert found["macro"][key] == pytest.approx(np.mean([w[key] for w in want]), abs=1e-9)
    pairs = truth.ravel() >= 0
    pooled = reference(p.ravel()[pairs], truth.ravel()[pairs] == 1)
    assert {key: found["micro"][key] for key in FIGURES} == pytest.approx(pooled, abs=1e-9)
    full = (truth >= 0).all(axis=1)
    assert found["fully_rated"] == full.sum()
    want_subset = sklearn.accuracy_score(truth[full], (p[full] >= 0.5).astype(int))
    assert found["subset_accuracy"] == pytest.approx(want_subset)


def test_answers_change_with_the_thresholds_and_areas_do_not():
    p, truth = case()
    plain = findings(p, truth, NAMES, resamples=0)
    moved = findings(p, truth, NAMES, thresholds=[0.5, 0.8, 0.2], resamples=50)
    assert [row["threshold"] for row in moved["findings"]] == [0.5, 0.8, 0.2]
    for k, (a, b) in enumerate(zip(plain["findings"], moved["findings"], strict=True)):
        assert a["auc"] == b["auc"]
        called = p[:, k] >= b["threshold"]
        assert b["sensitivity"] == pytest.approx(called[truth[:, k] == 1].mean())
        pairs = [(row["sensitivity"], row["specificity"]) for row in (a, b)]
        assert (pairs[0] == pairs[1]) == (k == 0)
    with pytest.raises(ValueError, match="a threshold for each of 3"):
        findings(p, truth, NAMES, thresholds=[0.5])


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=20, deadline=None)
def test_weighted_areas_are_scikit_learns_with_weights(seed, ties):
    p, truth = case(seed, 40, ties=ties)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 40)).astype(float)
    weights[:, :2] = 1
    auc, precision = weighted_areas(p[:, 0], truth[:, 0] == 1, weights)
    for b in range(3):
        args = {"y_true": truth[:, 0], "y_score": p[:, 0], "sample_weight": weights[b]}
        assert auc[b] == pytest.approx(sklearn.roc_auc_score(**args), abs=1e-9)
        assert precision[b] == pytest.approx(sklearn.average_precision_score(**args), abs=1e-9)


def test_a_finding_that_nobody_has_is_left_out_of_the_means_and_said():
    p, truth = case()
    truth[:, 2] = 0
    found = findings(p, truth, NAMES, resamples=100)
    row = found["findings"][2]
    assert [row[key] for key in FIGURES[:3]] == [None] * 3
    assert "present and absent" in row["undefined"]
    assert row["auc_ci95"] is None
    assert found["macro"]["of"] == {
        "auc": 2,
        "average_precision": 2,
        "sensitivity": 2,
        "specificity": 3,
    }
    others = [r["auc"] for r in found["findings"][:2]]
    assert found["macro"]["auc"] == pytest.approx(np.mean(others))


def test_copies_of_a_patient_do_not_narrow_intervals():
    p, truth = case(n=60)
    once = findings(p, truth, NAMES, resamples=400)
    copies = (np.repeat(p, 4, axis=0), np.repeat(truth, 4, axis=0), NAMES)
    known = findings(*copies, patients=np.repeat(np.arange(60), 4), resamples=400)
    unknown = findings(*copies, resamples=400)

    def width(found, part, key):
        low, high = found[part][f"{key}_ci95"]
        return high - low

    for part in ("macro", "micro"):
        for key in FIGURES:
            assert width(known, part, key) == pytest.approx(width(once, part, key), rel=1e-9)
            assert width(unknown, part, key) < 0.7 * width(once, part, key)
    assert known["bootstrap"]["unit"] == "patient"
    assert known["bootstrap"]["units"] == once["bootstrap"]["units"] == 60
    assert known["findings"][0]["auc_ci95"] == pytest.approx(once["findings"][0]["auc_ci95"])
    assert known["subset_accuracy_ci95"] == pytest.approx(once["subset_accuracy_ci95"])


def test_intervals_of_one_finding_are_those_of_two_classes():
    p, truth = case(n=80)
    found = findings(p, truth, NAMES, resamples=200)
    both = np.stack([1 - p[:, 1], p[:, 1]], axis=1)
    want = bootstrap.classification(both, truth[:, 1], resamples=200)
    assert found["findings"][1]["auc_ci95"] == pytest.approx(want["auc_ci95"], abs=1e-9)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p, t: (p[:, :2], t), "expected probabilities"),
        (lambda p, t: (p + 1, t), "between 0 and 1"),
        (lambda p, t: (p * np.nan, t), "between 0 and 1"),
        (lambda p, t: (p, t + 1), "1 present, 0 absent"),
        (lambda p, t: (p, t * 0 - 1), "no finding is rated"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        findings(*change(*case()), NAMES)


def test_the_mean_of_findings_is_of_the_same_findings_on_every_resample():
    """37 % of the resamples lack the image of a finding whose AUC is far from the other's."""
    rng = np.random.default_rng(0)
    truth = np.stack([rng.integers(0, 2, 80), np.arange(80) == 0], axis=1).astype(int)
    p = np.clip(0.5 + 0.4 * (truth - 0.5) + rng.normal(0, 0.3, truth.shape), 0, 1)
    p[:, 1], p[0, 1] = np.maximum(p[:, 1], 0.01), 0  # the AUC of the rare finding is 0
    found = findings(p, truth, ["common", "rare"], resamples=2000)
    assert found["findings"][1]["auc"] == 0
    assert found["findings"][1]["auc_ci95"] is None
    low, high = found["macro"]["auc_ci95"]
    assert low < found["macro"]["auc"] < high < 0.55


def test_all_right_of_few_patients_has_an_interval_with_a_width():
    truth = np.repeat([1, 0], [8, 12])[:, None]
    found = findings(truth * 0.8 + 0.1, truth, ["AMD"], patients=np.arange(20) // 2, resamples=200)
    (row,) = found["findings"]
    assert row["sensitivity"] == row["specificity"] == 1
    assert row["sensitivity_ci95"] == pytest.approx([0.5101, 1], abs=1e-4)  # Wilson's of 4 of 4
    assert row["specificity_ci95"] == pytest.approx([0.6097, 1], abs=1e-4)
