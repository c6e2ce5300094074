"""CLIP's ResNet: its size, its pieces against NumPy, and what training changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.devices import tree
from vclip_jax.models.resnet import (
    AttentionPool,
    Bottleneck,
    MeanPool,
    ModifiedResNet,
    average_pool,
    mean_by_reduce_window,
    mean_by_reshape,
    rectified_sum,
)
from vclip_jax.models.rng import seeded

RN50 = {"layers": (3, 4, 6, 3), "width": 64, "image_size": 224, "embed_dim": 1024}
TINY = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32, "embed_dim": 6}


def abstract(**sizes):
    """The model's shapes alone: structure and variables."""
    model = nnx.eval_shape(lambda: ModifiedResNet(**sizes, rngs=seeded(0)))
    return nnx.split(model)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_rn50_has_the_published_number_of_parameters():
    params = nnx.filter_state(abstract(**RN50)[1], nnx.Param)
    assert tree.count(params) == 38_316_896


@pytest.mark.parametrize("size", [32, 64, 96, 224])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_multiple_of_32_gives_one_vector_an_image(size, dtype):
    graphdef, variables = abstract(**{**TINY, "image_size": size}, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    out = jax.eval_shape(
        lambda variables, images: nnx.merge(graphdef, variables)(images, train=False),
        variables,
        images,
    )
    assert out.shape == (2, 6)
    assert out.dtype == dtype


def test_attention_takes_the_image_size_that_it_was_made_for_only():
    graphdef, variables = abstract(**TINY)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    with pytest.raises(ValueError, match="shape"):
        jax.eval_shape(lambda v, x: nnx.merge(graphdef, v)(x, train=False), variables, images)


# --- average pooling -----------------------------------------------------------------------------


@given(
    height=st.integers(2, 7), width=st.integers(2, 7), window=st.integers(1, 3), seed=st.integers()
)
@settings(max_examples=20, deadline=None)
def test_average_pooling_is_the_mean_over_whole_windows_only(height, width, window, seed):
    x = normal(seed % 2**32, 2, height, width, 3)
    got = np.asarray(average_pool(jnp.asarray(x), window, train=False))
    rows, columns = height // window, width // window
    assert got.shape == (2, rows, columns, 3)
    for row in range(rows):
        for column in range(columns):
            block = x[:, row * window :, column * window :][:, :window, :window]
            # A mean of at most nine numbers of order 1 in float32.
            np.testing.assert_allclose(
                got[:, row, column], block.astype(np.float64).mean((1, 2)), rtol=1e-6, atol=1e-6
            )


def test_the_odd_rest_does_not_count():
    x = normal(0, 1, 5, 5, 2)
    changed = x.copy()
    changed[:, 4], changed[:, :, 4] = np.nan, np.nan
    for train in (False, True):
        np.testing.assert_array_equal(
            average_pool(changed, 2, train=train), average_pool(x, 2, train=train)
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("height", "width", "window"), [(4, 6, 2), (7, 5, 2), (6, 7, 3)])
def test_each_platforms_pooling_has_the_same_values_and_gradients(height, width, window, dtype):
    x = jnp.asarray(normal(0, 2, height, width, 3), dtype)
    bar = jnp.asarray(normal(1, 2, height // window, width // window, 3), dtype)
    rounding = {"rtol": 2**-7, "atol": 2**-8} if dtype == jnp.bfloat16 else {"rtol": 1e-6}
    got, want = (
        (y, *pull(bar))
        for y, pull in (
            jax.vjp(lambda x, f=f: f(x, window), x)
            for f in (mean_by_reduce_window, mean_by_reshape)
        )
    )
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(*(np.asarray(v, np.float32) for v in (a, b)), **rounding)


def test_a_rectified_sum_has_the_values_and_gradients_of_relu():
    x, y, bar = (jnp.asarray(normal(seed, 3, 4, 5)) for seed in range(3))
    got, pull = jax.vjp(rectified_sum, x, y)
    want, expected = jax.vjp(lambda x, y: nnx.relu(x + y), x, y)
    np.testing.assert_array_equal(got, want)
    for a, b in zip(pull(bar), expected(bar), strict=True):
        np.testing.assert_array_equal(a, b)


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (6, 1), (8, 2)])
def test_a_fresh_block_is_its_rectified_shortcut(inputs, stride, train):
    block = Bottleneck(inputs, 2, stride, dtype=jnp.float32, rngs=seeded(0))
    x = jnp.asarray(normal(1, 2, 4, 4, inputs))
    if (inputs, stride) == (8, 1):
        assert block.downsample is None
        shortcut = x
    else:
        shortcut = nnx.clone(block.downsample)(x, train=train)
    np.testing.assert_array_equal(block(x, train=train), jnp.maximum(shortcut, 0))


def test_a_block_with_a_scale_is_no_longer_its_shortcut():
    block = Bottleneck(8, 2, 1, dtype=jnp.float32, rngs=seeded(0))
    x = jnp.asarray(normal(1, 2, 4, 4, 8))
    block.bn3.scale[...] = jnp.ones(8)
    assert np.abs(block(x, train=False) - jnp.maximum(x, 0)).max() > 0.01


# --- attention pooling ---------------------------------------------------------------------------


def reference_attention_pool(pool: AttentionPool, x: np.ndarray) -> np.ndarray:
    """PyTorch's multi_head_attention_forward with the mean as the only query, in float64."""
    wide = functools.partial(np.asarray, dtype=np.float64)

    def linear(layer, x):
        return x @ wide(layer.kernel[...]) + wide(layer.bias[...])

    batch, width = len(x), x.shape[-1]
    flat = x.astype(np.float64).reshape(batch, -1, width)
    tokens = np.concatenate([flat.mean(axis=1, keepdims=True), flat], axis=1)
    tokens = tokens + wide(pool.positional_embedding[...])
    query, key, value = (linear(p, tokens) for p in (pool.q_proj, pool.k_proj, pool.v_proj))
    out, size = np.empty((batch, width)), width // pool.heads
    for row in range(batch):
        for head in range(pool.heads):
            part = slice(head * size, (head + 1) * size)
            scores = key[row, :, part] @ query[row, 0, part] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[row, part] = weights / weights.sum() @ value[row, :, part]
    return linear(pool.c_proj, out)


def test_attention_pooling_equals_multi_head_attention_of_the_mean():
    pool = AttentionPool(6, 12, 3, 5, dtype=jnp.float32, rngs=seeded(0))
    # Spread the weights, so that attention is far from uniform.
    pool.q_proj.kernel[...] *= 3
    x = 2 * normal(2, 4, 2, 3, 12)
    # Softmax turns the rounding of scores of order 30 into relative errors of 30 * 2^-24.
    np.testing.assert_allclose(
        pool(jnp.asarray(x)), reference_attention_pool(pool, x), rtol=1e-5, atol=1e-5
    )


def test_attention_pooling_sees_where_things_are():
    pool = AttentionPool(6, 12, 3, 5, dtype=jnp.float32, rngs=seeded(0))
    x = normal(2, 1, 2, 3, 12)
    assert np.abs(pool(jnp.asarray(x)) - pool(jnp.asarray(x[:, ::-1]))).max() > 1e-3


def test_mean_pooling_is_the_projected_mean_of_all_positions():
    pool = MeanPool(12, 5, dtype=jnp.float32, rngs=seeded(0))
    x = normal(2, 4, 2, 3, 12)
    mean = x.astype(np.float64).mean(axis=(1, 2))
    want = mean @ np.asarray(pool.c_proj.kernel[...]) + np.asarray(pool.c_proj.bias[...])
    np.testing.assert_allclose(pool(jnp.asarray(x)), want, rtol=1e-5, atol=1e-6)


# --- the tower -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tower(random_variables):
    """Parameters, batch statistics and the jitted forward pass of a tiny tower."""
    make = functools.partial(ModifiedResNet, **TINY)
    graphdef, params, batch_stats = random_variables(lambda rngs: make(rngs=rngs))

    @functools.partial(jax.jit, static_argnums=1)
    def forward(images, train):
        model = nnx.merge(graphdef, params, batch_stats)
        features = model(images, train=train)
        return features, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return batch_stats, forward


def test_evaluation_leaves_batch_statistics_and_training_changes_every_one(tower):
    before, forward = tower
    images = jnp.asarray(normal(0, 4, 32, 32, 3))
    # A mean and a variance of the stem's three norms and of four in each of the four blocks.
    assert len(jax.tree.leaves(before)) == 2 * (3 + 4 * 4)
    jax.tree.map(np.testing.assert_array_equal, before, forward(images, False)[1])
    after = forward(images, True)[1]
    changed = jax.tree.map(lambda a, b: (np.asarray(a) != np.asarray(b)).all(), before, after)
    assert all(jax.tree.leaves(changed))


def test_only_in_training_an_image_depends_on_its_neighbours(tower):
    _, forward = tower
    images = jnp.asarray(normal(0, 4, 32, 32, 3))
    alone = images.at[1:].set(0.0)
    np.testing.assert_array_equal(forward(images, False)[0][0], forward(alone, False)[0][0])
    difference = forward(images, True)[0][0] - forward(alone, True)[0][0]
    assert np.abs(difference).max() > 1e-3
