"""What is made of a dataset's scores: entries, groups, answers; images without a label left out."""

import dataclasses
import io
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from PIL import Image

from vclip_jax import config
from vclip_jax.data.images.gate import NOT_FUNDUS, OUT_OF_FOCUS, TOO_DARK, as_bits
from vclip_jax.evaluation import zero_shot
from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.metrics import bootstrap, classification, operating, predictions
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.evaluation.zero_shot import evaluate_zero_shot, zero_shot_points
from vclip_jax.prompts import Group, PromptSet
from vclip_jax.prompts.calibration import Calibration, digest_of

N, D, SCALE = 24, 5, 2.0
PROMPTS = PromptSet(
    "toy",
    "en",
    ("none", "mild", "severe"),
    (("a", "b"), ("c", "d"), ("e", "f")),
    (Group("healthy", (0,)), Group("ill", (1, 2))),
    templates=("{}",),
    source="made up for a test",
)


def unit(rng, n):
    vectors = rng.standard_normal((n, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Source(list):
    name, class_names = "toy", PROMPTS.class_names

    def __init__(self, records=(), split="test"):
        super().__init__(records)
        self.split = split


class Scorer:
    """Knows the prompts' embeddings."""

    def __init__(self, parts):
        self.parts = parts

    def prompt_embeddings(self, variables, prompt_set):
        return self.parts


@pytest.fixture
def case():
    """Scorer, variables, task and images, of which every fourth has no label."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "orange").save(buffer, "JPEG")
    labels = rng.integers(0, 3, N).astype(np.int32)
    labels[::4] = -1
    source = Source({"key": f"k{i}", "image": buffer.getvalue()} for i in range(N))
    scorer = Scorer([unit(rng, 2) for _ in range(3)])
    task = ZeroShotTask("toy", source, PROMPTS)
    return scorer, ({"logit_scale": jnp.float32(SCALE)}, {}), task, Embedded(unit(rng, N), labels)


@pytest.fixture
def settings():
    settings = config.default()
    settings.bootstrap_resamples = 200
    return settings


def reference(case) -> np.ndarray:
    means = np.stack([part.mean(axis=0) for part in case[0].parts]).astype(np.float64)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return scipy.special.softmax(np.exp(SCALE) * case[3].images @ means.T, axis=1)


def test_classes_and_groups_each_have_an_entry_of_the_labelled_images(case, settings):
    found = evaluate_zero_shot(*case, settings)
    assert list(found.results) == ["toy", "toy_ill"]
    answers, labels = reference(case), case[3].labels
    known = labels >= 0
    merged = np.stack([answers[:, 0], answers[:, 1:].sum(axis=1)], axis=1)
    for name, scores, truth in (("toy", answers, labels), ("toy_ill", merged, labels > 0)):
        want = bootstrap.classification(scores[known], truth[known].astype(int), resamples=200)
        result = found.results[name]
        assert result["n"] == known.sum() == 18
        assert result["confusion"] == want["confusion"]
        assert result["auc_ci95"] == pytest.approx(want["auc_ci95"])
        assert result["ece"] == pytest.approx(want["ece"], abs=1e-6)
    assert found.results["toy"]["classes"] == ["none", "mild", "severe"]
    assert found.results["toy_ill"]["classes"] == ["healthy", "ill"]
    assert found.results["toy"]["prompts"]["groups"] == ()


def test_answers_belong_to_their_images(case, settings):
    found = evaluate_zero_shot(*case, settings).predictions
    known = np.flatnonzero(case[3].labels >= 0)
    hashes = predictions.hash_keys("toy", (f"k{i}" for i in known))
    for name, answers in found.items():
        np.testing.assert_array_equal(answers.hash, hashes)
        assert len(answers.classes) == {"toy": 3, "toy_ill": 2}[name]
    np.testing.assert_allclose(found["toy"].probabilities, reference(case)[known], rtol=1e-5)
    np.testing.assert_array_equal(found["toy"].labels, case[3].labels[known])
    np.testing.assert_array_equal(found["toy_ill"].labels, case[3].labels[known] > 0)
    assert evaluate_zero_shot(*case, settings, keys=False).predictions == {}


def test_intervals_are_over_the_patients_of_the_records(case, settings):
    records = [record | {"patient": f"p{i // 3}"} for i, record in enumerate(case[2].source)]
    task = dataclasses.replace(case[2], source=Source(records))
    found = evaluate_zero_shot(case[0], case[1], task, case[3], settings)
    known = case[3].labels >= 0
    people = (np.arange(N) // 3)[known]
    want = bootstrap.classification(
        reference(case)[known], case[3].labels[known], patients=people, resamples=200
    )
    result = found.results["toy"]
    assert result["auc_ci95"] == pytest.approx(want["auc_ci95"])
    assert result["bootstrap"] == want["bootstrap"]
    assert result["bootstrap"]["units"] == len(set(people.tolist()))
    assert len(np.unique(found.predictions["toy_ill"].patients)) == len(set(people.tolist()))
    alone = evaluate_zero_shot(*case, settings).results["toy"]
    assert alone["auc"] == result["auc"]
    assert alone["auc_ci95"] != result["auc_ci95"]


def test_excluded_photographs_choose_no_threshold(case, settings):
    rng = np.random.default_rng(3)
    images, labels = unit(rng, 60), rng.integers(-1, 3, 60).astype(np.int32)
    gate = (np.arange(60) % 3).astype(np.int32)
    task = dataclasses.replace(case[2], development=Source(split="train"))

    def chosen(development):
        found = evaluate_zero_shot(
            case[0], case[1], task, case[3], settings, final=True, development=development
        )
        points = found.results["toy"]["operating_points"]
        return points["chosen_on"]["n"], points["classes"]["mild"]["points"][0]["threshold"]

    judged = Embedded(images, labels, gate)
    good = Embedded(images[gate == 0], labels[gate == 0])
    settings.gate = "exclude"
    assert chosen(judged) == chosen(good)
    settings.gate = "report"
    assert chosen(judged) == chosen(Embedded(images, labels)) != chosen(good)


def test_the_final_evaluation_adds_thresholds_curves_and_subgroups(case, settings):
    rng = np.random.default_rng(1)
    sites = ["A" if i % 2 else "B" for i in range(N)]
    records = [{**r, "facts": {"site": s}} for r, s in zip(case[2].source, sites, strict=True)]
    task = dataclasses.replace(
        case[2], source=Source(records), development=Source(split="train"), prevalence=0.2
    )
    development = Embedded(unit(rng, 40), rng.integers(-1, 3, 40).astype(np.int32))
    found = evaluate_zero_shot(
        case[0], case[1], task, case[3], settings, final=True, development=development
    )
    known = case[3].labels >= 0
    answers, truth = reference(case)[known], case[3].labels[known]
    points = found.results["toy"]["operating_points"]
    n = int((development.labels >= 0).sum())
    assert points["chosen_on"] == {"split": "train", "n": n}
    assert list(points["classes"]) == list(found.curves["toy"]) == ["none", "mild", "severe"]
    others = reference((*case[:3], development))[development.labels >= 0]
    its_truth = development.labels[development.labels >= 0]
    want = operating.operating_points(
        answers[:, 1], truth == 1, development=(others[:, 1], its_truth == 1)
    )
    got = points["classes"]["mild"]
    assert [p["true_positives"] for p in got["points"]] == [
        p["true_positives"] for p in want["points"]
    ]
    assert got["points"][0]["threshold"] == pytest.approx(want["points"][0]["threshold"], rel=1e-5)
    assert got["prevalence"] == pytest.approx(np.mean(truth == 1))
    ill = found.results["toy_ill"]["operating_points"]["classes"]
    assert list(ill) == ["ill"]
    assert ill["ill"]["prevalence"] == 0.2
    (fact,) = found.results["toy"]["subgroups"]
    assert fact == "site"
    groups = found.results["toy"]["subgroups"]["site"]["groups"]
    assert [(g["group"], g["n"]) for g in groups] == [
        (s, sum(np.array(sites)[known] == s)) for s in "AB"
    ]
    plain = evaluate_zero_shot(*case, settings)
    assert plain.curves == {}
    assert "operating_points" not in plain.results["toy"]
    own = evaluate_zero_shot(*case, settings, final=True).results["toy"]
    assert own["operating_points"]["chosen_on"] is None
    assert "subgroups" not in own


def test_a_secret_hides_the_keys_of_the_answers_only(case, settings):
    plain = evaluate_zero_shot(*case, settings)
    hidden = evaluate_zero_shot(*case, settings, secret=b"x")
    assert hidden.predictions["toy"].rows == plain.predictions["toy"].rows.hidden(b"x")
    assert hidden.results == plain.results


def test_the_words_are_varied_for_classes_and_for_groups(case, settings):
    results = evaluate_zero_shot(*case, settings).results
    for name in ("toy", "toy_ill"):
        assert results[name]["prompt_sensitivity"]["phrase"]["choices"] == 2
    lowest = {
        name: results[name]["prompt_sensitivity"]["phrase"]["accuracy"]["min"] for name in results
    }
    assert lowest["toy_ill"] >= lowest["toy"]


def test_a_mean_that_is_left_as_it_is_changes_the_answers(case, settings):
    scorer, variables, task, embedded = case
    shorter = dataclasses.replace(task, prompts=dataclasses.replace(PROMPTS, renormalise=False))
    found = evaluate_zero_shot(scorer, variables, shorter, embedded, settings).predictions["toy"]
    means = np.stack([part.mean(axis=0) for part in scorer.parts])
    want = scipy.special.softmax(np.exp(SCALE) * embedded.images @ means.T, axis=1)
    np.testing.assert_allclose(found.probabilities, want[embedded.labels >= 0], rtol=1e-5)


def test_a_point_of_the_curve_holds_the_same_figures(case, settings):
    results = evaluate_zero_shot(*case, settings).results
    points = zero_shot_points(*case)
    want = {
        f"eval/{name}/{key}": results[name][key]
        for name in results
        for key in classification.SCALARS
        if results[name][key] is not None
    }
    assert points == want


def test_classes_are_matched_by_name_and_kappa_is_of_the_prompts_order(case, settings):
    scorer, variables, task, embedded = case
    grades = dataclasses.replace(PROMPTS, groups=(), ordered=True)
    want = evaluate_zero_shot(
        scorer, variables, dataclasses.replace(task, prompts=grades), embedded, settings
    ).results["toy"]

    # The same labels, in a dataset that sorts its classes by name.
    other = Source(task.source)
    other.class_names = tuple(sorted(PROMPTS.class_names))
    numbers = np.array([other.class_names.index(name) for name in PROMPTS.class_names])
    labels = np.where(embedded.labels >= 0, numbers[embedded.labels], -1)
    renamed = ZeroShotTask("toy", other, grades)
    again = Embedded(embedded.images, labels)
    found = evaluate_zero_shot(scorer, variables, renamed, again, settings)
    assert found.results["toy"] == want
    assert want["kappa"] is not None
    points = zero_shot_points(scorer, variables, renamed, again)
    assert points["eval/toy/kappa"] == want["kappa"]
    assert [example["label"] for example in found.examples]
    assert found.predictions["toy"].ordered


def test_classes_without_an_order_have_no_kappa_anywhere(case, settings):
    scorer, variables, task, embedded = case
    named = dataclasses.replace(task, prompts=dataclasses.replace(PROMPTS, groups=()))
    result = evaluate_zero_shot(scorer, variables, named, embedded, settings).results["toy"]
    assert result["kappa"] is result["kappa_ci95"] is None
    assert result["undefined"]["kappa"] == "the classes have no order"
    assert "eval/toy/kappa" not in zero_shot_points(scorer, variables, named, embedded)


def test_two_groups_have_a_kappa_though_their_classes_have_no_order(case, settings):
    results = evaluate_zero_shot(*case, settings).results
    assert results["toy"]["kappa"] is None
    assert results["toy_ill"]["kappa"] is not None


def test_labels_of_the_groups_are_scored_as_such(case, settings):
    scorer, variables, task, embedded = case
    merged = embedded.labels.clip(max=1)
    task.source.class_names = ("healthy", "ill")
    found = evaluate_zero_shot(scorer, variables, task, Embedded(embedded.images, merged), settings)
    assert list(found.results) == ["toy"]
    answers, known = reference(case), merged >= 0
    scores = np.stack([answers[:, 0], answers[:, 1:].sum(axis=1)], axis=1)
    want = classification.classification(scores[known], merged[known])
    assert found.results["toy"]["classes"] == ["healthy", "ill"]
    assert found.results["toy"]["confusion"] == want["confusion"]
    assert found.results["toy"]["auc"] == pytest.approx(want["auc"])
    assert found.examples
    assert all(len(example["probabilities"]) == 2 for example in found.examples)


# --- The gate and a calibration.


@pytest.fixture
def gated(case):
    """The same images, of which some are refused."""
    gate = np.zeros(N, np.int32)
    gate[[1, 2]], gate[5] = as_bits([OUT_OF_FOCUS]), as_bits([NOT_FUNDUS, TOO_DARK])
    gate[4] = as_bits([TOO_DARK])  # has no label
    return dataclasses.replace(case[3], gate=gate)


@pytest.mark.parametrize(
    ("gate", "counted", "judged"),
    [
        ("report", True, True),
        ("report", False, False),
        ("exclude", True, True),
        ("exclude", False, True),
        ("off", True, False),
    ],
)
def test_photographs_are_judged_if_a_figure_needs_it(gate, counted, judged, settings, monkeypatch):
    monkeypatch.setattr(zero_shot, "_batches", lambda *_, gate: gate)
    scorer = SimpleNamespace(
        embed_rows=lambda _, asked: {"embedding": None, "label": None, "gate": asked}
    )
    settings.gate = gate
    task = SimpleNamespace(source=None)
    assert (
        zero_shot.embed_images(scorer, None, task, settings, count_refused=counted).gate is judged
    )


def test_refused_photographs_are_counted_and_left_out_on_request_alone(case, gated, settings):
    plain = evaluate_zero_shot(*case, settings).results["toy"]
    assert "gate" not in plain
    reported = evaluate_zero_shot(*case[:3], gated, settings).results
    for result in reported.values():
        assert result["gate"] == {
            "refused": 3,
            "reasons": {"not a fundus photograph; too dark": 1, "out of focus": 2},
            "excluded": False,
        }
    assert {**reported["toy"], "gate": None} == {**plain, "gate": None}
    settings.gate = "exclude"
    found = evaluate_zero_shot(*case[:3], gated, settings)
    kept = (case[3].labels >= 0) & (gated.gate == 0)
    assert found.results["toy"]["n"] == kept.sum() == 15
    assert found.results["toy"]["gate"]["excluded"] is True
    np.testing.assert_allclose(
        found.predictions["toy"].probabilities, reference(case)[kept], rtol=1e-5
    )
    points = zero_shot_points(*case[:3], gated, "exclude")
    assert points["eval/toy/accuracy"] == found.results["toy"]["accuracy"]
    every = dataclasses.replace(gated, gate=np.ones(N, np.int32))
    with pytest.raises(ValueError, match="the gate refuses every photograph with a label"):
        evaluate_zero_shot(*case[:3], every, settings)


def test_a_calibration_changes_answers_groups_and_single_wordings_and_is_named(case, settings):
    made = Calibration(
        model="m",
        prompts="toy",
        prompts_digest=digest_of(PROMPTS),
        classes=PROMPTS.class_names,
        temperature=2.0,
        offsets=(1.0, 0.0, -1.0),
        method="labels",
        data="a test",
        n=50,
    )
    plain = evaluate_zero_shot(*case, settings)
    found = evaluate_zero_shot(*case, settings, calibration=made)
    known = case[3].labels >= 0
    want = made.apply(reference(case)[known])
    np.testing.assert_allclose(found.predictions["toy"].probabilities, want, rtol=1e-5)
    groups = np.stack([want[:, 0], want[:, 1:].sum(axis=1)], axis=1)
    np.testing.assert_allclose(found.predictions["toy_ill"].probabilities, groups, rtol=1e-5)
    assert found.results["toy"]["calibration"]["temperature"] == 2.0
    assert "calibration" not in plain.results["toy"]
    phrases = [f.results["toy"]["prompt_sensitivity"]["phrase"]["auc"] for f in (plain, found)]
    assert phrases[0] != phrases[1]
    each = [
        made.apply(scipy.special.softmax(np.exp(SCALE) * case[3].images @ texts.T, axis=1))[known]
        for texts in np.stack(case[0].parts, axis=1).astype(np.float64)
    ]
    want = [bootstrap.classification(p, case[3].labels[known], resamples=100)["auc"] for p in each]
    assert phrases[1]["min"] == pytest.approx(min(want))
    assert phrases[1]["max"] == pytest.approx(max(want))
