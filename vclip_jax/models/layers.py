"""Layers that both towers share, initialised as in PyTorch wherever the reference is."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from vclip_jax.models.convolution import convolve
from vclip_jax.models.low_rank import LowRank
from vclip_jax.models.remat import keep


def at_least_float32(x: jax.Array) -> jnp.dtype:
    """Return the type for sums that need more than half precision: float32, or float64 if x is."""
    return jnp.promote_types(x.dtype, jnp.float32)


def normal_init(stddev: float) -> Initializer:
    """Return a normal initialiser with mean 0 and the given standard deviation."""
    return jax.nn.initializers.normal(stddev)


# PyTorch's default for convolutions, kaiming_uniform(a=sqrt(5)), is uniform(+-1/sqrt(fan_in)),
# whose variance is 1 / (3 fan_in). The reference tower starts from it.
torch_conv_init = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Initializer:
    """Return PyTorch's initialiser of a linear layer's bias: uniform(+-1/sqrt(fan_in))."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init


def mapped_axes() -> tuple[str, ...]:
    """Return the mesh axes of the `shard_map` around the caller, () without one."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


class Conv(nnx.Module):
    """A square convolution without bias whose padding keeps the size (at stride 1)."""

    low_rank: LowRank | None = None
    """The layer's low-rank part, see `add_low_rank`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dtype = stride, dtype
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(torch_conv_init(rngs.params(), shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, h, w, inputs]` to `[b, h / stride, w / stride, outputs]`."""
        y = self._product(x, self.kernel[...].astype(self.dtype))
        if self.low_rank is not None:
            y = y + self.low_rank(x, self._product)
        return keep(y, "convolution")

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        size, _, inputs, outputs = kernel.shape
        if size > 1 or self.stride > 1:
            return convolve(x, kernel, self.stride)
        # The same sum as one matrix product; flat, because the gradient of a kernel is several
        # times slower on CPUs if the product has three leading axes.
        flat = x.reshape(-1, inputs) @ kernel[0, 0]
        return flat.reshape(*x.shape[:-1], outputs)


class Dense(nnx.Linear):
    """A linear layer."""

    low_rank: LowRank | None = None
    """The layer's low-rank part, see `add_low_rank`."""

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Map `[..., inputs]` to `[..., outputs]`."""
        y = super().__call__(x, out_sharding)
        if self.low_rank is not None:
            y = y + self.low_rank(x.astype(y.dtype), jnp.matmul)
        return y


class Linear(Dense):
    """A linear layer whose bias is initialised as in PyTorch."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            inputs,
            outputs,
            kernel_init=kernel_init,
            bias_init=torch_bias_init(inputs),
            dtype=dtype,
            rngs=rngs,
        )
