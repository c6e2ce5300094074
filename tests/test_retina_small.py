"""The model in the package, `retina-small`: its size, its card, and the figures of its card.

The card's figures are those of the stand-ins in `configs/retina_small.py`, without calibration.
"""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors import safe_open

import vclip_jax
from vclip_jax import prompts
from vclip_jax.datasets import prepare
from vclip_jax.evaluation.metrics.classification import classification
from vclip_jax.files import packaged
from vclip_jax.predict.embeddings import embed_split
from vclip_jax.predict.scorer import class_probabilities

ROOT = Path(__file__).parents[1]
MODEL = packaged.ROOT / packaged.DEFAULT

pytestmark = pytest.mark.skipif(
    not MODEL.is_dir(), reason="the package has no retina-small: see configs/retina_small.py"
)


@pytest.fixture(scope="module")
def clip():
    return vclip_jax.load(packaged.DEFAULT)


@pytest.fixture(scope="module")
def card() -> str:
    return (MODEL / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def stand_ins():
    """The synthetic evaluations of the recipe: name -> entry."""
    path = ROOT / "configs/retina_small.py"
    spec = importlib.util.spec_from_file_location("retina_small", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evals = module.get_config().evals
    return {n: entry for n, entry in evals.items() if entry.dataset.startswith("synthetic/")}


def figures_of(card: str) -> dict[str, dict[str, float]]:
    """Evaluation -> figure -> value, from the card's metadata."""
    index = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    return {
        result["dataset"]["name"]: {m["type"]: m["value"] for m in result["metrics"]}
        for result in index
    }


def score(clip, entry, dataset, folder):
    """The figures of a built dataset, from cosines alone."""
    prepare(dataset, "", folder)
    split = embed_split(clip, dataset, folder, entry.split)
    asked = prompts.for_classes(entry.prompts, split.class_names, dataset)
    vectors = clip.class_embeddings(asked)
    answers = class_probabilities(split.images, vectors, jnp.float32(clip.logit_scale))
    labels = asked.numbers(split.class_names)[split.labels]
    return classification(np.asarray(answers), labels, ordered=asked.ordered)


def test_it_is_small():
    with safe_open(MODEL / "model.safetensors", framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        matrices = {file.get_slice(name).get_dtype() for name, s in shapes.items() if len(s) > 1}
    assert matrices == {"F16"}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) <= 8_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 12 << 20
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 13 << 20


def test_the_card_says_where_it_comes_from_and_what_it_is_not_for(card):
    for words in (
        "license: apache-2.0",
        "Trained on `synthetic/",
        "seed ",
        "Commit of vclip_jax: ",
        "Out of scope: diagnosis",
        "Not a medical device",
        "accuracy [95 % CI]",
        "stored as float16",
    ):
        assert words in card, words


def test_its_usual_answers_are_calibrated(clip, card):
    entry = clip.calibration_of(clip.asked())
    assert entry is not None
    assert entry.prompts == "zh/fives"
    assert "then moved to the stated shares of a site (normal 0.6" in card


def test_the_card_has_every_stand_in(card, stand_ins):
    assert stand_ins
    assert stand_ins.keys() <= figures_of(card).keys()


def test_a_few_drawings_are_scored_about_as_the_card_says(clip, card, stand_ins, tmp_path):
    name = "fives_like"
    few = stand_ins[name].dataset.replace("-600-", "-64-")
    assert few != stand_ins[name].dataset
    found = score(clip, stand_ins[name], few, tmp_path)
    stated = figures_of(card)[name]["accuracy"]
    # Four standard errors of 64 photographs.
    assert abs(found["accuracy"] - stated) < 4 * np.sqrt(stated * (1 - stated) / 64)


@pytest.mark.slow
def test_the_stand_ins_have_the_cards_figures(clip, card, stand_ins, tmp_path):
    for name, entry in stand_ins.items():
        found = score(clip, entry, entry.dataset, tmp_path)
        # The card's are of float32 weights: a few of 600 photographs may change sides.
        for figure, allowed in {"auc": 0.003, "accuracy": 0.01, "balanced_accuracy": 0.01}.items():
            stated = figures_of(card)[name][figure]
            assert found[figure] == pytest.approx(stated, abs=allowed), (name, figure)
