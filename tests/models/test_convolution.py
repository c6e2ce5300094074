"""The convolution's own gradients against those of XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vclip_jax.models.convolution import convolve


def plain(x, kernel, stride):
    """XLA's convolution, whose gradients JAX derives."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 7, 6, 3), (1, 1, 9, 4), (3, 8, 8, 2)])
def test_values_and_both_gradients_are_those_of_xla(size, stride, shape):
    rng = np.random.default_rng(size)
    with jax.enable_x64():
        x, kernel = rng.standard_normal(shape), rng.standard_normal((size, size, shape[-1], 5))
        want, pull_want = jax.vjp(lambda *a: plain(*a, stride), x, kernel)
        got, pull = jax.jit(lambda *a: jax.vjp(lambda *b: convolve(*b, stride), *a))(x, kernel)
        np.testing.assert_allclose(got, want, atol=1e-12)
        bar = jnp.asarray(rng.standard_normal(want.shape))
        for ours, theirs in zip(jax.jit(pull)(bar), pull_want(bar), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_keep_the_type():
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    grads = jax.grad(lambda *a: convolve(*a).astype(jnp.float32).sum(), (0, 1))(x, kernel)
    assert [g.dtype for g in grads] == [jnp.bfloat16] * 2
