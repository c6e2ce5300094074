"""Batch norm, by itself and after a 1x1 convolution, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.layers import Conv
from vclip_jax.models.rng import seeded

# Sums of tens to hundreds of float32 products of order 1.
ROUNDING = {"rtol": 2e-6, "atol": 5e-6}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_norm(channels: int, dtype=jnp.float32) -> BatchNorm:
    """A norm whose four vectors are all of them non-trivial."""
    norm = BatchNorm(channels, dtype=dtype, rngs=seeded(0))
    rng = np.random.default_rng(1)
    for variable in (norm.scale, norm.bias, norm.mean, norm.var):
        variable[...] = jnp.asarray(rng.uniform(0.5, 2.0, channels), jnp.float32)
    return norm


def vectors(norm: BatchNorm) -> tuple[np.ndarray, ...]:
    variables = norm.scale, norm.bias, norm.mean, norm.var
    return tuple(np.asarray(v[...], np.float64) for v in variables)


def affine(x, mean, var, scale, bias):
    return (np.asarray(x, np.float64) - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize("shape", [(6, 5, 3, 4), (32, 4), (2, 1, 1, 4)])
def test_training_normalises_with_the_batchs_own_biased_moments(shape):
    x = 2 * normal(0, *shape) + 1
    norm = batch_norm(4)
    scale, bias, _, _ = vectors(norm)
    flat = x.reshape(-1, 4).astype(np.float64)
    want = affine(x, flat.mean(0), flat.var(0), scale, bias)
    np.testing.assert_allclose(norm(jnp.asarray(x), train=True), want, **ROUNDING)


@pytest.mark.parametrize("shape", [(6, 5, 3, 4), (2, 1, 1, 4)])
def test_running_statistics_move_a_tenth_towards_mean_and_unbiased_variance(shape):
    norm = batch_norm(4)
    _, _, mean, var = vectors(norm)
    for seed in range(3):
        x = 2 * normal(seed, *shape) + 1
        norm(jnp.asarray(x), train=True)
        flat = x.reshape(-1, 4).astype(np.float64)
        mean = 0.9 * mean + 0.1 * flat.mean(0)
        var = 0.9 * var + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(norm.mean[...], mean, **ROUNDING)
    np.testing.assert_allclose(norm.var[...], var, **ROUNDING)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    norm = batch_norm(4)
    before = vectors(norm)
    scale, bias, mean, var = before
    x = normal(3, 2, 3, 3, 4)
    np.testing.assert_allclose(
        norm(jnp.asarray(x), train=False), affine(x, mean, var, scale, bias), **ROUNDING
    )
    for left, right in zip(before, vectors(norm), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("shape", "value"), [((1, 4), 1.0), ((8, 3, 3, 4), 300.1)])
def test_values_without_variance_give_the_bias(shape, value):
    # What is left of x - mean is the rounding of x, and of E[x^2] - E[x]^2 (which may fall below
    # zero) nothing, so the gain is up to 2 / sqrt(1e-5) = 633.
    norm = batch_norm(4)
    bias = vectors(norm)[1]
    y = np.asarray(norm(jnp.full(shape, value), train=True))
    np.testing.assert_allclose(y, np.broadcast_to(bias, shape), atol=633 * value * 2**-23)
    assert all(np.isfinite(v).all() for v in vectors(norm))


def test_statistics_of_bfloat16_input_are_float32():
    norm = batch_norm(4, jnp.bfloat16)
    x = jnp.asarray(normal(4, 64, 8, 8, 4), jnp.bfloat16)
    y = norm(x, train=True)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    flat = np.asarray(x, np.float64).reshape(-1, 4)
    _, _, mean, var = vectors(batch_norm(4))
    np.testing.assert_allclose(norm.mean[...], 0.9 * mean + 0.1 * flat.mean(0), **ROUNDING)
    np.testing.assert_allclose(norm.var[...], 0.9 * var + 0.1 * flat.var(0, ddof=1), **ROUNDING)


def test_gradients_do_not_flow_into_the_running_statistics():
    def moved(x):
        norm = BatchNorm(4, dtype=jnp.float32, rngs=seeded(0))
        norm(x, train=True)
        return norm.mean[...].sum() + norm.var[...].sum()

    assert not np.asarray(jax.grad(moved)(jnp.asarray(normal(5, 6, 4)))).any()


def test_a_norm_starts_as_the_identity_on_running_statistics():
    norm = BatchNorm(3, dtype=jnp.float32, rngs=seeded(0))
    for got, want in zip(vectors(norm), (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(got, np.full(3, want))


@pytest.mark.parametrize("per_device", [False, True])
def test_devices_normalise_together_or_each_by_itself(per_device):
    x = 2 * normal(0, 6, 5, 3, 4) + np.arange(6).reshape(6, 1, 1, 1)
    norm = batch_norm(4)
    norm.per_device = per_device
    graphdef, variables = nnx.split(norm)

    def run(variables, x):
        module = nnx.merge(graphdef, variables)
        return module(x, train=True), nnx.state(module, nnx.BatchStat)

    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    mesh = Mesh(jax.devices()[:3], ("data",))
    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=(everywhere, rows), out_specs=(rows, everywhere)
    )
    got, moved = jax.jit(mapped)(variables, jnp.asarray(x))
    parts = np.split(x, 3) if per_device else [x]
    wants = [batch_norm(4) for _ in parts]
    want = [n(jnp.asarray(part), train=True) for n, part in zip(wants, parts, strict=True)]
    np.testing.assert_allclose(got, np.concatenate(want), **ROUNDING)
    for name in ("mean", "var"):
        np.testing.assert_allclose(moved[name][...], getattr(wants[0], name)[...], **ROUNDING)


# --- after a 1x1 convolution ---------------------------------------------------------------------


def pair(inputs: int, channels: int, dtype=jnp.float32) -> tuple[BatchNorm, Conv]:
    conv = Conv(inputs, channels, 1, dtype=dtype, rngs=seeded(2))
    return batch_norm(channels, dtype), conv


def of_convolution(norm: BatchNorm, conv: Conv, x: jax.Array) -> jax.Array:
    return norm.of_convolution(conv, x, train=True)


def one_after_the_other(norm: BatchNorm, conv: Conv, x: jax.Array) -> jax.Array:
    return norm(conv(x), train=True)


def outcome(function, norm: BatchNorm, conv: Conv, x, weights) -> tuple:
    """Output, gradients of a weighted sum by all that is learnt and by `x`, running statistics."""
    graphdef, params, rest = nnx.split((norm, conv), nnx.Param, ...)

    def loss(params, x):
        modules = nnx.merge(graphdef, params, rest, copy=True)
        y = function(*modules, x)
        return (y * weights).sum(), (y, nnx.state(modules, nnx.BatchStat))

    # Compile one program instead of one for every operation.
    grads, (y, moved) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    return nnx.to_pure_dict(grads[0]), grads[1], y, nnx.to_pure_dict(moved)


@pytest.mark.parametrize(("inputs", "channels"), [(3, 4), (5, 20), (8, 16)])
@pytest.mark.parametrize("rows", [(6, 5, 3), (2, 1, 1), (7,)])
def test_after_a_convolution_values_and_gradients_are_those_of_one_after_the_other(
    inputs, channels, rows
):
    with jax.enable_x64(True):
        norm, conv = pair(inputs, channels, jnp.float64)
        x = jnp.maximum(2 * normal(0, *rows, inputs).astype(np.float64) + 1, 0)
        weights = normal(1, *rows, channels).astype(np.float64)
        got = outcome(of_convolution, norm, conv, x, weights)
        want = outcome(one_after_the_other, norm, conv, x, weights)
    # Kernel and gain are float32; on two rows the gain is up to 1 / sqrt(epsilon).
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)


def test_after_a_convolution_float32_is_as_near_to_float64_as_one_after_the_other():
    x = np.maximum(normal(0, 64, 7, 7, 32) + 1, 0)
    weights = normal(1, 64, 7, 7, 128)
    norm, conv = pair(32, 128)
    with jax.enable_x64(True):
        exact = outcome(
            one_after_the_other, *pair(32, 128, jnp.float64), *map(np.float64, (x, weights))
        )

    def worst(function) -> list[float]:
        got = outcome(function, norm, conv, jnp.asarray(x), weights)
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True)
        pairs = ((np.asarray(a, np.float64), np.asarray(b)) for a, b in pairs)
        return [np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]

    for product, plain in zip(worst(of_convolution), worst(one_after_the_other), strict=True):
        assert product < max(3 * plain, 5e-7)


def test_after_a_convolution_inputs_without_variance_give_the_bias():
    norm, conv = pair(4, 8)
    bias = vectors(norm)[1]
    y = norm.of_convolution(conv, jnp.full((8, 3, 3, 4), 3.3), train=True)
    # What is left is the rounding of four products and their sum, there and in the mean, with the
    # gain above.
    size = 3.3 * np.abs(np.asarray(conv.kernel[...])).sum(2).max()
    np.testing.assert_allclose(y, np.broadcast_to(bias, y.shape), atol=633 * size * 8 * 2**-23)


@pytest.mark.parametrize(("inputs", "channels"), [(4, 8), (8, 4)])
def test_after_a_convolution_evaluation_uses_the_running_statistics(inputs, channels):
    norm, conv = pair(inputs, channels)
    x = jnp.asarray(normal(0, 2, 3, 3, inputs))
    got = norm.of_convolution(conv, x, train=False)
    np.testing.assert_array_equal(got, norm(conv(x), train=False))


def test_after_a_convolution_bfloat16_is_near_float32():
    x = np.asarray(jnp.asarray(np.maximum(normal(0, 64, 4, 4, 16), 0), jnp.bfloat16), np.float32)
    want = of_convolution(*pair(16, 64), jnp.asarray(x))
    got = of_convolution(*pair(16, 64, jnp.bfloat16), jnp.asarray(x, jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=2**-7, atol=2**-6)


@pytest.mark.parametrize("per_device", [False, True])
def test_after_a_convolution_devices_normalise_together_or_each_by_itself(per_device):
    x = jnp.asarray(2 * normal(0, 6, 5, 3, 4) + np.arange(6).reshape(6, 1, 1, 1))
    weights = jnp.asarray(normal(1, 6, 5, 3, 8))
    norm, conv = pair(4, 8)
    norm.per_device = per_device
    rows, mesh = PartitionSpec("data"), Mesh(jax.devices()[:3], ("data",))

    def run(function):
        graphdef, params, rest = nnx.split((norm, conv), nnx.Param, ...)

        def value_and_gradients(x, weights):
            def loss(params, x):
                y = function(*nnx.merge(graphdef, params, rest, copy=True), x)
                return (y * weights).sum(), y

            # By a device's own copy of what is learnt, as in a step.
            own = jax.lax.pcast(params, ("data",), to="varying")
            grads, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(own, x)
            return y, grads[1], jax.lax.psum(grads[0], "data")

        out = (rows, rows, PartitionSpec())
        mapped = jax.shard_map(value_and_gradients, mesh=mesh, in_specs=(rows, rows), out_specs=out)
        return jax.jit(mapped)(x, weights)

    got, want = run(of_convolution), run(one_after_the_other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), got, want)
