"""Dropout whose masks depend only on the rows' keys.

A row's key is a function of (seed, step, row of the global batch), so the masks are the same
however the batch is divided: on one device or many, at once or in micro-batches, computed or
recomputed. And no device draws bits for other devices' rows, as it does under `jit` with the fast
generators.

JAX's generator makes the keys; the bits of a mask are a hash of key and place, with a tenth of the
generator's operations. A compiler fuses the hash with the masked operation, and nothing is kept.
"""

import math

import jax
import jax.numpy as jnp


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """Return a key for each row of a batch: a key and int32 `[b]` to keys `[b]`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def split_rows(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return independent keys from each row's key: `[b]` to `[b, *shape]`."""
    return jax.vmap(lambda key: jax.random.split(key, shape))(keys)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Set each element to zero with probability `rate`, and scale the others to the same mean.

    Args:
        x: `[b, ...]`.
        rate: probability in [0, 1).
        keys: `[b]`, see `row_keys`; None leaves `x` unchanged.
    """
    if keys is None or rate == 0:
        return x
    # The place of each element in its row; TPUs would write a reshaped range to memory.
    shape = (1, *x.shape[1:])
    place = sum(
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(math.prod(shape[axis + 1 :]))
        for axis in range(1, x.ndim)
    )
    # Two words of each row's key, [b, 1, ..., 1].
    first, second = jnp.expand_dims(jax.random.key_data(keys).T, tuple(range(2, x.ndim + 1)))
    bits = _mix(_mix(place ^ first) + second)
    keep = bits >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


def _mix(x: jax.Array) -> jax.Array:
    """Map uint32 one to one so that each bit of the argument flips half of the result's bits.

    This is the finaliser of MurmurHash3 (Appleby 2011).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
