"""Zero-shot evaluation of findings: each is asked by itself, of images that it is rated in."""

import csv
import dataclasses
import io

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vclip_jax import config
from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.findings import evaluate_findings
from vclip_jax.evaluation.metrics import findings as metrics
from vclip_jax.evaluation.metrics.thresholds import choose_threshold
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.prompts.findings import for_findings

NAMES = ("glaucoma", "diabetic retinopathy")
N, D, SCALE = 40, 6, 2.0
ASKED = for_findings("zh/odir", NAMES, "toy")


def unit(rng, *shape):
    vectors = rng.standard_normal((*shape, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class Source(list):
    name, finding_names, class_names = "toy", NAMES, ()

    def __init__(self, truth, split="test", **more):
        super().__init__(
            {"key": f"{split}{i}", "findings": dict(zip(NAMES, map(int, row), strict=True)), **more}
            for i, row in enumerate(truth)
        )
        self.split = split


class Scorer:
    def __init__(self, parts):
        self.parts = parts

    def prompt_embeddings(self, variables, prompt_set):
        assert prompt_set == ASKED.prompts
        return self.parts


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, (N, 2))
    truth[0] = -1
    scorer = Scorer([unit(rng, 3) for _ in ASKED.prompts.class_names])
    task = ZeroShotTask("toy", Source(truth), ASKED.prompts, "findings", ASKED)
    embedded = Embedded(unit(rng, N), np.full(N, -1, np.int32))
    return scorer, ({"logit_scale": jnp.float32(SCALE)}, {}), task, embedded, truth


@pytest.fixture
def settings():
    settings = config.default()
    settings.bootstrap_resamples = 200
    return settings


def reference(scorer, images):
    means = np.stack([part.mean(axis=0) for part in scorer.parts]).astype(np.float64)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    names = ASKED.prompts.class_names
    rows = []
    for name in NAMES:
        others = [k for k, other in enumerate(names) if other != name]
        rows.append(means[names.index(name)] - means[others].mean(axis=0))
    return scipy.special.expit(np.exp(SCALE) * images @ np.stack(rows).T)


def test_figures_are_those_of_present_against_absent(case, settings):
    scorer, variables, task, embedded, truth = case
    found = evaluate_findings(scorer, variables, task, embedded, settings)
    known = (truth >= 0).any(axis=1)
    want = metrics.findings(
        reference(scorer, embedded.images)[known], truth[known], NAMES, resamples=200
    )
    assert found.result["n"] == known.sum() < N
    for row, its in zip(found.result["findings"], want["findings"], strict=True):
        assert row["auc"] == pytest.approx(its["auc"])
        assert row["auc_ci95"] == pytest.approx(its["auc_ci95"])
        assert row["sensitivity"] == its["sensitivity"]
        assert "operating_points" not in row
    macro = found.result["macro"]
    assert found.named("toy") == {
        "eval/toy/auc": macro["auc"],
        "eval/toy/average_precision": macro["average_precision"],
    }
    point = evaluate_findings(scorer, variables, task, embedded, settings, intervals=False)
    assert point.named("toy") == found.named("toy")
    assert "bootstrap" not in point.result
    assert found.result["chosen_on"] is None


def test_the_development_split_chooses_the_thresholds(case, settings):
    scorer, variables, task, embedded, _ = case
    rng = np.random.default_rng(1)
    other_truth, others = rng.integers(0, 2, (30, 2)), unit(rng, 30)
    task = dataclasses.replace(task, development=Source(other_truth, "train"))
    development = Embedded(others, np.full(30, -1, np.int32))
    found = evaluate_findings(
        scorer, variables, task, embedded, settings, final=True, development=development
    )
    assert found.result["chosen_on"] == "train"
    for k, row in enumerate(found.result["findings"]):
        scores = reference(scorer, others)[:, k]
        want = choose_threshold(scores, other_truth[:, k] == 1, "youden")
        assert row["threshold"] == pytest.approx(want, rel=1e-5)
        assert row["operating_points"]["points"][0]["sensitivity"] == row["sensitivity"]


def test_excluded_photographs_choose_no_threshold(case, settings):
    scorer, variables, task, embedded, _ = case
    rng = np.random.default_rng(2)
    truth, others, gate = rng.integers(0, 2, (40, 2)), unit(rng, 40), np.arange(40) % 4

    def chosen(kept, refused):
        own = dataclasses.replace(task, development=Source(truth[kept], "train"))
        development = Embedded(others[kept], np.full(len(kept), -1, np.int32), refused)
        found = evaluate_findings(
            scorer, variables, own, embedded, settings, final=True, development=development
        )
        return [row["threshold"] for row in found.result["findings"]]

    every, good = np.arange(40), np.flatnonzero(gate == 0)
    settings.gate = "exclude"
    assert chosen(every, gate) == chosen(good, None)
    settings.gate = "report"
    assert chosen(every, gate) == chosen(every, None) != chosen(good, None)


def test_answers_are_a_table_of_names_and_patients_are_the_unit(case, settings):
    scorer, variables, task, embedded, truth = case
    source = Source(truth, patient="p1", facts={"sex": "f"})
    for i, record in enumerate(source):
        record["patient"] = f"p{i // 2}"
    task = dataclasses.replace(task, source=source)
    found = evaluate_findings(scorer, variables, task, embedded, settings)
    assert found.result["bootstrap"]["unit"] == "patient"
    rows = list(csv.DictReader(io.StringIO(found.table, newline="")))
    known = np.flatnonzero((truth >= 0).any(axis=1))
    assert [row["key"] for row in rows] == [f"test{i}" for i in known]
    words = {1: "present", 0: "absent", -1: ""}
    assert [row["label:glaucoma"] for row in rows] == [words[int(t)] for t in truth[known, 0]]
    scores = [float(row["p:diabetic retinopathy"]) for row in rows]
    np.testing.assert_allclose(scores, reference(scorer, embedded.images)[known, 1], rtol=1e-5)
    assert {row["sex"] for row in rows} == {"f"}
    hidden = evaluate_findings(scorer, variables, task, embedded, settings, secret=b"x")
    assert "test1" not in hidden.table
    assert evaluate_findings(scorer, variables, task, embedded, settings, keys=False).table == ""


def test_refused_photographs_are_counted_and_left_out_if_asked(case, settings):
    scorer, variables, task, embedded, truth = case
    gated = dataclasses.replace(embedded, gate=(np.arange(N) < 10).astype(np.int32))
    known = (truth >= 0).any(axis=1)
    found = evaluate_findings(scorer, variables, task, gated, settings).result
    assert found["gate"] == {"refused": int(known[:10].sum()), "excluded": False}
    assert found["n"] == known.sum()
    settings.gate = "exclude"
    assert (
        evaluate_findings(scorer, variables, task, gated, settings).result["n"] == known[10:].sum()
    )
