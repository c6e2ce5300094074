"""Random keys for new models: those of `nnx.Rngs`, made in linear time.

`nnx.RngStream` counts its keys through an indexed update, which asks the counter for its sharding.
While JAX traces, a counter has none, and the error that says so is written from the whole program
so far. For the paper's model `make_training` spent 7.5 of 10 s there (2 cores, AMD EPYC).
"""

import jax
from flax import nnx


class KeyStream(nnx.RngStream):
    """A stream of the same keys as `nnx.RngStream`."""

    def __call__(self) -> jax.Array:
        """Return the next key, a scalar."""
        count = self.count.get_value()
        self.count.set_value(count + 1)
        return jax.random.fold_in(self.key.get_value(), count)


def seeded(seed: int) -> nnx.Rngs:
    """Return what `nnx.Rngs(seed)` returns, with streams of type `KeyStream`."""
    rngs = nnx.Rngs()
    rngs.default = KeyStream(seed, tag="default")
    return rngs
