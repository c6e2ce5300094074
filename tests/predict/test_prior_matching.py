"""Offsets without labels: convergence, the reference, names of classes, what is said."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax import prompts
from vclip_jax.predict import prior_matching
from vclip_jax.prompts.calibration import calibrated

FIVES = prompts.load("zh/fives")
sites = st.tuples(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.floats(0.1, 20))


def site(seed, n, classes, spread):
    """Probabilities of a site, biased towards some classes, and a prevalence."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(n, classes)) + 2 * rng.normal(size=classes)
    return scipy.special.softmax(logits, axis=1), rng.dirichlet(np.full(classes, 2.0)) * 0.9 + (
        0.1 / classes
    )


@given(sites)
@settings(max_examples=40)
def test_the_mean_answer_becomes_the_prevalence_from_wherever_it_begins(case):
    probabilities, prevalence = site(*case)
    offsets = prior_matching.match(probabilities, prevalence)
    means = calibrated(probabilities, 1, offsets).mean(axis=0)
    np.testing.assert_allclose(means, prevalence, atol=1e-7)
    assert offsets.sum() == pytest.approx(0, abs=1e-9)
    elsewhere = np.random.default_rng(case[0]).normal(0, 5, len(prevalence))
    again = prior_matching.match(probabilities, prevalence, elsewhere)
    means = calibrated(probabilities, 1, again).mean(axis=0)
    np.testing.assert_allclose(means, prevalence, atol=1e-7)


@given(sites)
@settings(max_examples=20)
def test_every_round_comes_nearer_and_so_it_converges(case):
    """The function that scaling descends never rises, and is convex: Sinkhorn and Knopp's proof."""
    probabilities, prevalence = site(*case)
    log = np.log(np.maximum(probabilities, 1e-38))

    def height(offsets):
        return scipy.special.logsumexp(log + offsets, axis=1).mean() - prevalence @ offsets

    offsets, heights, distances = np.zeros(len(prevalence)), [], []
    for _ in range(30):
        means = scipy.special.softmax(log + offsets, axis=1).mean(axis=0)
        heights.append(height(offsets))
        distances.append(np.abs(means - prevalence).sum())
        offsets = offsets + np.log(prevalence / means)
    assert (np.diff(heights) <= 1e-9).all()
    assert (np.diff(distances) <= 1e-9).all()


@given(st.tuples(st.integers(0, 10_000), st.integers(5, 60), st.integers(2, 5), st.floats(0.3, 3)))
@settings(max_examples=15)
def test_the_offsets_are_those_of_scipys_minimum(case):
    probabilities, prevalence = site(*case)
    log = np.log(probabilities)

    def height(offsets):
        return scipy.special.logsumexp(log + offsets, axis=1).mean() - prevalence @ offsets

    best = scipy.optimize.minimize(height, np.zeros(len(prevalence)), method="BFGS", tol=1e-10).x
    found = prior_matching.match(probabilities, prevalence)
    np.testing.assert_allclose(found, best - best.mean(), atol=2e-4)


def test_a_model_that_is_never_in_doubt_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(prior_matching, "MOST_ROUNDS", 3)
    sure = np.where(np.eye(2)[np.arange(40) % 2] > 0, 1.0, 1e-30)
    with pytest.raises(ValueError, match="too sure of its answers"):
        prior_matching.match(sure, np.array([0.9, 0.1]))


def test_it_finds_the_bias_that_was_put_in():
    """A calibrated model whose logits were moved: the true prevalence moves them back."""
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 20_000, p=[0.6, 0.3, 0.1])
    logits = np.log([0.6, 0.3, 0.1]) + 2 * np.eye(3)[labels] * 0
    evidence = rng.normal(1.5 * np.eye(3)[labels], 1.0)
    logits = logits + 1.5 * evidence  # the posterior of normal evidence with mean 1.5
    bias = np.array([-2.0, 1.5, 0.5])
    found = prior_matching.match(
        scipy.special.softmax(logits + bias, axis=1), np.bincount(labels) / len(labels)
    )
    np.testing.assert_allclose(found, -(bias - bias.mean()), atol=0.05)


# --- What was stated.


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"normal": 0.6, "amd": 0.05, "dr": 0.25, "glaucoma": 0.1}, [0.6, 0.05, 0.25, 0.1]),
        ({"正常": 0.5, "青光眼": 0.2, "AMD": 0.1}, [0.5, 0.1, 0.2, 0.2]),
        ({"Normal": 0.5, "age-related": 0.1, "diabetic": 0.1}, [0.5, 0.1, 0.1, 0.3]),
        ({"glaucoma": 0.1, "dr": 0.2, "normal": 0.3, "amd": 0.403}, None),
    ],
)
def test_classes_go_by_usual_names_and_one_may_be_left_out(stated, found):
    values = prior_matching.by_class(stated, FIVES.class_names)
    assert values.sum() == pytest.approx(1)
    if found is not None:
        np.testing.assert_allclose(values, found)


@pytest.mark.parametrize(
    ("stated", "classes", "message"),
    [
        ({"normal": 0.6, "amd": 0.1}, FIVES.class_names, "the prevalence lacks diabetic"),
        (
            {"normal": 0.9, "amd": 0.05, "dr": 0.05},
            FIVES.class_names,
            "the prevalence lacks glaucoma",
        ),
        (
            {"normal": 0.6, "amd": 0.1, "dr": 0.1, "glaucoma": 0.1},
            FIVES.class_names,
            "adds up to 0.9 instead of 1",
        ),
        ({"cataract": 0.5}, FIVES.class_names, "'cataract' is none of the classes normal, age"),
        ({"AMD": 0.1, "amd": 0.2}, FIVES.class_names, "names 'age-related macular degen"),
        ({"mild": 0.5}, ("mild dr", "mild amd"), "'mild' fits several of the classes mild dr"),
    ],
)
def test_a_prevalence_that_means_nothing_is_refused_in_one_line(stated, classes, message):
    with pytest.raises(ValueError, match=message):
        prior_matching.by_class(stated, classes)


# --- The dependence of the answers on it.


def test_answers_of_a_sure_model_do_not_depend_on_the_prior_and_those_of_an_unsure_one_do():
    sure = np.where(np.eye(2)[np.arange(100) % 2] > 0, 0.999, 0.001)
    for one in prior_matching.dependence(sure, [0.5, 0.5], np.zeros(2), ("a", "b")):
        assert (one.halved, one.doubled) == (0, 0)
    rng = np.random.default_rng(0)
    dim = scipy.special.softmax(rng.normal(0, 0.3, (400, 2)), axis=1)
    prevalence = np.array([0.5, 0.5])
    offsets = prior_matching.match(dim, prevalence)
    first, _ = prior_matching.dependence(dim, prevalence, offsets, ("a", "b"))
    # The reference: with the odds of a halved its offset falls until a third of the mean is left.
    lower = prior_matching.match(dim, np.array([1 / 3, 2 / 3]))
    answers = [calibrated(dim, 1, o).argmax(axis=1) for o in (offsets, lower)]
    assert first.halved == np.mean(answers[0] != answers[1]) > 0.3


def test_a_calibration_names_its_photographs_and_warns_if_answers_depend_on_the_prevalence():
    rng = np.random.default_rng(0)
    values = scipy.special.softmax(rng.normal(0, 0.2, (60, 4)), axis=1).astype(np.float32)
    stated = {"normal": 0.4, "amd": 0.2, "dr": 0.2, "glaucoma": 0.2}
    found, shifts = prior_matching.calibrate(
        values, stated, FIVES, model="m", data="a folder", temperature=2.0
    )
    assert (found.method, found.n, found.temperature) == ("prevalence", 60, 2.0)
    np.testing.assert_allclose(
        found.apply(values).astype(np.float64).mean(axis=0), [0.4, 0.2, 0.2, 0.2], atol=1e-6
    )
    few, depends = prior_matching.notes(found, shifts)
    assert few == "60 photographs are few to set offsets: 100 or more are better"
    assert depends.startswith("the answers depend on the stated prevalence: with half the odds of")
    with pytest.raises(
        ValueError, match="19 photographs are too few to set offsets: name at least 20"
    ):
        prior_matching.calibrate(values[:19], stated, FIVES, model="m", data="a folder")
