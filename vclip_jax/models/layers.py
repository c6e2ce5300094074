"""The few layers that both towers share, with PyTorch's defaults where the reference has them."""

from functools import partial

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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of `[b, h, w, i]` with an odd square `[k, k, i, o]`, padded by `k // 2`.

    The gradients are the ordinary ones. That of the kernel is computed on CPUs as one matrix
    product for each of the k x k offsets, because XLA's own convolution there is 2 to 15 times
    slower for it (`benchmarks/convolution_gradient.py`); elsewhere XLA's is used.
    """
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolve_forward(x: jax.Array, kernel: jax.Array, stride: int):
    return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(stride: int, residuals: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = residuals

    def by_convolution(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: convolve.fun(x, k, stride), kernel)[1](grad)[0]

    def by_matrix_products(x: jax.Array, grad: jax.Array) -> jax.Array:
        size, inputs, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3]
        pad, (height, width) = size // 2, grad.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        flat = grad.reshape(-1, outputs)

        def product(row: int, column: int) -> jax.Array:
            seen = padded[:, row : row + height * stride : stride]
            seen = seen[:, :, column : column + width * stride : stride]
            return seen.reshape(-1, inputs).T @ flat

        products = [product(row, column) for row in range(size) for column in range(size)]
        return jnp.stack(products).reshape(kernel.shape)

    (input_grad,) = jax.vjp(lambda x: convolve.fun(x, kernel, stride), x)[1](grad)
    kernel_grad = jax.lax.platform_dependent(
        x, grad, cpu=by_matrix_products, default=by_convolution
    )
    return input_grad, kernel_grad


convolve.defvjp(_convolve_forward, _convolve_backward)


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
        if kernel.shape[0] == 1 and self.stride == 1:
            return x @ kernel[0, 0]  # the same sum, and a matrix product on every backend
        return convolve(x, kernel, self.stride)


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
