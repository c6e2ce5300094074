"""The workdir of a training run: kept from others, and continued."""

import json
import logging
from types import SimpleNamespace

import jax.numpy as jnp
import optax
import pytest

from vclip_jax import config as config_lib
from vclip_jax.devices import processes, sharding
from vclip_jax.drills.tiny import get_config
from vclip_jax.train.build import describe, make_training
from vclip_jax.train.run import Run, open_run, open_workdir, resume, set_length, steps_of
from vclip_jax.train.state import TrainState


def test_a_workdir_says_what_runs_in_it_and_where(tmp_path, monkeypatch):
    held = []
    alone_in = processes.alone_in
    monkeypatch.setattr(processes, "alone_in", lambda path: held.append(path) or alone_in(path))
    workdir = tmp_path / "a/b"
    with open_workdir(get_config(), workdir):
        assert held == [workdir]
        assert json.loads((workdir / "config.json").read_text())["total_steps"] == 8
        assert json.loads((workdir / "environment.json").read_text())["process_count"] == 1


def test_another_config_is_refused_before_anything_of_the_run_is_changed(tmp_path):
    config = get_config()
    with open_workdir(config, tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    config.optimizer.learning_rate = 1e-5
    with (
        pytest.raises(ValueError, match=r"was trained with config\.optimizer\.learning_rate"),
        open_workdir(config, tmp_path),
    ):
        pass
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    assert after == before


@pytest.mark.parametrize(
    ("epochs", "records", "batch", "steps"),
    [
        (1, 240, 16, 15),
        (1, 241, 16, 16),  # the last batch begins the next epoch
        (3, 241, 16, 46),
        (0.1, 1000, 64, 2),
        (0.3, 1000, 100, 3),  # as decimals: in floats 0.1 * 3 is above 0.3
        (32, 800_000, 64, 400_000),
        (1e-9, 10, 64, 1),
    ],
)
def test_epochs_are_as_many_steps_as_their_records_fill(epochs, records, batch, steps):
    assert steps_of(epochs, records, batch) == steps


def test_the_length_in_epochs_is_written_down_and_stays(tmp_path):
    config = get_config()
    config.epochs = 2
    with open_workdir(config, tmp_path):
        set_length(config, tmp_path, 100)
    assert config.total_steps == config_lib.read(tmp_path / "config.json")["total_steps"] == 13
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    again = get_config()
    again.epochs = 2
    with open_workdir(again, tmp_path):
        set_length(again, tmp_path, 1000)
    assert again.total_steps == config_lib.read(tmp_path / "config.json")["total_steps"] == 13


def test_an_evaluation_in_the_workdir_is_no_start_of_a_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "eval/validation/loss": 2.0}\n')
    config = get_config()
    config.epochs = 2
    with open_workdir(config, tmp_path):
        set_length(config, tmp_path, 100)
    assert config.total_steps == config_lib.read(tmp_path / "config.json")["total_steps"] == 13


def test_without_epochs_the_steps_are_those_of_the_config(tmp_path):
    config = get_config()
    set_length(config, tmp_path, 100)
    assert config.total_steps == 8
    assert not any(tmp_path.iterdir())


def test_what_is_best_by_the_figures_outlasts_other_checkpoints(tmp_path):
    config = config_lib.default()
    config.keep_checkpoints, config.keep_best = 1, "eval/validation/loss"
    run = open_run(config, tmp_path)
    assert not run.checkpoints.any_exist()
    state = TrainState(jnp.int32(0), {"a": jnp.ones(3)}, {}, optax.EmptyState())
    with run.checkpoints:
        for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5), (4, 3.0)):
            run.checkpoints.save(state, step)
            run.metrics_log.write(step, {config.keep_best: loss})
    assert open_run(config, tmp_path).checkpoints.steps() == (2, 4)
    assert open_run(config, tmp_path).checkpoints.any_exist()


@pytest.mark.parametrize(("step", "done"), [(5, False), (8, True), (9, True)])
def test_a_run_that_is_continued_says_where_and_whether_there_is_more_to_do(
    tmp_path, caplog, step, done
):
    state = TrainState(jnp.int32(step), {}, {}, optax.EmptyState())
    checkpoints = SimpleNamespace(restore=lambda *layout: (layout, state)[1])
    run = Run(get_config(), tmp_path, None, checkpoints)
    training = SimpleNamespace(abstract=None, placement=None)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        assert resume(run, training) is state
    assert f"restored step {step} of {tmp_path}" in caplog.text
    assert (f"{tmp_path} has reached config.total_steps=8" in caplog.text) == done


def test_a_model_is_described_before_any_of_it_is_made(tmp_path, caplog):
    training = make_training(get_config(), sharding.make_mesh(2), vocab_size=30)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        describe(training, tmp_path)
    assert "parameters on 8 x cpu, mesh {'data': 4, 'fsdp': 2}" in caplog.text
    placements = json.loads((tmp_path / "placements.json").read_text())
    assert placements["params/logit_scale"] == "float32[] replicated"
