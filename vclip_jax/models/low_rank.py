"""Low-rank adaptation: beside the kernel of a layer, a trained product of two thin matrices.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1: a layer computes
`x W + alpha / rank * x D U`, where D starts at random and U at 0. A convolution has D as a
convolution to `rank` channels and U as a 1x1 convolution, so that the sum is again one kernel.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
from flax import nnx

NAME: Final = "low_rank"
"""The name of the added part of a layer, in the paths of its parameters."""


class LowRank(nnx.Module):
    """The added part of a layer: `down`, `[*window, inputs, rank]`, and `up`, `[rank, outputs]`."""

    def __init__(self, kernel: tuple[int, ...], rank: int, alpha: float, *, rngs: nnx.Rngs):
        """Make the part of a layer whose kernel has the shape `[*window, inputs, outputs]`."""
        *window, inputs, outputs = kernel
        # As PyTorch initialises a linear layer: uniform(+-1/sqrt(fan_in)).
        init = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.scale = alpha / rank
        self.down = nnx.Param(init(rngs.params(), (*window, inputs, rank)))
        self.up = nnx.Param(jnp.zeros((rank, outputs)))

    def __call__(
        self, x: jax.Array, product: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> jax.Array:
        """Return what the layer adds to its output.

        Args:
            x: the layer's input, `[..., inputs]`.
            product: the layer's function of an input and a kernel.
        """
        narrow = product(x, self.down[...].astype(x.dtype))
        return self.scale * (narrow @ self.up[...].astype(x.dtype))


def add_low_rank(
    model: nnx.Module,
    rank_of: Callable[[str], int],
    alpha: float,
    *,
    rngs: nnx.Rngs,
) -> None:
    """Give layers of a model a low-rank part, in place.

    Args:
        model: a model whose layers are `layers.Dense` or `layers.Conv`.
        rank_of: the path of a layer, such as `bert/layer/0/intermediate` -> the rank, or 0 for no
            low-rank part.
        alpha: see the module.
        rngs: generators with the stream `params`.
    """
    for path, layer in list(nnx.iter_modules(model)):
        if hasattr(layer, NAME) and (rank := rank_of("/".join(map(str, path)))):
            layer.low_rank = LowRank(layer.kernel.shape, rank, alpha, rngs=rngs)


def merged(params: Mapping[Any, Any], alpha: float) -> dict[Any, Any]:
    """Return parameters with the low-rank parts added to their kernels; others are unchanged.

    Args:
        params: nested dictionaries of arrays.
        alpha: the value that the parts were trained with.

    Examples:
        >>> import jax.numpy as jnp
        >>> from vclip_jax.models.low_rank import merged
        >>> part = {"down": jnp.ones((2, 1)), "up": jnp.full((1, 3), 0.5)}
        >>> merged({"query": {"kernel": jnp.zeros((2, 3)), "low_rank": part}}, alpha=4.0)
        {'query': {'kernel': Array([[2., 2., 2.],
               [2., 2., 2.]], dtype=float32)}}
    """
    whole = {
        key: merged(value, alpha) if isinstance(value, Mapping) else value
        for key, value in params.items()
    }
    if part := whole.pop(NAME, None):
        rank = part["up"].shape[0]
        added = jnp.tensordot(part["down"], part["up"], axes=1, precision="highest")
        whole["kernel"] = whole["kernel"] + alpha / rank * added
    return whole
