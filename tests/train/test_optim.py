"""Schedule, decay mask, AdamW against NumPy in float64, clipping, learning rates by path."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax import config
from vclip_jax.devices.tree import path_string
from vclip_jax.models.build import split_model
from vclip_jax.models.rng import seeded
from vclip_jax.train.optim import (
    decay_mask,
    learning_rate_schedule,
    make_optimizer,
    scale_by_height,
    scale_by_path,
)
from vclip_jax.train.parts import heights, names_in

# optax takes 1 - 0.999^t in float32: at t = 1 that is 0.001 with an absolute error of 2^-25, a
# relative one of 3e-5, of which the square root of the second moment sees half.
ADAM = 2e-5


def recipe(**changes):
    settings = config.default().optimizer
    settings.update(changes)
    return settings


# --- learning rate -------------------------------------------------------------------------------


def test_the_schedule_at_its_corners():
    schedule = learning_rate_schedule(5e-4, 100, 1100)
    for step, want in [
        (0, 5e-4 / 100),  # moves at once
        (49, 5e-4 / 2),
        (99, 5e-4),
        (100, 5e-4),  # the cosine starts at its top
        (350, 5e-4 * (1 + math.sqrt(0.5)) / 2),
        (600, 5e-4 / 2),
        (1100, 0.0),
        (2000, 0.0),
    ]:
        # The cosine's argument near pi is rounded to 2^-23.
        assert float(schedule(step)) == pytest.approx(want, rel=1e-6, abs=5e-4 * 2**-23)


@given(st.integers(0, 50), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_the_schedule_rises_then_falls_and_stays_between_zero_and_its_peak(warmup, total):
    # One shape for all examples, as each is compiled.
    rates = np.asarray(learning_rate_schedule(1.0, warmup, total)(jnp.arange(300)))[: total + 2]
    assert ((rates >= 0) & (rates <= 1)).all()
    assert (np.diff(rates[:warmup]) > 0).all()
    assert (np.diff(rates[warmup:]) <= 0).all()
    assert rates[min(warmup, total)] == 1 or warmup >= total


def test_a_run_shorter_than_its_warm_up_is_all_warm_up():
    params = {"kernel": jnp.ones(1)}
    optimizer = make_optimizer(recipe(weight_decay=0.0), total_steps=3)
    update, _ = optimizer.update({"kernel": jnp.ones(1)}, optimizer.init(params), params)
    np.testing.assert_allclose(update["kernel"], -5e-4 / 500, rtol=ADAM)


@pytest.mark.parametrize(("warmup", "warned"), [(9, False), (10, True), (20, True)])
def test_a_warm_up_as_long_as_the_run_is_warned_of(caplog, warmup, warned):
    chosen = config.default().optimizer
    chosen.warmup_steps = warmup
    make_optimizer(chosen, 10)
    said = [record.getMessage() for record in caplog.records if "warmup_steps" in record.message]
    assert bool(said) == warned


# --- which parameters are decayed ----------------------------------------------------------------


@pytest.fixture(scope="module")
def mask(tiny_clip) -> dict[str, bool]:
    """Path -> whether the recipe decays it, of every parameter of a CLIP."""
    _, params, _ = split_model(nnx.eval_shape(lambda: tiny_clip(seeded(0))))
    decided = decay_mask(params, tuple(recipe().no_decay))
    leaves = jax.tree_util.tree_leaves_with_path(decided)
    return {path_string(path): decays for path, decays in leaves}


@pytest.mark.parametrize(
    "path",
    [
        "visual/conv1/kernel",
        "visual/layer4/0/conv3/kernel",
        "visual/layer1/0/downsample/conv/kernel",
        "visual/layer1/0/downsample/norm/scale",
        "visual/attnpool/positional_embedding",
        "visual/attnpool/c_proj/kernel",
        "bert/embeddings/word_embeddings/embedding",
        "bert/embeddings/position_embeddings/embedding",
        "bert/embeddings/LayerNorm/scale",
        "bert/layer/0/attention/self_/query/kernel",
        "bert/layer/0/attention/output/LayerNorm/scale",
        "bert/layer/0/output/LayerNorm/scale",
        "text_projection",
    ],
)
def test_the_recipe_decays(mask, path):
    assert mask[path] is True


@pytest.mark.parametrize(
    "path",
    [
        "logit_scale",
        "visual/bn1/scale",
        "visual/layer4/0/bn3/scale",
        "visual/layer4/0/bn3/bias",
        "visual/layer1/0/downsample/norm/bias",
        "visual/attnpool/q_proj/bias",
        "bert/embeddings/LayerNorm/bias",
        "bert/layer/0/intermediate/bias",
    ],
)
def test_the_recipe_does_not_decay(mask, path):
    assert mask[path] is False


def test_the_mask_follows_the_words_and_nothing_else(mask):
    for path, decays in mask.items():
        exempt = path == "logit_scale" or path.endswith("bias") or "/bn" in path
        assert decays == (not exempt), path


def test_without_words_everything_is_decayed():
    params = {"bn1": {"bias": 1}, "logit_scale": 1}
    assert decay_mask(params, ()) == {"bn1": {"bias": True}, "logit_scale": True}


# --- the step ------------------------------------------------------------------------------------

PARAMS = {
    "kernel": np.array([[1.0, -2.0, 0.0], [0.5, 3.0, -0.25]]),
    "bias": np.array([1.0, -1.0, 0.5]),
}


def gradients(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(value.shape) for name, value in PARAMS.items()}


def single(arrays):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)


def train(settings, total: int, steps: int) -> dict[str, np.ndarray]:
    """`PARAMS` after some steps of the optimizer under test."""
    optimizer, params = make_optimizer(settings, total), single(PARAMS)
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(single(gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
    return params


def adamw(settings, rates: list[float]) -> dict[str, np.ndarray]:
    """The same by Loshchilov and Hutter 2019, algorithm 2, one step for each learning rate."""
    b1, b2 = settings.beta1, settings.beta2
    params = {name: value.copy() for name, value in PARAMS.items()}
    first = {name: np.zeros_like(value) for name, value in PARAMS.items()}
    second = {name: np.zeros_like(value) for name, value in PARAMS.items()}
    for step, rate in enumerate(rates):
        grads = gradients(step)
        norm = math.sqrt(sum(np.square(grad).sum() for grad in grads.values()))
        clip = settings.clip_grad_norm
        shrink = min(1.0, clip / norm) if clip else 1.0
        for name, param in params.items():
            grad = grads[name] * shrink
            first[name] = b1 * first[name] + (1 - b1) * grad
            second[name] = b2 * second[name] + (1 - b2) * grad**2
            mean = first[name] / (1 - b1 ** (step + 1))
            root = np.sqrt(second[name] / (1 - b2 ** (step + 1)))
            decay = 0.0 if name == "bias" else settings.weight_decay
            params[name] = param - rate * (mean / (root + settings.epsilon) + decay * param)
    return params


def assert_moved_alike(got: dict, want: dict, steps: int) -> None:
    """Parameters agree to Adam's rounding of what they moved, and to float32 of their values."""
    for name, start in PARAMS.items():
        moved = np.abs(want[name] - start).max()
        assert moved > 0
        np.testing.assert_allclose(
            np.asarray(got[name], np.float64),
            want[name],
            rtol=0,
            atol=ADAM * moved + steps * 3 * 2**-24,
        )


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.5, 100.0])
def test_steps_are_adamw_with_decoupled_decay(steps, clip):
    # A large epsilon, as otherwise Adam hides how long the gradient was.
    settings = recipe(learning_rate=0.1, epsilon=0.1, clip_grad_norm=clip, warmup_steps=3)
    got = train(settings, 30, steps)
    want = adamw(settings, [0.1 * (step + 1) / 3 for step in range(steps)])
    assert_moved_alike(got, want, steps)


def test_decay_is_no_part_of_the_moments():
    # Without gradient the decayed parameters shrink by exactly rate * decay and the others rest.
    params = single(PARAMS)
    optimizer = make_optimizer(recipe(learning_rate=0.1, weight_decay=0.2, warmup_steps=0), 5)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.2 * PARAMS["kernel"], rtol=1e-6)
    assert not np.asarray(updates["bias"]).any()


def test_clipping_sees_the_norm_over_all_parameters():
    long = recipe(epsilon=0.1, warmup_steps=0)
    short = recipe(epsilon=0.1, warmup_steps=0, clip_grad_norm=1e-3)
    small = np.abs(train(short, 9, 1)["bias"] - PARAMS["bias"]).max()
    large = np.abs(train(long, 9, 1)["bias"] - PARAMS["bias"]).max()
    # |g| / (|g| + 0.1) with |g| below 0.001.
    assert 0 < small < 5e-4 * 0.01 + 2**-23
    assert large > 5e-4 / 2


# --- learning rates by path ----------------------------------------------------------------------


def updates(settings, params):
    optimizer = make_optimizer(settings, 9)
    grads = jax.tree.map(jnp.ones_like, params)
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_factors_scale_the_whole_update_and_zero_freezes():
    params = {
        "bert": {"layer": [{"kernel": jnp.ones(3)}], "bias": jnp.ones(3)},
        "visual": {"kernel": jnp.ones(3)},
        "text_projection": jnp.ones(3),
    }
    plain = updates(recipe(), params)
    scaled = updates(
        recipe(learning_rate_factors=(("bert/layer", 0.5), ("^bert", 0.0), ("visual", 3.0))), params
    )
    layer = scaled["bert"]["layer"][0]["kernel"]
    np.testing.assert_allclose(layer, 0.5 * plain["bert"]["layer"][0]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["bert"]["bias"], np.zeros(3))
    np.testing.assert_allclose(scaled["visual"]["kernel"], 3 * plain["visual"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["text_projection"], plain["text_projection"])


def test_no_factors_change_nothing():
    params = single(PARAMS)
    jax.tree.map(
        np.testing.assert_array_equal,
        updates(recipe(), params),
        updates(recipe(learning_rate_factors=(("nothing", 0.0),)), params),
    )


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a/b", "^b", "c"]), st.floats(0, 4))))
@settings(max_examples=50, deadline=None)
def test_the_first_expression_found_decides(factors):
    tree = {"a": {"b": np.ones(1)}, "b": np.ones(1), "d": np.ones(1)}
    transformation = scale_by_path(factors)
    got, _ = transformation.update(tree, transformation.init(tree))

    def first(*patterns):
        return next((value for pattern, value in factors if pattern in patterns), 1.0)

    assert got["a"]["b"] == first("a", "b", "a/b")
    assert got["b"] == first("b", "^b")
    assert got["d"] == 1.0


def test_earlier_layers_learn_slower(tiny_clip):
    params = split_model(tiny_clip(seeded(0), text_layers=3))[1]
    tree = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), params)
    transformation = scale_by_height(0.5, heights(names_in(params)))
    got, _ = transformation.update(tree, transformation.init(tree))
    rates = {
        path_string(path): float(leaf.reshape(-1)[0])
        for path, leaf in jax.tree_util.tree_leaves_with_path(got)
    }
    expected = {
        "logit_scale": 1,
        "text_projection": 1,
        "bert/layer/2/intermediate/kernel": 1 / 2,
        "bert/layer/1/intermediate/kernel": 1 / 4,
        "bert/layer/0/intermediate/kernel": 1 / 8,
        "bert/embeddings/word_embeddings/embedding": 1 / 16,
        "visual/attnpool/c_proj/kernel": 1,
        "visual/layer4/0/conv1/kernel": 1 / 2,
        "visual/layer1/0/bn1/scale": 1 / 16,
        "visual/conv1/kernel": 1 / 32,
    }
    assert {name: rates[name] for name in expected} == expected
    # A block keeps its rate if the blocks after it are frozen.
    lower = {"bert": {"layer": {0: tree["bert"]["layer"][0]}}}
    some, _ = transformation.update(lower, transformation.init(lower))
    assert {float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(some)} == {1 / 8}
