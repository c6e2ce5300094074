"""Dropout: its rate, its scale, and masks that depend on a row's key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vclip_jax.models.dropout import dropout, row_keys, split_rows

SHAPE = 50, 40, 30


def keys(rows, seed: int = 0) -> jax.Array:
    return row_keys(jax.random.key(seed), jnp.asarray(rows))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_stated_share_is_dropped_and_the_rest_scaled(rate):
    y = np.asarray(dropout(jnp.ones(SHAPE), rate, keys(range(50))))
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    # Four standard deviations of a binomial, over everything and in each place of the rows.
    for dropped, n in (((y == 0).mean(), y.size), ((y == 0).mean(axis=0), len(y))):
        assert np.abs(dropped - rate).max() <= 4.5 * np.sqrt(rate * (1 - rate) / n)


def test_a_rows_mask_is_its_keys_whatever_the_other_rows():
    x = jnp.ones(SHAPE)
    whole = dropout(x, 0.5, keys(range(50)))
    np.testing.assert_array_equal(dropout(x[:10], 0.5, keys(range(20, 30))), whole[20:30])
    assert (whole[0] != whole[1]).any()


def test_keys_of_one_row_are_independent_of_each_other():
    parts = split_rows(keys(range(3)), (4, 2))
    assert parts.shape == (3, 4, 2)
    bits = jax.vmap(lambda key: jax.random.bits(key, (2,)))(parts.ravel())
    assert len(np.unique(np.asarray(bits), axis=0)) == 24


def test_no_key_or_no_rate_drops_nothing():
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, keys(range(3))), x)


def test_the_type_is_kept():
    assert dropout(jnp.ones((2, 8), jnp.bfloat16), 0.1, keys(range(2))).dtype == jnp.bfloat16


def test_masks_of_rows_places_and_steps_are_independent():
    # Of n fair coins two masks agree in half, give or take 4.5 standard deviations.
    shape = 4, 64, 100
    drawn = []
    for step in range(3):
        parts = split_rows(row_keys(jax.random.key(step), jnp.arange(4)), (2,))
        drawn += [np.asarray(dropout(jnp.ones(shape), 0.5, parts[:, i]) != 0) for i in range(2)]
    masks = np.concatenate(drawn).reshape(24, -1).astype(np.float64) * 2 - 1
    correlation = masks @ masks.T / masks.shape[1]
    bound = 4.5 / np.sqrt(masks.shape[1])
    assert np.abs(correlation - np.eye(24)).max() <= bound
    # Neighbours in a row, at every distance.
    for distance in (1, 2, 3, 64, 100, 101):
        assert abs((masks[:, distance:] * masks[:, :-distance]).mean()) <= bound / np.sqrt(20)
