"""Guards: what is not finite changes nothing, and what looks wrong is said, once."""

import json
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vclip_jax import config as config_lib
from vclip_jax.devices import sharding
from vclip_jax.train import guards
from vclip_jax.train.state import TrainState

OPTIMIZER = optax.adam(0.1)


def start() -> TrainState:
    params = {"visual": {"conv1": {"kernel": jnp.ones(3)}}, "logit_scale": jnp.float32(1)}
    return TrainState(jnp.int32(0), params, {"mean": jnp.zeros(2)}, OPTIMIZER.init(params))


def plain(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
    """A step that moves everything by what is in the batch."""
    grads = jax.tree.map(lambda x: x * 0 + batch["value"], state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": batch["loss"], "grad_norm": optax.tree.norm(grads)}
    moved = {"mean": state.batch_stats["mean"] + batch["value"]}
    return TrainState(state.step + 1, params, moved, opt_state), metrics


STEP = jax.jit(guards.guarded(plain))


def batch(value: float, loss: float = 1.0) -> dict:
    return {"value": jnp.float32(value), "loss": jnp.float32(loss)}


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "bad", [batch(math.nan), batch(math.inf), batch(1.0, math.nan), batch(1.0, -math.inf)]
)
def test_an_update_that_is_not_finite_changes_nothing_but_the_step(bad):
    before, _ = STEP(start(), batch(0.5))
    after, metrics = STEP(before, bad)
    same(after.replace(step=before.step), before)
    assert (int(after.step), float(metrics["skipped"])) == (2, 1.0)


def test_a_finite_update_is_the_plain_one():
    state, expected = start(), start()
    for value in (0.5, -1.0, 2.0):
        state, metrics = STEP(state, batch(value))
        expected, _ = jax.jit(plain)(expected, batch(value))
        assert float(metrics["skipped"]) == 0.0
    same(state, expected)


@pytest.mark.parametrize(
    ("numbers", "share"), [([1, 2, 3, 4], 0.0), ([7, 7, 7, 7], 0.75), ([5, -1, 5, 2], 0.25)]
)
def test_repeated_captions_are_counted(numbers, share):
    rows = jax.sharding.NamedSharding(sharding.make_mesh(2, jax.devices()[:4]), sharding.BATCH)
    for array in (jnp.array(numbers), jax.device_put(np.array(numbers), rows)):
        assert guards.repeated(array) == share


def test_norms_are_told_by_part_and_a_step_can_measure_them():
    grads = {"visual": {"conv1": {"kernel": jnp.array([3.0, 4.0])}, "bn": jnp.array([math.nan])}}
    norms = guards.group_norms(grads)
    assert float(norms["visual/conv1"]) == 5
    assert math.isnan(norms["visual/bn"])
    updates, found = guards.measuring().update(grads, None, None)
    assert found.keys() == norms.keys()
    assert float(optax.tree.norm(updates)) == 0


def watch(**changes) -> guards.Watch:
    options = {"batch_size": 64, "patience": 3, "softmax": True, "pairs": True, "quiet_steps": 10}
    return guards.Watch(**options | changes)


def values(loss: float = 2.0, **changes) -> dict[str, float]:
    return {"loss": loss, "grad_norm": 1.0, "logit_scale": 14.3, "skipped": 0.0} | changes


def add(one: guards.Watch, flags) -> None:
    for flag in flags:
        one.record({"skipped": jnp.float32(flag)})


def test_so_many_in_a_row_are_too_many_also_over_a_resume():
    one = watch()
    add(one, [1, 1, 0, 1])
    assert not one.should_stop()
    resumed = watch(**one.counters())
    assert resumed.counters() == {"skipped": 3, "in_a_row": 1}
    add(resumed, [1, 1])
    assert resumed.should_stop()


def test_a_watch_is_the_configs_and_goes_on_counting():
    config = config_lib.default()
    config.loss.kind, config.loss.targets, config.max_skipped = "sigmoid", "caption", 7
    one = guards.Watch.of(config, {"skipped": 5, "in_a_row": 2})
    assert (one.batch_size, one.patience) == (config.global_batch_size, 7)
    assert one.quiet_steps == config.optimizer.warmup_steps
    assert not one.softmax
    assert not one.pairs
    assert one.counters() == {"skipped": 5, "in_a_row": 2}
    assert guards.Watch.of(config_lib.default(), {}).counters() == {"skipped": 0, "in_a_row": 0}


def test_what_is_not_finite_is_told_and_not_logged(caplog):
    one = watch()
    add(one, [1])
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        kept = one.check(7, values(math.nan, skipped=1.0))
    assert kept == {"grad_norm": 1.0, "logit_scale": 14.3, "skipped_steps": 1.0}
    assert "step 7 was skipped: loss nan" in caplog.text


def test_a_jump_of_the_loss_is_said(caplog):
    one = watch()
    rng = np.random.default_rng(0)
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        for step in range(20):
            one.check(step, values(2 + 0.1 * rng.standard_normal()))
        assert caplog.text == ""
        one.check(20, values(9.0))
    assert "the loss jumps from about 1.98 to 9" in caplog.text


@pytest.mark.parametrize(
    ("changes", "seen", "said"),
    [
        ({}, {"logit_scale": 100.0}, "logit_scale is at its clamp, 100"),
        ({}, {"repeated_captions": 0.8}, "80 % of the batch's captions occur"),
        ({"pairs": False}, {"repeated_captions": 0.8}, ""),
        ({}, {"loss": math.log(64)}, "as if all embeddings were the same"),
        ({"softmax": False}, {"loss": math.log(64)}, ""),
        ({"quiet_steps": 100}, {"loss": math.log(64)}, ""),
    ],
)
def test_what_looks_wrong_is_said_once(caplog, changes, seen, said):
    one = watch(**changes)
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        for step in range(20, 30):
            one.check(step, values(**seen))
    assert said in caplog.text
    assert len(caplog.records) == bool(said)


def test_a_diagnosis_names_records_layers_and_the_last_good_checkpoint(tmp_path):
    norms = {"visual/conv1": jnp.float32(math.nan), "bert/embeddings": jnp.float32(0.5)}
    error = watch(skipped=5, in_a_row=3).diagnosis(12, list("abcd"), norms, [4, 8, 12], tmp_path)
    line = str(error)
    assert line.startswith("3 updates in a row were skipped, of steps 10 to 12")
    assert "(gradients in visual/conv1; records a, b, c and 1 more)" in line
    assert "the last checkpoint before is 8" in line
    assert "\n" not in line
    told = json.loads((tmp_path / "diagnosis.json").read_text())
    assert told["gradient_norms"] == {"visual/conv1": "nan", "bert/embeddings": 0.5}
    assert told["records"] == ["a", "b", "c", "d"]
