"""Calibrations travel with a model, and only with that model."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from vclip_jax import prompts
from vclip_jax.interop import folder, model_card, source
from vclip_jax.interop.__main__ import main
from vclip_jax.interop.weights import Weights, digest
from vclip_jax.prompts import calibration
from vclip_jax.prompts.calibration import Calibration

WORDS = prompts.load("zh/refuge")


@pytest.fixture
def model(portable_folder, tmp_path) -> Path:
    return Path(shutil.copytree(portable_folder, tmp_path / "m"))


@pytest.fixture
def entry(model) -> Calibration:
    weights, tokenizer = folder.load(model)
    return Calibration(
        model=digest(weights.config, weights.arrays, tokenizer),
        prompts=WORDS.name,
        prompts_digest=calibration.digest_of(WORDS),
        classes=WORDS.class_names,
        temperature=1.5,
        offsets=(0.25, -0.25),
        method="labels",
        data="refuge:test",
        n=50,
    )


def export(model: Path, target: Path) -> int:
    words = ["export", "--format", "safetensors", "--model", str(model), "--out", str(target)]
    return main([*words, "--overwrite"])


def test_an_export_has_the_calibration_and_an_export_without_one_has_none(model, entry, tmp_path):
    calibration.save(model / calibration.FILE, entry)
    assert export(model, tmp_path / "out") == 0
    assert calibration.beside(tmp_path / "out") == (entry,)
    imported = tmp_path / "in"
    words = ["import", "--format", "safetensors", "--source", str(model), "--out", str(imported)]
    assert main(words) == 0
    assert calibration.beside(imported) == (entry,)
    (model / calibration.FILE).unlink()
    assert export(model, tmp_path / "out") == 0
    assert calibration.beside(tmp_path / "out") == ()


def test_that_of_other_weights_is_left_out_and_that_is_said(model, entry, tmp_path, capsys):
    other = dataclasses.replace(entry, model="0" * 64)
    calibration.save(model / calibration.FILE, other)
    assert export(model, tmp_path / "out") == 0
    assert "is for other weights: left out" in capsys.readouterr().out
    assert calibration.beside(tmp_path / "out") == ()


def test_the_digest_is_the_models_wherever_it_lies_and_of_each_part(model, tiny_weights, tokenizer):
    weights, words = folder.load(model)
    first = digest(weights.config, weights.arrays, words)
    again, same_words = folder.load(model)
    assert digest(again.config, again.arrays, same_words) == first
    name = next(iter(weights.arrays))
    moved = {**weights.arrays, name: weights.arrays[name] + 1e-3}
    assert digest(weights.config, moved, words) != first
    config = {**weights.config, "data": {**weights.config["data"], "enhance": True}}
    assert digest(config, weights.arrays, words) != first
    assert digest(weights.config, weights.arrays, tokenizer) != first


def test_an_evaluation_takes_what_lies_beside_a_file_or_nothing(model, entry, tmp_path):
    weights, tokenizer = folder.load(model)
    assert source.calibrations(model, weights, tokenizer) == ()
    calibration.save(model / calibration.FILE, entry)
    assert source.calibrations(model, weights, tokenizer) == (entry,)
    assert source.calibrations(model, weights, tokenizer, "off") == ()
    named = str(model / calibration.FILE)
    assert source.calibrations(tmp_path, weights, tokenizer, named) == (entry,)
    other = Weights(weights.config, {**weights.arrays})
    other.arrays[next(iter(other.arrays))] = next(iter(weights.arrays.values())) + 1
    with pytest.raises(ValueError, match="the calibration is for the model"):
        source.calibrations(model, other, tokenizer)


def test_the_card_says_what_calibrates_and_how_to_switch_it_off(tiny_weights, tokenizer, entry):
    stated = dataclasses.replace(
        entry,
        method="prevalence",
        data="a folder",
        prevalence={"no glaucoma": 0.9, "glaucoma": 0.1},
    )
    plain, card, other = (
        model_card.write(tiny_weights(), tokenizer, "from w", calibrations=found)
        for found in ((), (entry,), (stated,))
    )
    assert "## Calibration" not in plain
    assert (
        "- zh/refuge: temperature 1.50; no glaucoma +0.25, glaucoma -0.25; fitted on 50 labelled "
        "photographs of refuge:test." in card
    )
    assert 'calibration="off"' in card
    assert "so that the mean answer is a stated prevalence (no glaucoma 0.9, glaucoma 0.1)" in other


def test_an_existing_card_gets_the_calibrations_of_its_folder_in_place_of_older_ones():
    card = "# A model\n\n## Limits\n\n- Some.\n\n## Training data and licence\n\nMine.\n"
    entry = Calibration(
        model="a1",
        prompts="zh/refuge",
        prompts_digest="",
        classes=("no glaucoma", "glaucoma"),
        temperature=2.0,
        offsets=(0.5, -0.5),
        method="labels",
        data="drawn:test",
        n=9,
        prevalence={"no glaucoma": 0.9, "glaucoma": 0.1},
    )
    once = model_card.with_calibrations(card, [entry])
    assert "moved to the stated shares of a site (no glaucoma 0.9, glaucoma 0.1)" in once
    assert once.index("## Limits") < once.index("## Calibration") < once.index("## Training data")
    assert model_card.with_calibrations(once, [entry]) == once
    assert model_card.with_calibrations(once, []) == card
    short = card.partition("## Training")[0]
    once = model_card.with_calibrations(short, [entry])
    assert once.count("## Calibration") == 1
    assert model_card.with_calibrations(once, [entry]).count("## Calibration") == 1
    mine = card.replace("## Limits", "## Calibration\n\nWords of my own.\n\n## Limits")
    assert "Words of my own." in model_card.with_calibrations(mine, [])
