"""The loop's bookkeeping: rows, the progress bar, saves, the end of a training that diverges."""

import json
import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vclip_jax import config as config_lib
from vclip_jax.devices import sharding
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.train.goodput import open_goodput
from vclip_jax.train.guards import SkippedError
from vclip_jax.train.loop import Loop
from vclip_jax.train.run import Run
from vclip_jax.train.state import TrainState

RECORDS = [{"key": f"k{number}"} for number in range(8)]
BATCH = {"caption_id": jnp.arange(4)}


class Checkpoints:
    """Keeps what is saved in memory; `fail` is what the next look at it finds."""

    def __init__(self, guards=None):
        self.failed, self.saved, self.guards, self.fail = 0, {}, guards, None

    def check(self, *, wait=False):
        if self.fail is not None:
            raise self.fail

    def save(self, state, step, **position):
        self.saved[step] = position

    def steps(self):
        return tuple(sorted(self.saved))

    def position(self, step):
        return {"step": step} | ({} if self.guards is None else {"guards": self.guards})


class Batches:
    seconds_waited = 0.0

    def __next__(self):
        return BATCH


@pytest.fixture
def config():
    config = config_lib.default()
    config.total_steps, config.global_batch_size, config.max_skipped = 10, 4, 2
    config.optimizer.warmup_steps = 5
    return config


def make_loop(config, tmp_path, checkpoints=None, *, step=0, norms=None) -> Loop:
    run = Run(
        config, tmp_path, MetricsLog(tmp_path / "metrics.jsonl"), checkpoints or Checkpoints()
    )
    goodput = open_goodput(config, tmp_path, sharding.make_mesh(1), step, began=0.0)
    training = SimpleNamespace(gradient_norms=norms)
    return Loop(run, training, RECORDS, Batches(), goodput, step)


def metrics(loss: float = 2.0) -> dict:
    values = {"loss": loss, "logit_scale": 14.3, "grad_norm": 1.0}
    values["skipped"] = float(not math.isfinite(loss))
    return {name: jnp.float32(value) for name, value in values.items()}


def rows(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def follow(loop: Loop, step: int, loss: float = 2.0) -> None:
    found = metrics(loss)
    loop.follow(found, catch_up=True)
    loop.log(step, found, loop.next_batch())


def test_a_row_has_the_steps_figures_the_runs_speed_and_the_rate_it_was_taken_at(config, tmp_path):
    with make_loop(config, tmp_path) as loop:
        follow(loop, 1)
        follow(loop, 2, 1.5)
    first, second = rows(tmp_path)
    assert (first["step"], first["loss"], second["loss"]) == (1, 2.0, 1.5)
    assert first["repeated_captions"] == 0
    assert first["examples_per_second"] > 0
    peak = config.optimizer.learning_rate
    assert second["learning_rate"] - first["learning_rate"] == pytest.approx(peak / 5)
    assert not {"skipped", "skipped_steps", "failed_saves"} & first.keys()
    assert json.loads((tmp_path / "goodput.json").read_text())["step"] == 2


def test_saves_that_failed_are_counted_in_the_row_or_end_the_run_before_it(config, tmp_path):
    checkpoints = Checkpoints()
    checkpoints.failed = 3
    with make_loop(config, tmp_path, checkpoints) as loop:
        follow(loop, 1)
        checkpoints.fail = OSError("the disk is full")
        with pytest.raises(OSError, match="the disk is full"):
            follow(loop, 2)
    assert [(row["step"], row["failed_saves"]) for row in rows(tmp_path)] == [(1, 3.0)]


def test_a_save_keeps_the_counters_with_which_a_resume_goes_on(config, tmp_path):
    checkpoints = Checkpoints()
    with make_loop(config, tmp_path, checkpoints) as loop:
        for loss in (math.nan, 2.0, math.nan):
            loop.follow(metrics(loss), catch_up=False)
        loop.save(None, 3)
    assert checkpoints.saved == {3: {"guards": {"skipped": 2, "in_a_row": 1}}}
    again = Checkpoints(checkpoints.saved[3]["guards"])
    with make_loop(config, tmp_path, again, step=3) as loop:
        loop.follow(metrics(), catch_up=False)
        loop.save(None, 4)
    assert again.saved[4]["guards"] == {"skipped": 2, "in_a_row": 0}


@pytest.mark.parametrize("step", [0, 3])
def test_checkpoints_without_counters_start_them_at_0(config, tmp_path, step):
    checkpoints = Checkpoints()
    with make_loop(config, tmp_path, checkpoints, step=step) as loop:
        loop.save(None, step + 1)
    assert checkpoints.saved[step + 1]["guards"] == {"skipped": 0, "in_a_row": 0}


def test_too_many_skipped_updates_end_the_run_with_the_last_steps_records(config, tmp_path):
    asked = []

    def norms(state, batch):
        asked.append((int(state.step), batch))
        return {"bert": jnp.float32(math.nan)}

    state = TrainState(jnp.int32(5), {}, {}, optax.EmptyState())
    with make_loop(config, tmp_path, step=4, norms=norms) as loop:
        follow(loop, 5, math.nan)
        loop.stop_if_diverged(5, state, BATCH)
        assert asked == []
        follow(loop, 6, math.nan)
        with pytest.raises(SkippedError, match="2 updates in a row were skipped, of steps 5 to 6"):
            loop.stop_if_diverged(6, state.replace(step=jnp.int32(6)), BATCH)
    assert asked == [(5, BATCH)]
    told = json.loads((tmp_path / "diagnosis.json").read_text())
    assert len(told["records"]) == 4
    assert set(told["records"]) < {record["key"] for record in RECORDS}


def test_the_bar_moves_a_step_at_a_time_and_has_the_last_rows_figures(config, tmp_path, capsys):
    with make_loop(config, tmp_path, step=4) as loop:
        assert loop._progress.n == 4
        assert loop._progress.desc.startswith("compiling")
        follow(loop, 5, 2.345678)
        loop.show()
        assert loop._progress.n == 5
        assert loop._progress.desc.startswith("loss 2.346  ")
        loop.follow(metrics(1.0), catch_up=False)
        loop.show()
        assert loop._progress.n == 6
        assert loop._progress.desc.startswith("loss 2.346  ")
    assert "6/10" in capsys.readouterr().err


def test_work_between_steps_is_booked_on_its_account_even_where_it_fails(config, tmp_path):
    loop = make_loop(config, tmp_path)
    with pytest.raises(RuntimeError), loop, loop.booked("evaluation"):
        raise RuntimeError
    seconds = json.loads((tmp_path / "goodput.json").read_text())["seconds"]
    assert loop._goodput.seconds["evaluation"] > 0
    assert np.isfinite(list(seconds.values())).all()


def test_a_trace_is_written_though_the_loop_breaks_off(config, tmp_path):
    config.profile.first, config.profile.steps = 0, 5
    loop = make_loop(config, tmp_path)
    loop.next_batch()
    loop.follow(metrics(), catch_up=True)
    with pytest.raises(KeyboardInterrupt), loop:
        raise KeyboardInterrupt
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))
