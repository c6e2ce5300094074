"""The contrastive loss and its gradients against NumPy in float64, and its symmetries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.losses import contrastive_loss
from vclip_jax.sharding import BATCH, make_mesh

value_and_grad = jax.jit(jax.value_and_grad(contrastive_loss, argnums=(0, 1, 2)))
loss = jax.jit(contrastive_loss)

# Few distinct shapes, because each is compiled.
sizes = st.tuples(st.integers(1, 5), st.sampled_from([1, 4]), st.integers(0, 2**32 - 1))
scales = st.floats(0, math.log(100))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pairs(b: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two towers' unit vectors that float32 holds exactly, as float64."""
    rng = np.random.default_rng(seed)
    towers = (unit(rng.standard_normal((b, d))) for _ in range(2))
    image, text = (tower.astype(np.float32).astype(np.float64) for tower in towers)
    return image, text


def reference(image, text, logit_scale) -> float:
    """The cross-entropy of both softmaxes, spelt out."""
    logits = np.exp(logit_scale) * image @ text.T
    rows = np.diagonal(scipy.special.log_softmax(logits, axis=1))
    columns = np.diagonal(scipy.special.log_softmax(logits, axis=0))
    return -(rows.mean() + columns.mean()) / 2


def central_difference(function, x: np.ndarray) -> np.ndarray:
    step, gradient = 1e-5, np.empty_like(x)
    for index in np.ndindex(x.shape):
        low, high = x.copy(), x.copy()
        low[index] -= step
        high[index] += step
        gradient[index] = (function(high) - function(low)) / (2 * step)
    return gradient


def single(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


@given(sizes, scales)
@settings(max_examples=40, deadline=None)
def test_value_and_gradients_equal_float64(size, logit_scale):
    image, text = pairs(*size)
    logit_scale = float(np.float32(logit_scale))
    got, grads = value_and_grad(*single(image, text, logit_scale))
    # Logits of up to 100 carry float32 errors of 100 * 2^-24 = 6e-6 or a few of those; gradients
    # with respect to embeddings multiply them by the scale once more.
    scale = math.exp(logit_scale)
    error = 4 * scale * 2**-24 + 1e-6
    assert float(got) == pytest.approx(reference(image, text, logit_scale), abs=error, rel=1e-6)
    want = (
        central_difference(lambda x: reference(x, text, logit_scale), image),
        central_difference(lambda x: reference(image, x, logit_scale), text),
        central_difference(lambda x: reference(image, text, x), np.array(logit_scale)),
    )
    for left, right in zip(grads, want, strict=True):
        np.testing.assert_allclose(left, right, atol=scale * error + 1e-6, rtol=1e-5)


@given(sizes, scales)
@settings(max_examples=25, deadline=None)
def test_the_towers_may_change_places(size, logit_scale):
    image, text = pairs(*size)
    one, other = single(image, text)
    scale = jnp.float32(logit_scale)
    error = 4 * math.exp(logit_scale) * 2**-24 + 1e-6
    assert float(loss(one, other, scale)) == pytest.approx(
        float(loss(other, one, scale)), abs=error, rel=1e-6
    )


@given(sizes, scales)
@settings(max_examples=25, deadline=None)
def test_the_order_of_pairs_does_not_matter_but_who_is_paired_does(size, logit_scale):
    image, text = pairs(*size)
    order = np.random.default_rng(size[2]).permutation(len(image))
    scale = jnp.float32(logit_scale)
    error = 4 * math.exp(logit_scale) * 2**-24 + 1e-6
    straight = float(loss(*single(image, text), scale))
    permuted = float(loss(*single(image[order], text[order]), scale))
    assert permuted == pytest.approx(straight, abs=error, rel=1e-6)
    apart = reference(image[order], text, logit_scale)
    assert float(loss(*single(image[order], text), scale)) == pytest.approx(
        apart, abs=error, rel=1e-6
    )


@given(st.integers(1, 5), scales)
@settings(max_examples=25, deadline=None)
def test_a_collapsed_model_has_the_logarithm_of_the_batch_size(b, logit_scale):
    point = np.repeat(pairs(1, 4, b)[0], b, axis=0)
    got = loss(*single(point, point), jnp.float32(logit_scale))
    # logsumexp of b equal logits of up to 100, less the logit.
    assert float(got) == pytest.approx(math.log(b), abs=100 * 2**-22)


def test_aligned_orthogonal_pairs_have_almost_no_loss_at_the_largest_scale():
    eye = jnp.eye(5)
    assert float(loss(eye, eye, jnp.float32(math.log(100)))) == pytest.approx(0, abs=1e-6)
    # And the exact value at scale 1: log(e + b - 1) - 1.
    want = math.log(math.e + 4) - 1
    assert float(loss(eye, eye, jnp.float32(0))) == pytest.approx(want, rel=1e-6)


def test_a_batch_of_one_pair_has_no_loss_and_no_gradient():
    value, grads = value_and_grad(*single(*pairs(1, 4, 0), 2.0))
    assert float(value) == 0
    assert not any(np.asarray(grad).any() for grad in grads)


def test_bfloat16_embeddings_give_a_float32_loss():
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in pairs(5, 4, 1))
    got = loss(image, text, jnp.float32(2.0))
    assert got.dtype == jnp.float32
    want = reference(np.asarray(image, np.float64), np.asarray(text, np.float64), 2.0)
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_loss_of_a_sharded_batch_is_that_of_the_global_batch():
    image, text = single(*pairs(8, 4, 2))
    scale = jnp.float32(3.0)
    sharding = jax.sharding.NamedSharding(make_mesh(2), BATCH)
    value, grads = value_and_grad(*jax.device_put((image, text), sharding), scale)
    want, want_grads = value_and_grad(image, text, scale)
    assert len(grads[0].sharding.device_set) == 8
    assert float(value) == pytest.approx(float(want), rel=1e-6)
    for left, right in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
