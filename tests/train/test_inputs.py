"""What a config names is opened, and a run keeps to the data that it began with."""

import json
import logging
from dataclasses import dataclass

import pytest

from vclip_jax import config as config_lib
from vclip_jax.evaluation.tasks import open_zero_shot_tasks
from vclip_jax.train.inputs import check_data, open_training_data


@dataclass
class Source:
    """Stands for an opened dataset."""

    content: str
    name: str = "mine"
    splits: tuple[str, ...] = ("train",)

    def __len__(self) -> int:
        return 32

    def digest(self) -> str:
        return self.content


def test_a_run_goes_on_with_the_data_that_it_began_with_alone(tmp_path):
    check_data(tmp_path, {"train": Source("aaaa"), "validation": None})
    before = (tmp_path / "data.json").read_text()
    check_data(tmp_path, {"train": Source("aaaa")}, resumes=True)
    with pytest.raises(
        ValueError,
        match=r"began with other data: mine:train had 32 records \(digest aaaa\), now 32 "
        r"\(bbbb\): build it again from the same files, or choose another --workdir",
    ):
        check_data(tmp_path, {"train": Source("bbbb")}, resumes=True)
    assert (tmp_path / "data.json").read_text() == before


def test_a_run_that_has_not_begun_may_take_other_data(tmp_path):
    check_data(tmp_path, {"train": Source("aaaa")})
    check_data(tmp_path, {"train": Source("bbbb")})
    assert json.loads((tmp_path / "data.json").read_text())["train"]["digest"] == "bbbb"


def test_other_evaluation_data_is_said_each_time(tmp_path, caplog):
    check_data(tmp_path, {"evals.fives": Source("aaaa", "fives", ("test",))})
    for _ in range(2):
        caplog.clear()
        check_data(tmp_path, {"evals.fives": Source("bbbb", "fives", ("test",))}, resumes=True)
        assert "fives:test had 32 records (digest aaaa), now 32 (bbbb)" in caplog.text
    caplog.clear()
    check_data(tmp_path, {"evals.fives": Source("cccc", "fives", ("train",))}, resumes=True)
    assert not caplog.text  # the config names another split


def test_one_message_names_every_split_that_differs(tmp_path, caplog):
    def sources(content):
        splits = {"validation": "validation", "test": "test", "evals.mine": "test"}
        return {role: Source(content, "mine", (split,)) for role, split in splits.items()}

    check_data(tmp_path, {"train": Source("aaaa")} | sources("aaaa"))
    check_data(tmp_path, {"train": Source("aaaa")} | sources("bbbb"), resumes=True)
    (message,) = caplog.messages
    assert message.count("mine:validation had 32 records (digest aaaa), now 32 (bbbb)") == 1
    assert message.count("mine:test had 32 records (digest aaaa), now 32 (bbbb)") == 1
    with pytest.raises(ValueError, match=r"mine:train had .*; mine:validation had .*; mine:test"):
        check_data(tmp_path, {"train": Source("bbbb")} | sources("bbbb"), resumes=True)
    assert len(caplog.messages) == 1


def test_a_run_of_an_earlier_version_goes_on_and_keeps_the_digest_from_now_on(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "vclip_jax"):
        check_data(tmp_path, {"train": Source("aaaa")}, resumes=True)
    assert "has no record of its data" in caplog.text
    assert json.loads((tmp_path / "data.json").read_text())["train"]["digest"] == "aaaa"
    with pytest.raises(ValueError, match="began with other data"):
        check_data(tmp_path, {"train": Source("bbbb")}, resumes=True)


def test_data_whose_content_is_not_known_is_not_compared(tmp_path):
    check_data(tmp_path, {"train": Source("")})
    check_data(tmp_path, {"train": Source("bbbb")}, resumes=True)


def test_what_is_not_built_is_named_with_the_command_that_builds_it(tmp_path, caplog):
    config = config_lib.default()
    config.data.dataset, config.data.data_dir = "synfundus", f"{tmp_path}/my data"
    config.evals.fives = config_lib.zero_shot_eval("fives", "zh/fives")
    command = "vclip datasets build {} --source DIR --data-dir '" + str(tmp_path)
    with pytest.raises(ValueError, match=command.format("synfundus")):
        open_training_data(config)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        assert open_zero_shot_tasks(config) == []
    assert command.format("fives") in caplog.text


def test_what_is_wrong_with_a_split_or_a_folder_is_said_with_its_key(tmp_path, write_idrid):
    config = config_lib.small()
    config.global_batch_size = 2
    config.data.dataset, config.data.data_dir = "idrid", f"{tmp_path}/data"
    config.data.source = str(tmp_path)
    with pytest.raises(ValueError, match=r"^config\.data\.source: .*IDRiD"):
        open_training_data(config)
    config.data.source = str(write_idrid(tmp_path / "idrid"))
    with pytest.raises(ValueError, match=r"^config\.data\.validation_split: idrid has no split"):
        open_training_data(config)
    config.data.validation_split = config.data.test_split = ""
    assert len(open_training_data(config)[0])
    config.data.train_split = "training"
    with pytest.raises(ValueError, match=r"^config\.data\.train_split: idrid has no split 'tra"):
        open_training_data(config)
    config.evals.x = config_lib.zero_shot_eval("idrid", "zh/fives", split="train")
    with pytest.raises(ValueError, match=r"^config\.evals\.x\.prompts: prompt set zh/fives is for"):
        open_zero_shot_tasks(config)
    config.evals.x.split = "none"
    with pytest.raises(ValueError, match=r"^config\.evals\.x\.split: idrid has no split 'none'"):
        open_zero_shot_tasks(config)
