"""The few layers that both towers share, with PyTorch's defaults where the reference has them."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer


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

    Under `jit` with a sharded batch the statistics are those of the global batch. Running
    statistics follow PyTorch: momentum 0.1 on the new value, unbiased variance, epsilon 1e-5.
    """

    epsilon = 1e-5
    momentum = 0.1

    def __init__(
        self,
        channels: int,
        *,
        dtype,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[..., channels]` to the same shape; `train` uses and updates the batch statistics."""
        if train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = wide.mean(axes)
            # Two reductions in one pass over the data; float32 keeps E[x^2] - E[x]^2 accurate
            # because activations here are centred to within a few standard deviations.
            var = jnp.maximum(jnp.square(wide).mean(axes) - jnp.square(mean), 0.0)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
            self.var[...] += self.momentum * (jax.lax.stop_gradient(unbiased) - self.var[...])
        else:
            mean, var = self.mean[...], self.var[...]
        gain = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * gain
        return (x * gain + shift).astype(self.dtype)
