"""Convolution and initialisers against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vclip_jax.models.layers import Conv, Linear, normal_init
from vclip_jax.models.rng import seeded

# Sums of tens to hundreds of float32 products of order 1.
ROUNDING = {"rtol": 2e-6, "atol": 5e-6}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


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
    conv = Conv(3, 4, size, stride=stride, dtype=jnp.float32, rngs=seeded(0))
    x = normal(size + stride, 2, height, width, 3)
    want = naive_convolution(x, np.asarray(conv.kernel[...]), stride)
    got = conv(jnp.asarray(x))
    assert got.shape == (2, -(-height // stride), -(-width // stride), 4)
    np.testing.assert_allclose(got, want, **ROUNDING)


def test_bfloat16_computes_in_bfloat16_and_keeps_the_kernel_float32():
    for size in (1, 3):
        conv = Conv(3, 4, size, dtype=jnp.bfloat16, rngs=seeded(0))
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
    conv = Conv(inputs, outputs, size, dtype=jnp.float32, rngs=seeded(0))
    assert_uniform(conv.kernel[...], (size * size * inputs) ** -0.5)


def test_biases_start_uniform_within_one_over_root_of_fan_in():
    linear = Linear(49, 2000, kernel_init=normal_init(1.0), dtype=jnp.float32, rngs=seeded(0))
    assert_uniform(linear.bias[...], 1 / 7)


def test_normal_init_has_mean_zero_and_the_stated_deviation():
    drawn = np.asarray(normal_init(0.02)(jax.random.key(0), (200, 200)), np.float64) / 0.02
    assert scipy.stats.kstest(drawn.ravel(), scipy.stats.norm.cdf).pvalue > 1e-3
