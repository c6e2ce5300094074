"""Every recipe loads, passes the checks, and the paper's is what it was reviewed to be."""

import importlib.util
from pathlib import Path

import pytest

from vclip_jax import config as config_lib
from vclip_jax import prompts
from vclip_jax.config import checks

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_says_how_to_run_it(path):
    module = load(path)
    config = module.get_config()
    checks.validate(config, devices=1, training=bool(config.data.dataset))
    for entry in config.evals.values():
        prompts.load(entry.prompts)
    assert f"--config configs/{path.name}" in module.__doc__
    assert "Hardware:" in module.__doc__


@pytest.mark.parametrize("name", ["quickstart", "visionclip"])
def test_a_recipe_divides_among_eight_devices(name):
    checks.validate(load(ROOT / "configs" / f"{name}.py").get_config(), devices=8)


def test_the_papers_recipe_is_the_reviewed_one():
    """If this fails on purpose: `vclip config configs/visionclip.py` writes the file;
    have it reviewed."""
    text = config_lib.as_text(load(ROOT / "configs/visionclip.py").get_config())
    assert text == (ROOT / "tests/golden/visionclip.txt").read_text()


PAPERS = {"visionclip": 400_000, "visionclip_h100_8": 12_500, "visionclip_tpu_v5e_256": 781}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_model_trains_and_is_scored_on_the_papers_data(name):
    config = load(ROOT / f"configs/{name}.py").get_config()
    assert config.data.dataset == "synfundus"
    assert config.total_steps == PAPERS[name] == 32 * 800_000 // config.global_batch_size
    assert set(config.evals) == {"messidor", "fives", "refuge"}
    assert 0 < config.eval_every < config.total_steps / 10
    assert config.keep_best == "eval/validation/loss"  # not by the external datasets


def test_the_trial_on_idrid_is_an_argument():
    config = load(ROOT / "configs/visionclip.py").get_config("idrid")
    checks.validate(config, devices=1)
    assert (config.data.dataset, config.total_steps) == ("idrid", 1000)
    assert set(config.evals) == {"idrid"}


@pytest.mark.parametrize("name", ["external", "table1"])
def test_a_dataset_of_ones_own_is_scored_by_its_name(name):
    config = load(ROOT / f"configs/{name}.py").get_config("fives,mine,yours/512px-q92")
    checks.validate(config, devices=1, training=False)
    assert {key: entry.dataset for key, entry in config.evals.items()} == {
        "fives": "fives",
        "mine": "mine",
        "yours": "yours/512px-q92",
    }
    assert (config.evals.fives.prompts, config.evals.fives.split) == ("zh/fives", "train+test")
    assert (config.evals.mine.prompts, config.evals.mine.split) == ("labels", "test")


@pytest.mark.parametrize("name", ["visionclip", "quickstart"])
def test_an_unknown_key_is_named_with_the_nearest_known_one(name):
    config = load(ROOT / "configs" / f"{name}.py").get_config()
    with config.unlocked():
        config.optimizer.learning_rat = 1.0
    with pytest.raises(ValueError, match=r"did you mean config\.optimizer\.learning_rate"):
        checks.validate(config, devices=1)
