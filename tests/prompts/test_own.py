"""The prompts that travel with a model."""

import json

import pytest

from vclip_jax import prompts
from vclip_jax.interop import __main__ as interop
from vclip_jax.interop import folder
from vclip_jax.prompts import own


@pytest.mark.parametrize("name", prompts.known())
def test_a_set_is_read_back_as_it_was(tmp_path, name):
    prompt_set = prompts.load(name)
    own.save(tmp_path, prompt_set)
    assert own.load(tmp_path) == prompt_set
    own.save(tmp_path, None)
    assert own.load(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_run_of_an_earlier_version_is_asked_its_first_evaluation(tmp_path):
    evals = {"a": {"prompts": "labels"}, "b": {"prompts": "zh/refuge"}}
    (tmp_path / "config.json").write_text(json.dumps({"evals": evals}))
    assert own.load(tmp_path) == prompts.load("zh/refuge")
    (tmp_path / "config.json").write_text(json.dumps({"evals": {}}))
    assert own.load(tmp_path) is None


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / own.FILE).write_text('{"classes": []}')
    with pytest.raises(ValueError, match=r"prompts\.json: "):
        own.load(tmp_path)


def test_a_set_is_read_in_its_language_and_within_the_context(chinese):
    assert own.reads(prompts.load("zh/idrid"), chinese, 52)
    assert not own.reads(prompts.load("zh/idrid"), chinese, 6)  # cut to the same
    assert not own.reads(prompts.load("en/fives"), chinese, 52)


def test_an_export_takes_them_along_and_its_card_asks_them(
    tmp_path, tiny_weights, tokenizer, capsys
):
    folder.save(tmp_path / "a", tiny_weights(), tokenizer, origin="a test")
    (tmp_path / "a/README.md").unlink()
    two = prompts.from_phrases({"healthy": "正常", "ill": ["青光眼", "病变"]}, "two")
    own.save(tmp_path / "a", two)
    export = ["export", "--format", "safetensors", "--model", str(tmp_path / "a"), "--out"]
    assert interop.main([*export, str(tmp_path / "b")]) == 0
    assert own.load(tmp_path / "b") == two
    card = (tmp_path / "b/README.md").read_text("utf-8")
    assert 'clip.classify(["photo.jpg"])  # healthy | ill\n' in card
    assert '{"healthy": ["正常"], "ill": ["青光眼"]}' in card

    # Another model in its place does not keep them.
    own.save(tmp_path / "a", None)
    assert interop.main([*export, str(tmp_path / "b"), "--overwrite"]) == 0
    assert own.load(tmp_path / "b") is None
