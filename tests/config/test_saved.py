"""What a run keeps of its configuration, and what a later start may change."""

import json

import pytest

from vclip_jax import config as config_lib


def start(tmp_path, shuffle: str = "permutation") -> str:
    """Start or continue a run, up to its first figures; the order it then has."""
    config = config_lib.default()
    config.data.shuffle = shuffle
    config_lib.save_or_check(config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return config.data.shuffle


def test_a_new_run_has_the_new_order_and_keeps_it(tmp_path):
    assert start(tmp_path) == "permutation"
    assert start(tmp_path) == "permutation"


def test_a_run_from_before_the_new_order_keeps_its_own(tmp_path):
    old = config_lib.default().to_dict()
    del old["data"]["shuffle"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    for _ in range(2):  # the second start finds the key
        assert start(tmp_path) == "grain"
        assert config_lib.read(tmp_path / "config.json")["data"]["shuffle"] == "grain"


@pytest.mark.parametrize(("begun", "asked"), [("grain", "permutation"), ("permutation", "grain")])
def test_another_order_is_not_taken_up_in_the_middle_of_a_run(tmp_path, begun, asked):
    assert start(tmp_path, begun) == begun
    assert start(tmp_path, asked) == begun


def test_another_seed_is_refused_in_the_middle_of_a_run(tmp_path):
    start(tmp_path)
    config = config_lib.default()
    config.seed = 1
    with pytest.raises(ValueError, match=r"was trained with config\.seed=0, not 1"):
        config_lib.save_or_check(config, tmp_path)


def test_a_resumed_run_keeps_the_steps_of_its_epochs(tmp_path):
    config = config_lib.default()
    config.epochs, config.total_steps = 3, 45  # as counted at the start
    config_lib.save_or_check(config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    again = config_lib.default()
    again.epochs = 3
    config_lib.save_or_check(again, tmp_path)
    assert again.total_steps == config_lib.read(tmp_path / "config.json")["total_steps"] == 45
    again.epochs = 4
    with pytest.raises(ValueError, match=r"was trained with config\.epochs=3\.0, not 4\.0"):
        config_lib.save_or_check(again, tmp_path)


def test_a_start_that_was_refused_holds_no_later_one_to_its_config(tmp_path):
    config = config_lib.default()
    config_lib.save_or_check(config, tmp_path)
    config.seed = 1
    config_lib.save_or_check(config, tmp_path)
    assert config_lib.read(tmp_path / "config.json")["seed"] == 1
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    config.seed = 2
    with pytest.raises(ValueError, match=r"config\.seed=1, not 2.*--config\.restore_from="):
        config_lib.save_or_check(config, tmp_path)


def test_a_config_json_of_something_else_is_not_written_over(tmp_path):
    content = '{"architectures": ["CLIPModel"]}\n'
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is not of a run, and is kept: choose"):
        config_lib.save_or_check(config_lib.default(), tmp_path)
    assert (tmp_path / "config.json").read_text() == content
