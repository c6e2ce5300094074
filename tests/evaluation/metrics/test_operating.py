"""Operating points and curves of a class against the rest, as evaluations store them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from vclip_jax.evaluation.metrics import bootstrap, operating
from vclip_jax.evaluation.metrics.classification import wilson_interval
from vclip_jax.evaluation.metrics.thresholds import choose_threshold, curve_bands


def case(seed: int = 0, n: int = 120, levels: int = 0):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = True, False
    scores = 1 / (1 + np.exp(-(1.5 * positive + rng.standard_normal(n))))
    return (np.round(scores * levels) / levels if levels else scores), positive


@given(st.integers(0, 99), st.sampled_from([0, 5, 20]))
@settings(max_examples=25, deadline=None)
def test_points_are_those_of_confusion_matrices_at_thresholds_of_the_development_split(
    seed, levels
):
    scores, positive = case(seed, levels=levels)
    development = case(seed + 100, levels=levels)
    found = operating.operating_points(scores, positive, development=development, prevalence=0.1)
    assert (found["n"], found["n_positive"], found["prevalence"]) == (120, positive.sum(), 0.1)
    assert [(p["rule"], p["least"]) for p in found["points"]] == list(operating.POINTS)
    for point, (rule, least) in zip(found["points"], operating.POINTS, strict=True):
        threshold = choose_threshold(*development, rule, least)
        called = scores >= threshold
        tn, fp, fn, tp = sklearn.confusion_matrix(positive, called, labels=[False, True]).ravel()
        assert point["threshold"] == (threshold if np.isfinite(threshold) else None)
        assert [
            point[f"{side}_{kind}"]
            for side in ("true", "false")
            for kind in ("positives", "negatives")
        ] == [*(tp, tn, fp, fn)]
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        assert point["sensitivity"] == pytest.approx(sensitivity, abs=1e-12)
        assert point["specificity"] == pytest.approx(specificity, abs=1e-12)
        assert point["sensitivity_ci95"] == pytest.approx(list(wilson_interval(tp, tp + fn)))
        ill, well = 0.1 * sensitivity, 0.9 * (1 - specificity)
        if tp + fp:
            assert point["ppv"] == pytest.approx(ill / (ill + well))
        else:
            assert point["ppv"] is None


def test_intervals_are_of_as_many_independent_images_as_there_are_patients():
    scores, positive = case()
    twice = operating.operating_points(
        np.repeat(scores, 2), np.repeat(positive, 2), patients=np.repeat(np.arange(120), 2)
    )
    once = operating.operating_points(scores, positive)
    wrong = operating.operating_points(np.repeat(scores, 2), np.repeat(positive, 2))

    def width(found, point):
        low, high = found["points"][point]["specificity_ci95"]
        return high - low

    for point in range(3):
        assert width(twice, point) == pytest.approx(width(once, point), rel=0.03)
        assert width(wrong, point) < 0.8 * width(once, point)
    assert twice["auc_delong_ci95"] == pytest.approx(once["auc_delong_ci95"], abs=0.01)


def test_brier_is_that_of_scikit_learn_and_the_sum_of_its_parts():
    scores, positive = case()
    parts = operating.operating_points(scores, positive)["brier"]
    assert parts["score"] == pytest.approx(sklearn.brier_score_loss(positive, scores), abs=1e-12)
    whole = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]
    assert whole == pytest.approx(parts["score"], abs=1e-12)
    assert "brier" not in operating.operating_points(scores * 3, positive)


@pytest.mark.parametrize("levels", [0, 4])
def test_curves_are_those_of_scikit_learn(levels):
    scores, positive = case(3, n=90, levels=levels)
    found = operating.curves(scores, positive, resamples=0)
    rate, sensitivity, _ = sklearn.roc_curve(positive, scores, drop_intermediate=False)
    grid = np.array(found["roc"]["false_positive_rate"])
    last = np.flatnonzero(np.diff(rate, append=2))  # a vertical step counts by its upper end
    want = np.interp(grid, rate[last], sensitivity[last])
    np.testing.assert_allclose(found["roc"]["sensitivity"], want, atol=1e-5)
    precision, recall, _ = sklearn.precision_recall_curve(positive, scores)
    for at, value in zip(
        found["precision_recall"]["sensitivity"][1:],
        found["precision_recall"]["precision"][1:],
        strict=True,
    ):
        reached = np.flatnonzero(recall >= at - 1e-12)[-1]  # the highest threshold that reaches it
        assert value == pytest.approx(precision[reached], abs=1e-5)
    assert found["average_precision"] == pytest.approx(
        sklearn.average_precision_score(positive, scores), abs=1e-9
    )
    assert found["average_precision_ci95"] is None
    assert "low" not in found["roc"]
    json.dumps(found, allow_nan=False)


def test_bands_hold_the_curve_and_narrow_with_more_images_but_not_with_copies():
    scores, positive = case(1, n=100)
    many, truth = case(1, n=1600)
    copied = curve_bands(
        np.repeat(scores, 4),
        np.repeat(positive, 4),
        patients=np.repeat(np.arange(100), 4),
        resamples=400,
    )
    few = curve_bands(scores, positive, resamples=400)
    more = curve_bands(many, truth, resamples=400)

    def width(found):
        return float(np.mean(found["roc"]["high"] - found["roc"]["low"]))

    for found in (copied, few, more):
        inside = (found["roc"]["low"] <= found["roc"]["sensitivity"] + 1e-9) & (
            found["roc"]["sensitivity"] <= found["roc"]["high"] + 1e-9
        )
        assert inside.mean() > 0.95
    assert width(copied) == pytest.approx(width(few), rel=0.1)
    assert width(more) < 0.5 * width(few)
    low, high = bootstrap.interval(few["average_precision"])
    assert low < sklearn.average_precision_score(positive, scores) < high


def test_resamples_of_bands_are_those_of_the_figures():
    scores, positive = case(2)
    both = np.stack([1 - scores, scores], axis=1)
    aucs = bootstrap.distributions(both, positive.astype(int), resamples=50, seed=7)["auc"]
    drawn = list(bootstrap.resampled(len(scores), None, 50, seed=7))
    again = [sklearn.roc_auc_score(positive, scores, sample_weight=one) for one in drawn]
    np.testing.assert_allclose(again, aucs, atol=1e-9)


def test_the_second_of_two_classes_is_put_against_the_rest_else_all():
    assert list(operating.positives(2)) == [1]
    assert list(operating.positives(4)) == [0, 1, 2, 3]
