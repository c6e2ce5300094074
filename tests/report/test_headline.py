"""The first lines of a report say what a reader must know before any figure."""

import numpy as np
import pytest

from vclip_jax.evaluation.metrics import bootstrap, findings
from vclip_jax.report.headline import headline
from vclip_jax.report.reader import Run

NAMES = ["normal", "dr", "amd", "glaucoma"]


def scored(counts, skill, seed=0):
    """The entry of an evaluation; `skill` of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    raw = (
        rng.random((len(labels), len(counts)))
        + np.array(skill)[labels, None] * np.eye(len(counts))[labels]
    )
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    result = bootstrap.classification(probabilities, labels, resamples=300)
    return {**result, "classes": NAMES[: len(counts)]}


def run(zero_shot=None, rated=None):
    return Run("w", {}, {}, (), zero_shot or {}, {}, {}, None, (), findings=rated or {})


def text(*args, rendered=(), **more):
    return " ".join(headline(run(*args, **more), set(rendered)))


def test_accuracy_is_held_against_the_commonest_class_where_that_is_harder_than_guessing():
    said = text({"clinic": scored([60, 80, 40, 40], [0.0, 0.0, 0.0, 0.0])})
    assert "always giving the commonest class reaches 0.364" in said
    assert "the interval of accuracy reaches that of the commonest class" in said
    said = text({"clinic": scored([50, 50, 50, 50], [2, 2, 2, 2])})
    assert "guessing reaches 0.250" in said
    assert "Believe it with care" not in said


def test_classes_without_skill_and_with_few_photographs_are_named():
    said = text({"clinic": scored([100, 100, 8, 40], [2, -0.6, 2, 2])})
    assert "fewer than 20 photographs are of amd" in said
    assert "the AUC may be that of guessing for dr (0." in said
    assert "normal (" not in said


def test_few_photographs_are_told_once():
    said = text({"clinic": scored([9, 9], [2, 2])})
    assert "18 photographs are too few to judge a model" in said
    assert "fewer than 20" not in said


def rated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n, 3))
    skill = np.array([0.6, 0.3, 0.0])
    p = np.clip(0.5 + skill * (truth - 0.5) + rng.normal(0, 0.2, truth.shape), 0, 1)
    return findings.findings(p, truth, ["dr", "amd", "scar"], resamples=200)


def test_a_run_of_findings_alone_has_first_lines_too():
    said = text(rated={"clinic": rated()})
    assert "the mean AUC of 3 findings is" in said
    assert "(scar) to 0.9" in said
    assert "guessing for scar" in said
    assert "from a probability of 0.5 on, which no split has chosen" in said
    said = text(rated={"clinic": {**rated(), "chosen_on": "train"}})
    assert "0.5 on" not in said


@pytest.mark.parametrize("damage", [{"per_class": None}, {"classes": 3}, {"macro": "x"}])
def test_damaged_entries_are_no_error(damage):
    entry = {**scored([50, 50], [1, 1]), **damage}
    assert text({"clinic": entry})
    text(rated={"clinic": {**rated(), **damage}})


def test_real_photographs_come_before_rendered_ones():
    entries = {"like": scored([200, 200], [2, 2]), "clinic": scored([60, 60], [1, 1])}
    assert "of clinic" in text(entries, rendered=["like"])
    said = text({"like": entries["like"]}, rendered=["like"])
    assert "rendered images of like" in said
    assert "say nothing about patients" in said


def test_photographs_of_the_training_and_of_the_choice_are_named():
    entry = {**scored([100, 100], [1, 1]), "trained_on": "mine:train"}
    assert "the model was trained on mine:train, which is among" in text({"clinic": entry})
    page = Run("w", {"keep_best": "eval/clinic/auc"}, {}, (), {"clinic": entry}, {}, {}, None, ())
    assert "chosen by a figure of these photographs" in headline(page, set())[1]
    page = Run("w", {"keep_best": "eval/other/auc"}, {}, (), {"clinic": entry}, {}, {}, None, ())
    assert "chosen by" not in headline(page, set())[1]
