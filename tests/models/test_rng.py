"""Keys of new models: those of Flax."""

import jax
import numpy as np
from flax import nnx

from vclip_jax.models.rng import seeded


def drawn(make):
    rngs = make(7)
    fork = rngs.dropout.fork()
    keys = [rngs.params(), rngs.params(), rngs.dropout(), fork(), fork(), rngs()]
    return [jax.random.key_data(key) for key in keys]


def test_keys_are_those_of_flax():
    np.testing.assert_array_equal(drawn(seeded), drawn(nnx.Rngs))
    np.testing.assert_array_equal(jax.jit(lambda: drawn(seeded))(), drawn(nnx.Rngs))
