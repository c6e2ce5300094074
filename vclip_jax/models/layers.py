"""The few layers that both towers share, with PyTorch's defaults where the reference has them."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer


def at_least_float32(x: jax.Array) -> jnp.dtype:
    """The type for sums that must not be taken in half precision: float32, or float64 if x is."""
    return jnp.promote_types(x.dtype, jnp.float32)


def normal_init(stddev: float) -> Initializer:
    """Normal initialiser with mean 0 and the given standard deviation."""
    return jax.nn.initializers.normal(stddev)


# PyTorch's default for convolutions, kaiming_uniform(a=sqrt(5)), is uniform(+-1/sqrt(fan_in)),
# whose variance is 1 / (3 fan_in). The reference tower starts from it.
torch_conv_init = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Initializer:
    """PyTorch's default for the bias of a linear layer: uniform(+-1/sqrt(fan_in))."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init


class Conv(nnx.Module):
    """A square convolution without bias whose padding keeps the size (at stride 1)."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, dtype, rngs: nnx.Rngs
    ):
        self.stride, self.dtype = stride, dtype
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(torch_conv_init(rngs.params(), shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, inputs]` to `[b, h / stride, w / stride, outputs]`."""
        kernel = self.kernel[...].astype(self.dtype)
        size, _, inputs, outputs = kernel.shape
        if size == 1 and self.stride == 1:
            # The same sum as one matrix product; flat, because the kernel's gradient of a product
            # with three leading axes is several times slower on CPUs.
            flat = x.reshape(-1, inputs) @ kernel[0, 0]
            return flat.reshape(*x.shape[:-1], outputs)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            [(size // 2, size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Linear(nnx.Linear):
    """A linear layer whose bias starts as PyTorch's does."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel_init: Initializer, dtype, rngs: nnx.Rngs
    ):
        super().__init__(
            inputs,
            outputs,
            kernel_init=kernel_init,
            bias_init=torch_bias_init(inputs),
            dtype=dtype,
            rngs=rngs,
        )


class BatchNorm(nnx.Module):
    """Batch normalisation over all but the channel axis, statistics always in float32.

    Running statistics follow PyTorch: momentum 0.1 on the new value, unbiased variance, epsilon
    1e-5.

    Args:
        groups: consecutive parts of the batch that are normalised each by itself. 1 is the global
            batch, also where it is sharded. The number of devices is what PyTorch's `BatchNorm2d`
            under data parallelism does; the running statistics are then the first part's, as it
            saves the first process's.
    """

    epsilon = 1e-5
    momentum = 0.1

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 1,
        dtype,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.groups = dtype, groups
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[..., channels]` to the same shape; `train` uses and updates the batch statistics."""
        if not train:
            return self._normalise(x, self.mean[...], self.var[...])
        # A part of its own for each group, whose statistics are [groups, 1, ..., 1, channels].
        parts = x.reshape(self.groups, -1, *x.shape[1:]) if self.groups > 1 else x[None]
        axes = tuple(range(1, parts.ndim - 1))
        wide = parts.astype(at_least_float32(parts))
        mean = wide.mean(axes, keepdims=True)
        # Two reductions in one pass over the data; float32 keeps E[x^2] - E[x]^2 accurate
        # because activations here are centred to within a few standard deviations.
        var = jnp.maximum(jnp.square(wide).mean(axes, keepdims=True) - jnp.square(mean), 0.0)
        count = x.size // x.shape[-1] // self.groups
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            first = jax.lax.stop_gradient(new[0]).reshape(-1)
            running[...] += self.momentum * (first - running[...])
        return self._normalise(parts, mean, var).reshape(x.shape)

    def _normalise(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        gain = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        # Centred first: with the mean folded into the bias, digits that cancel would be lost.
        return ((x - mean) * gain + self.bias[...]).astype(self.dtype)
