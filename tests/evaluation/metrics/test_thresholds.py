"""Curves, operating points and their usefulness, against scikit-learn and published examples."""

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.brier import brier_parts
from vclip_jax.evaluation.metrics.delong import delong
from vclip_jax.evaluation.metrics.thresholds import (
    at_threshold,
    choose_threshold,
    curve,
    net_benefit,
    net_benefit_of_all,
)


def system(seed: int, n: int = 80, ties: bool = False):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(n) % 3 == 0)
    scores = 1 / (1 + np.exp(-rng.normal(size=n) - 1.2 * positive + 0.6))
    return (np.round(scores, 1) if ties else scores), positive


SYSTEMS = st.tuples(st.integers(0, 10**6), st.integers(6, 60), st.booleans())


@given(SYSTEMS)
@settings(max_examples=60, deadline=None)
def test_curves_are_scikit_learns(one):
    scores, positive = system(*one)
    found = curve(scores, positive)
    wrong, right, thresholds = reference.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.sensitivity, right, atol=1e-12)
    np.testing.assert_allclose(1 - found.specificity, wrong, atol=1e-12)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    want = reference.average_precision_score(positive, scores)
    assert found.average_precision == pytest.approx(want, abs=1e-9)
    precision, recall, _ = reference.precision_recall_curve(positive, scores)
    # scikit-learn's curve ends when everything is found.
    n = len(precision)
    np.testing.assert_allclose(found.precision[:n], precision[::-1][:n], atol=1e-12)
    np.testing.assert_allclose(found.sensitivity[:n], recall[::-1][:n], atol=1e-12)
    assert np.trapezoid(right, wrong) == pytest.approx(delong(scores, positive).auc, abs=1e-12)


@given(SYSTEMS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_an_operating_point_keeps_its_promise_and_no_other_threshold_is_better(one, least):
    scores, positive = system(*one)
    points = [at_threshold(scores, positive, t) for t in [math.inf, *np.unique(scores)]]
    for rule in ("sensitivity", "specificity"):
        other = {"sensitivity": "specificity", "specificity": "sensitivity"}[rule]
        chosen = at_threshold(scores, positive, choose_threshold(scores, positive, rule, least))
        assert getattr(chosen, rule) >= least - 1e-9
        enough = [getattr(p, other) for p in points if getattr(p, rule) >= least - 1e-9]
        assert getattr(chosen, other) == pytest.approx(max(enough))
    best = at_threshold(scores, positive, choose_threshold(scores, positive, "youden"))
    sums = [p.sensitivity + p.specificity for p in points]
    assert best.sensitivity + best.specificity == pytest.approx(max(sums))


def test_the_figures_of_a_point_are_those_of_its_table():
    # 90 of 100 ill and 20 of 100 well are called ill.
    scores = np.repeat([0.9, 0.1, 0.9, 0.1], [90, 10, 20, 80])
    point = at_threshold(scores, np.arange(200) < 100, 0.5)
    assert (point.sensitivity, point.specificity) == (0.9, 0.8)
    assert point.likelihood_ratios == pytest.approx((4.5, 0.125))
    # At 1 %: 0.9 ill and 19.8 well of a hundred are called ill.
    assert point.predictive_values(0.01) == pytest.approx((0.9 / 20.7, 79.2 / 79.3))
    assert point.predictive_values(0.0) == (0.0, 1.0)
    nobody = at_threshold(scores, np.arange(200) < 100, math.inf)
    assert nobody.likelihood_ratios == (None, 1.0)
    assert nobody.predictive_values(0.5) == (None, 0.5)
    with pytest.raises(ValueError, match="a prevalence lies between 0 and 1"):
        point.predictive_values(60)


# Ovarian cancer with obstruction, 43 of 49 patients: albumin, total protein, K-G score, whether
# surgery was of use. DeLong et al. (1988), as in SAS/STAT's PROC LOGISTIC ("Comparing Receiver
# Operating Characteristic Curves"), whose rounded results these are.
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""


@pytest.mark.parametrize(
    ("column", "sign", "area", "error", "interval"),
    [
        (0, 1, 0.7366, 0.0927, (0.5549, 0.9182)),
        (1, 1, 0.6478, 0.1000, (0.4518, 0.8439)),
        (2, -1, 0.7258, 0.1028, (0.5243, 0.9273)),
    ],
)
def test_delongs_variance_is_that_of_the_published_example(column, sign, area, error, interval):
    table = np.array(PATIENTS.split(), float).reshape(-1, 4)
    found = delong(sign * table[:, column], table[:, 3] == 1)
    assert found.auc == pytest.approx(area, abs=5e-5)
    assert math.sqrt(found.variance) == pytest.approx(error, abs=5e-5)
    assert found.ci95 == pytest.approx(interval, abs=5e-5)


@given(SYSTEMS)
@settings(max_examples=30, deadline=None)
def test_delongs_variance_is_that_of_its_definition(one):
    """Components of every pair, one by one: 1 for a right order, one half for a tie."""
    scores, positive = system(*one)
    ill, well = scores[positive], scores[~positive]
    pairs = np.array([[(x > y) + 0.5 * (x == y) for y in well] for x in ill], float)
    of_ill, of_well = pairs.mean(axis=1), pairs.mean(axis=0)
    want = sum(np.var(v, ddof=1) / len(v) for v in (of_ill, of_well))
    found = delong(scores, positive)
    assert found.auc == pytest.approx(pairs.mean(), abs=1e-12)
    assert found.variance == pytest.approx(want, rel=1e-9, abs=1e-15)


@given(SYSTEMS)
@settings(max_examples=30, deadline=None)
def test_patients_with_an_image_each_change_no_variance(one):
    scores, positive = system(*one)
    numbers = np.random.default_rng(0).permutation(10**4)[: len(scores)]
    alone, grouped = delong(scores, positive), delong(scores, positive, numbers)
    assert grouped.variance == pytest.approx(alone.variance, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("images", [1, 3])
def test_delong_and_the_bootstrap_agree_on_the_width(images):
    scores, positive = (np.repeat(values, images) for values in system(3, 300))
    noise = 0.02 * np.random.default_rng(0).normal(size=len(scores))
    scores, patients = np.clip(scores + noise, 0, 1), np.arange(len(scores)) // images
    low, high = delong(scores, positive, patients).ci95
    figures = bootstrap.classification(
        np.stack([1 - scores, scores], 1),
        positive.astype(int),
        patients=patients,
        resamples=2000,
    )
    assert figures["auc"] == pytest.approx(delong(scores, positive).auc, abs=1e-12)
    assert high - low == pytest.approx(np.diff(figures["auc_ci95"])[0], rel=0.08)


def test_net_benefit_is_that_of_a_calculation_by_hand():
    # Of 1000 people 100 are ill; at 10 % the model calls 80 ill and 180 well people ill.
    scores = np.repeat([0.3, 0.05, 0.3, 0.05], [80, 20, 180, 720])
    positive = np.arange(1000) < 100
    found = net_benefit(scores, positive, np.array([0.1]))
    assert found == pytest.approx([0.080 - 0.180 / 9])
    assert net_benefit_of_all(0.1, np.array([0.1])) == pytest.approx([0.1 - 0.9 / 9])
    everybody = net_benefit(np.ones(1000), positive, np.array([0.0, 0.2, 0.5]))
    np.testing.assert_allclose(everybody, net_benefit_of_all(0.1, np.array([0.0, 0.2, 0.5])))
    with pytest.raises(ValueError, match="below 1"):
        net_benefit(scores, positive, np.array([1.0]))


@given(SYSTEMS, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_parts_of_a_brier_score_add_up(one, bins):
    scores, positive = system(*one)
    parts = brier_parts(scores, positive, bins)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert whole == pytest.approx(reference.brier_score_loss(positive, scores), abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


def test_equal_scores_in_each_bin_leave_nothing_within():
    scores, positive = system(1, 90)
    parts = brier_parts(np.floor(scores * 10) / 10 + 0.05, positive)
    assert parts.within == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        ([0.1, 0.2], [True], "expected scores and truth"),
        ([0.1, math.nan], [True, False], "must be finite"),
        ([0.1, 0.2], [True, True], "with the disease and images without it"),
    ],
)
def test_what_has_no_curve_is_refused(scores, positive, message):
    with pytest.raises(ValueError, match=message):
        curve(np.array(scores), np.array(positive))


def test_too_few_for_a_variance_are_refused():
    with pytest.raises(ValueError, match="two images with the disease"):
        delong(np.array([1.0, 2, 3]), np.array([True, False, False]))
    with pytest.raises(ValueError, match="two patients with the disease"):
        delong(np.arange(4.0), np.array([True, True, False, False]), np.array([1, 1, 2, 3]))
