"""The data of a run: what is opened, in which order it is refused, and what is written down."""

import json
import logging

import pytest

from vclip_jax import config as config_lib
from vclip_jax import datasets, prompts
from vclip_jax.evaluation import data
from vclip_jax.evaluation.tasks import ZeroShotTask

PROMPTS = prompts.load("zh/refuge")
WORDS = "".join(text for texts in PROMPTS.prompts for text in texts)


class Source(list):
    """Records that need no image."""

    def __init__(self, split, count=4, caption=WORDS):
        super().__init__(
            {"key": f"{split}{i}", "label": i % 2, "caption": caption} for i in range(count)
        )
        self.name, self.split, self.splits = "mine", split, (split,)
        self.class_names = ("正常", "青光眼")

    def digest(self):
        return self.split * 12


TASK = ZeroShotTask("eyes", Source("eyes"), PROMPTS)


@pytest.fixture
def config():
    config = config_lib.default()
    config.data.dataset = "mine"
    return config


@pytest.fixture
def opened(monkeypatch):
    """What the config names is there: its pairs, and the evaluations in the list."""
    tasks = [TASK]
    monkeypatch.setattr(
        data, "open_training_data", lambda config: (Source("train"), Source("validation"))
    )
    monkeypatch.setattr(data, "open_test_pairs", lambda config: None)
    monkeypatch.setattr(data, "open_zero_shot_tasks", lambda config: tasks)
    return tasks


def not_built(config):
    raise datasets.SourceNeededError("mine is not built")


def test_the_data_of_a_training_is_read_once_and_written_down(config, opened, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "vclip_jax"):
        found = data.open_data(config, tmp_path)
    assert caplog.messages[0] == "data: mine"
    assert "tokens" in caplog.messages[-1]
    assert (found.train[0]["key"], found.validation.split, found.test) == (
        "train0",
        "validation",
        None,
    )
    assert found.tasks == [TASK]
    kept = json.loads((tmp_path / "data.json").read_text())
    assert list(kept) == ["train", "validation", "evals.eyes"]
    assert (tmp_path / "vocab.txt").exists()
    assert json.loads((tmp_path / "prompts.json").read_text())


def test_data_that_has_changed_is_refused_before_the_vocabulary_is(config, opened, tmp_path):
    data.open_data(config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "vocab.txt").write_text("what a run began with is damaged")
    content = json.loads((tmp_path / "data.json").read_text())
    content["train"]["digest"] = "another"
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="began with other data: mine:train"):
        data.open_data(config, tmp_path)


def test_a_trained_model_is_scored_on_what_is_held_back(config, opened, chinese):
    found = data.open_scored_data(config, chinese)
    assert (found.train, found.validation.split, found.test) == (None, "validation", None)
    assert (found.tasks, found.tokenizer) == ([TASK], chinese)


def test_without_the_pairs_it_is_scored_on_the_evaluations(
    config, opened, chinese, monkeypatch, caplog
):
    monkeypatch.setattr(data, "open_training_data", not_built)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        found = data.open_scored_data(config, chinese)
    assert (found.validation, found.tasks) == (None, [TASK])
    assert "held-back pairs are not scored: mine is not built" in caplog.messages
    opened.clear()
    with pytest.raises(ValueError, match=r"nothing to evaluate on: name datasets in config\.evals"):
        data.open_scored_data(config, chinese)


def test_words_that_a_trained_model_does_not_know_are_said_and_not_refused(
    config, opened, chinese, monkeypatch, caplog
):
    unknown = Source("validation", caption="龘龘")
    monkeypatch.setattr(data, "open_training_data", lambda config: (None, unknown))
    data.open_scored_data(config, chinese)
    assert any("captions" in message for message in caplog.messages)


def test_of_a_model_that_is_scored_the_training_data_is_not_written_down(tmp_path):
    held_back = {"validation": Source("validation"), "test": None}
    data.check_sources(tmp_path, held_back, [TASK])
    assert list(json.loads((tmp_path / "data.json").read_text())) == ["validation", "evals.eyes"]
