"""The few layers that both towers share, with PyTorch's defaults where the reference has them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from vclip_jax.models.convolution import convolve
from vclip_jax.models.remat import keep


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


def mapped_axes() -> tuple[str, ...]:
    """The mesh axes over which the caller is one device's program: `shard_map`'s, else none."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


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
            return keep(flat.reshape(*x.shape[:-1], outputs), "convolution")
        return keep(convolve(x, kernel, self.stride), "convolution")


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
        per_device: under `shard_map`, normalise each device's part of the batch by itself, as
            PyTorch's `BatchNorm2d` under data parallelism does; the running statistics are then
            the first device's, as it saves the first process's. Otherwise the batch is the global
            one, however it lies.
    """

    epsilon = 1e-5
    momentum = 0.1

    def __init__(
        self,
        channels: int,
        *,
        per_device: bool = False,
        dtype,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.per_device = dtype, per_device
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))

    def __call__(self, x: jax.Array, *, train: bool, relu: bool = False) -> jax.Array:
        """`[..., channels]` to the same shape; `train` uses and updates the batch statistics.

        With `relu` what is negative becomes 0 afterwards.
        """
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            y = _normalise(x, self.mean[...], self.var[...], scale, bias)
            return (jnp.maximum(y, 0) if relu else y).astype(self.dtype)
        manual = mapped_axes()
        axes = () if self.per_device else manual
        y, mean, var = _normalise_batch(x, scale, bias, axes, relu)
        count = x.size // x.shape[-1] * (jax.lax.axis_size(axes) if axes else 1)
        new = jax.lax.stop_gradient(jnp.stack([mean, var * (count / max(count - 1, 1))]))
        if manual and self.per_device:
            new = jax.lax.psum(jnp.where(jax.lax.axis_index(manual) == 0, new, 0), manual)
        for running, value in ((self.mean, new[0]), (self.var, new[1])):
            running[...] += self.momentum * (value - running[...])
        return y.astype(self.dtype)


def _normalise(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    # Centred first: with the mean folded into the bias, digits that cancel would be lost.
    return (x - mean) * (scale * jax.lax.rsqrt(var + BatchNorm.epsilon)) + bias


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[str, ...], relu: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x` with mean 0 and variance 1 over all but the last axis and over the mesh axes `axes`,
    scaled and moved, perhaps rectified, in the type of `x`; its mean, its (biased) variance.

    The gradient is written out (Ioffe and Szegedy 2015, section 3): it takes two sums over the
    data where the derivative of each operation takes three, and keeps nothing but `x`. Mean and
    variance pass no gradient.
    """
    return _normalise_forward(x, scale, bias, axes, relu)[0]


def _normalise_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[str, ...], relu: bool
) -> tuple[Any, Any]:
    wide = x.astype(at_least_float32(x))
    # Two reductions in one pass over the data; float32 keeps E[x^2] - E[x]^2 accurate because
    # activations here are centred to within a few standard deviations.
    moments = keep(_means(axes, wide, jnp.square(wide)), "statistics")
    mean, var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0.0)
    y = _normalise(wide, mean, var, scale, bias)
    y = (jnp.maximum(y, 0) if relu else y).astype(x.dtype)
    return (y, mean, var), (x, scale, bias, mean, var)


def _normalise_backward(
    axes: tuple[str, ...], relu: bool, residuals: Any, bars: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, var = residuals
    bar = bars[0].astype(at_least_float32(x))
    if relu:
        # What is above 0 is found again from x, which both passes below read anyway.
        bar = jnp.where(_normalise(x, mean, var, scale, bias) > 0, bar, 0)
    inverse = jax.lax.rsqrt(var + BatchNorm.epsilon)
    # Not the mean of bar * (x - mean): a CPU would keep x - mean from the forward pass for it.
    sums = _means((), bar, bar * x)
    own = sums.at[1].add(-mean * sums[0])
    moments = jax.lax.pmean(own, axes) if axes else own
    slope = moments[1] * jnp.square(inverse)
    x_bar = (bar - moments[0] - (x - mean) * slope) * (scale * inverse)
    count = x.size // x.shape[-1]
    return x_bar.astype(x.dtype), own[1] * inverse * count, own[0] * count


_normalise_batch.defvjp(_normalise_forward, _normalise_backward)


def _means(axes: tuple[str, ...], *values: jax.Array) -> jax.Array:
    """Of `[..., channels]` each, over all else and over mesh axes: `[values, channels]`."""
    means = jnp.stack([value.mean(tuple(range(value.ndim - 1))) for value in values])
    return jax.lax.pmean(means, axes) if axes else means
