"""Prompt choices against class embeddings that are averaged, normalised and compared anew."""

import json

import numpy as np
import pytest
import scipy.special

from vclip_jax.evaluation import prompt_sensitivity
from vclip_jax.evaluation.metrics import classification
from vclip_jax.predict.scorer import class_means
from vclip_jax.prompts import Group, PromptSet

D = 6
PHRASES = (("a", "b", "c"), ("d",), ("e", "f"))
TEMPLATES = ("{}", "see {}")
NAMES = ("normal", "early", "late")
SCALE = 2.0


def prompt_set(**changes) -> PromptSet:
    filled = tuple(tuple(t.replace("{}", p) for t in TEMPLATES for p in own) for own in PHRASES)
    return PromptSet("toy", "en", NAMES, filled, templates=TEMPLATES, **changes)


def unit(rng, *shape):
    vectors = rng.standard_normal((*shape, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    parts = [unit(rng, len(texts)) for texts in prompt_set().prompts]
    return unit(rng, 80), parts, rng.integers(0, 3, 80)


def places(prompts, *, template=None, phrase=None) -> list[list[int]]:
    """The choice, from the texts themselves."""
    chosen = []
    for own, texts in zip(PHRASES, prompts.prompts, strict=True):
        wanted = [
            t.replace("{}", p)
            for t in (TEMPLATES if template is None else [TEMPLATES[template]])
            for p in (own if phrase is None else [own[phrase % len(own)]])
        ]
        chosen.append([texts.index(text) for text in wanted])
    return chosen


@pytest.mark.parametrize("renormalise", [True, False])
def test_every_choice_is_an_evaluation_with_those_prompts_alone(case, renormalise):
    images, parts, labels = case
    prompts = prompt_set(renormalise=renormalise)
    asked = {
        "template": [places(prompts, template=t) for t in range(2)],
        "phrase": [places(prompts, phrase=k) for k in range(3)],
        "single": [places(prompts, template=t, phrase=k) for k in range(3) for t in range(2)],
    }
    found = prompt_sensitivity.prompt_sensitivity(images, parts, labels, prompts, SCALE)
    assert list(found) == list(asked)
    for kind, choices in asked.items():
        rows = []
        for choice in choices:
            chosen = [part[own] for part, own in zip(parts, choice, strict=True)]
            classes = class_means(chosen, renormalise).astype(np.float64)
            answers = scipy.special.softmax(np.exp(SCALE) * images @ classes.T, axis=1)
            rows.append(classification.classification(answers, labels))
        assert found[kind]["choices"] == len(rows)
        for key in prompt_sensitivity.METRICS:
            values = [row[key] for row in rows]
            want = {"min": min(values), "median": np.median(values), "max": max(values)}
            assert found[kind][key] == pytest.approx(want, abs=1e-6)
        if kind == "template":
            assert [row["template"] for row in found[kind]["values"]] == list(TEMPLATES)
            got = [row["accuracy"] for row in found[kind]["values"]]
            assert got == [row["accuracy"] for row in rows]
    json.dumps(found, allow_nan=False)


def test_groups_are_scored_as_groups(case):
    images, parts, labels = case
    prompts = prompt_set(groups=(Group("healthy", (0,)), Group("ill", (1, 2))))
    found = prompt_sensitivity.prompt_sensitivity(
        images, parts, np.minimum(labels, 1), prompts, SCALE
    )
    assert found["single"]["accuracy"]["max"] <= 1
    plain = prompt_sensitivity.prompt_sensitivity(images, parts, labels, prompt_set(), SCALE)
    assert found["single"]["accuracy"]["min"] > plain["single"]["accuracy"]["min"]


def test_one_prompt_a_class_leaves_no_choice():
    rng = np.random.default_rng(1)
    prompts = PromptSet("toy", "en", NAMES, (("a",), ("b",), ("c",)))
    labels = np.arange(9) % 3
    parts = [unit(rng, 1) for _ in NAMES]
    assert prompt_sensitivity.prompt_sensitivity(unit(rng, 9), parts, labels, prompts, SCALE) == {}


def test_an_undefined_auc_is_none(case):
    images, parts, _ = case
    found = prompt_sensitivity.prompt_sensitivity(
        images, parts, np.zeros(80, int), prompt_set(), SCALE
    )
    assert found["single"]["auc"] is None
    assert found["single"]["accuracy"] is not None


def test_the_number_of_choices_is_bounded_and_each_class_has_one_prompt(monkeypatch):
    phrases = tuple(f"p{i}" for i in range(90))
    texts = tuple(t.replace("{}", p) for t in TEMPLATES for p in phrases)
    wide = PromptSet("wide", "en", ("x", "y"), (texts, ("a", "see a")), templates=TEMPLATES)
    kinds = prompt_sensitivity.choices(wide)
    assert {kind: len(options) for kind, options in kinds.items()} == {
        "template": 2,
        "phrase": 90,
        "single": prompt_sensitivity.MOST_CHOICES,
    }
    assert all(len(own) == 1 for choice in kinds["single"] for own in choice)
    assert all(len(choice[0]) == 2 for choice in kinds["phrase"])
    assert len({choice[0].item() for choice in kinds["single"]}) == prompt_sensitivity.MOST_CHOICES
