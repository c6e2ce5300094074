"""Temperature and offsets against scipy and scikit-learn; draws, folds, what they are worth."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from vclip_jax.evaluation.calibration import fit as fit_lib
from vclip_jax.evaluation.calibration.fit import cross_validated, draw, fit, folds_of
from vclip_jax.evaluation.metrics.classification import classification
from vclip_jax.prompts.calibration import calibrated


def answers(seed, n, classes=4, temperature=0.4, bias=1.5):
    """Over-sure, biased probabilities and labels of a model whose logits are otherwise right."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in scipy.special.softmax(logits, 1)])
    moved = (logits + bias * np.linspace(-1, 1, classes)) / temperature
    return scipy.special.softmax(moved, axis=1), labels


def test_it_finds_the_temperature_and_the_bias_that_were_put_in():
    values, labels = answers(0, 20_000)
    temperature, offsets = fit(values, labels)
    assert temperature == pytest.approx(1 / 0.4, rel=0.03)
    np.testing.assert_allclose(offsets, -1.5 * np.linspace(-1, 1, 4), atol=0.06)


@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(2, 6))
@settings(max_examples=25)
def test_the_solution_is_the_only_one_and_scipys_from_elsewhere(seed, n, classes):
    values, labels = answers(seed, n, classes)
    log = np.log(values)

    def loss(x):
        own = scipy.special.log_softmax(x[0] * log + x[1:], axis=1)[np.arange(n), labels]
        ridge = (x[0] - 1) ** 2 / fit_lib.SLOPE**2 + x[1:] @ x[1:] / fit_lib.OFFSET**2
        return -own.sum() + ridge / 2

    temperature, offsets = fit(values, labels)
    start = np.r_[2.0, np.random.default_rng(seed).normal(0, 2, classes)]
    bounds = [(1e-3, None), *[(None, None)] * classes]
    other = scipy.optimize.minimize(loss, start, method="SLSQP", bounds=bounds, tol=1e-12)
    found = np.r_[1 / temperature, offsets]
    assert loss(found) <= other.fun + 1e-6
    np.testing.assert_allclose(found, other.x, atol=5e-3)
    assert offsets.sum() == pytest.approx(0, abs=1e-9)


def test_of_two_classes_it_is_a_logistic_regression_with_a_ridge(monkeypatch):
    """With a ridge too weak to be felt: slope and intercept of scikit-learn's, unpenalised."""
    monkeypatch.setattr(fit_lib, "SLOPE", 1e4)
    monkeypatch.setattr(fit_lib, "OFFSET", 1e4)
    values, labels = answers(3, 400, 2)
    margin = np.log(values[:, 1:] / values[:, :1])
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(margin, labels)
    temperature, offsets = fit(values, labels)
    assert 1 / temperature == pytest.approx(expected.coef_.item(), rel=1e-4)
    assert offsets[1] - offsets[0] == pytest.approx(expected.intercept_.item(), abs=1e-4)


def test_without_photographs_nothing_changes_and_five_do_little_harm():
    temperature, offsets = fit(np.empty((0, 3)), np.empty(0, int))
    assert (temperature, *offsets) == (1, 0, 0, 0)
    # Right answers of a calibrated model: the ridge keeps five labels near what was there.
    for seed in range(5):
        values, labels = answers(seed, 5, 3, temperature=1, bias=0)
        temperature, offsets = fit(values, labels)
        assert 0.3 < temperature < 4
        assert np.abs(offsets).max() < 1.5


def test_a_class_without_a_photograph_keeps_a_finite_offset():
    values, labels = answers(1, 200)
    temperature, offsets = fit(values[labels != 2], labels[labels != 2])
    assert np.isfinite([temperature, *offsets]).all()
    assert offsets.argmin() == 2 or offsets[2] < 0


def test_fifty_labels_improve_the_likelihood_of_photographs_that_were_not_seen():
    values, labels = answers(5, 2000)
    for seed in range(5):
        drawn = draw(2000, 50, seed)
        out = np.setdiff1d(np.arange(2000), drawn)
        after = calibrated(values, *fit(values[drawn], labels[drawn]))
        before, found = (classification(p[out], labels[out])["nll"] for p in (values, after))
        assert found < before - 0.3


# --- Draws and folds.


def test_shots_are_drawn_again_the_same_and_fewer_are_among_more():
    few, many = draw(100, 10, 7), draw(100, 40, 7)
    np.testing.assert_array_equal(few, draw(100, 10, 7))
    assert set(few) < set(many)
    assert len(few) == 10
    assert set(few) != set(draw(100, 10, 8))
    assert draw(100, None, 7).tolist() == list(range(100))
    assert len(draw(5, 50, 0)) == 5


@given(st.integers(0, 1000), st.integers(2, 90), st.integers(1, 5), st.integers(2, 10))
def test_folds_are_even_in_size_and_in_the_photographs_of_a_class(seed, n, classes, folds):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    fold = folds_of(labels, folds, seed)
    np.testing.assert_array_equal(fold, folds_of(labels, folds, seed))
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for c in range(classes):
        assert np.ptp(np.bincount(fold[labels == c], minlength=folds)) <= 1


def test_cross_validation_fits_each_fold_on_the_others():
    values, labels = answers(2, 40)
    found = cross_validated(values, labels, 4, 9)
    fold = folds_of(labels, 4, 9)
    for number in range(4):
        own = fold == number
        expected = calibrated(values[own], *fit(values[~own], labels[~own]))
        np.testing.assert_allclose(found[own], expected)


def test_patients_are_drawn_whole_and_folds_part_none():
    patients = np.repeat(np.arange(30), [1, 2, 3] * 10)[np.random.default_rng(0).permutation(60)]
    drawn = draw(60, 20, 5, patients)
    others = np.setdiff1d(np.arange(60), drawn)
    assert not set(patients[drawn]) & set(patients[others])
    assert 20 <= len(drawn) < 23
    assert set(draw(60, 10, 5, patients)) <= set(drawn)
    labels = np.random.default_rng(1).integers(0, 3, 30)[patients]
    fold = folds_of(labels, 5, 2, patients)
    assert all(len(set(fold[patients == who])) == 1 for who in range(30))
    assert set(fold) == set(range(5))


def test_one_photograph_a_patient_changes_no_draw_and_no_fold():
    patients = np.random.default_rng(0).permutation(40)
    labels = np.arange(40) % 3
    np.testing.assert_array_equal(draw(40, 12, 3, patients), draw(40, 12, 3))
    np.testing.assert_array_equal(folds_of(labels, 4, 3, patients), folds_of(labels, 4, 3))
    values = np.random.default_rng(1).dirichlet(np.ones(3), 40)
    np.testing.assert_array_equal(
        cross_validated(values, labels, 4, 3, patients), cross_validated(values, labels, 4, 3)
    )


def test_cross_validation_fits_without_the_photographs_of_the_patient():
    """With a class for each patient alone, a fit that saw the patient would know its offset."""
    patients = np.repeat(np.arange(6), 10)
    labels = np.repeat([0, 0, 0, 1, 1, 1], 10)
    values = np.full((60, 2), 0.5)
    found = cross_validated(values, labels, 6, 0, patients)
    # Without the own patient's ten photographs, its class is the rarer one of the other fifty.
    assert (found[np.arange(60), labels] < 0.5).all()
