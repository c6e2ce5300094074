"""Batch norm, convolution and initialisers against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from vclip_jax.models.layers import BatchNorm, Conv, Linear, normal_init

# Sums of tens to hundreds of float32 products of order 1.
ROUNDING = {"rtol": 2e-6, "atol": 5e-6}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_norm(channels: int, dtype=jnp.float32) -> BatchNorm:
    """A norm whose four vectors are all of them non-trivial."""
    norm = BatchNorm(channels, dtype=dtype, rngs=nnx.Rngs(0))
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
        norm = BatchNorm(4, dtype=jnp.float32, rngs=nnx.Rngs(0))
        norm(x, train=True)
        return norm.mean[...].sum() + norm.var[...].sum()

    assert not np.asarray(jax.grad(moved)(jnp.asarray(normal(5, 6, 4)))).any()


# --- convolution ---------------------------------------------------------------------------------


def naive_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Every output pixel on its own, in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = (x.shape[1] - size) // stride + 1
    columns = (x.shape[2] - size) // stride + 1
    out = np.empty((len(x), rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            window = x[:, top : top + size, left : left + size]
            out[:, row, column] = np.einsum("bhwi,hwio->bo", window, kernel)
    return out


@pytest.mark.parametrize(
    ("size", "stride", "height", "width"),
    [(3, 1, 6, 5), (3, 2, 6, 5), (3, 2, 8, 8), (1, 1, 4, 7), (1, 2, 5, 6)],
)
def test_a_convolution_equals_the_sum_over_windows(size, stride, height, width):
    conv = Conv(3, 4, size, stride=stride, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = normal(size + stride, 2, height, width, 3)
    want = naive_convolution(x, np.asarray(conv.kernel[...]), stride)
    got = conv(jnp.asarray(x))
    assert got.shape == (2, -(-height // stride), -(-width // stride), 4)
    np.testing.assert_allclose(got, want, **ROUNDING)


def test_bfloat16_computes_in_bfloat16_and_keeps_the_kernel_float32():
    for size in (1, 3):
        conv = Conv(3, 4, size, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        assert conv(jnp.ones((1, 4, 4, 3), jnp.bfloat16)).dtype == jnp.bfloat16
        assert conv.kernel[...].dtype == jnp.float32


# --- initial values ------------------------------------------------------------------------------


def assert_uniform(values: np.ndarray, bound: float) -> None:
    values = np.asarray(values, np.float64).ravel() / bound
    # A float32 ulp of slack: the bound itself is rounded.
    assert np.abs(values).max() <= 1 + 1e-6
    assert np.abs(values).max() > 0.99
    assert scipy.stats.kstest(values, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("inputs", "outputs", "size"), [(16, 32, 3), (64, 64, 1), (3, 256, 3)])
def test_kernels_start_uniform_within_one_over_root_of_fan_in(inputs, outputs, size):
    conv = Conv(inputs, outputs, size, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert_uniform(conv.kernel[...], (size * size * inputs) ** -0.5)


def test_biases_start_uniform_within_one_over_root_of_fan_in():
    linear = Linear(49, 2000, kernel_init=normal_init(1.0), dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert_uniform(linear.bias[...], 1 / 7)


def test_normal_init_has_mean_zero_and_the_stated_deviation():
    drawn = np.asarray(normal_init(0.02)(jax.random.key(0), (200, 200)), np.float64) / 0.02
    assert scipy.stats.kstest(drawn.ravel(), scipy.stats.norm.cdf).pvalue > 1e-3


def test_a_norm_starts_as_the_identity_on_running_statistics():
    norm = BatchNorm(3, dtype=jnp.float32, rngs=nnx.Rngs(0))
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
