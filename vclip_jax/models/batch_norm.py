"""Batch normalisation with explicit gradients, alone and after a 1x1 convolution."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from vclip_jax.models.layers import Conv, at_least_float32, mapped_axes
from vclip_jax.models.remat import keep


class BatchNorm(nnx.Module):
    """Batch normalisation over all but the channel axis, statistics always in float32.

    Running statistics follow PyTorch: momentum 0.1 on the new value, unbiased variance, epsilon
    1e-5.

    Args:
        per_device: under `shard_map`, normalise each device's part of the batch separately, as
            PyTorch's `BatchNorm2d` does under data parallelism; the running statistics are then
            those of the first device, as PyTorch saves those of the first process. Otherwise the
            batch is the global one, however it is sharded.
    """

    epsilon = 1e-5
    momentum = 0.1
    frozen = False
    """True to use the running statistics in training too, and not to move them."""

    def __init__(
        self,
        channels: int,
        *,
        per_device: bool = False,
        dtype: DTypeLike,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.per_device = dtype, per_device
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))

    def __call__(self, x: jax.Array, *, train: bool, relu: bool = False) -> jax.Array:
        """Normalise `[..., channels]` to the same shape; `train` uses and updates batch statistics.

        With `relu` negative results become 0.
        """
        scale, bias = self.scale[...], self.bias[...]
        if not train or self.frozen:
            y = _normalise(x, self.mean[...], self.var[...], scale, bias)
            return (jnp.maximum(y, 0) if relu else y).astype(self.dtype)
        y, mean, var = _normalise_batch(x, scale, bias, self._axes(), relu)
        self._move(mean, var, _rows(x))
        return y.astype(self.dtype)

    def of_convolution(self, conv: Conv, x: jax.Array, *, train: bool) -> jax.Array:
        """Return `self(conv(x), train=train)`: `[..., inputs]` to `[..., channels]`.

        In training, after a 1x1 convolution without stride to more channels, the gradients are
        computed from `x`: the convolution's output is neither kept nor read.
        """
        size, _, inputs, outputs = conv.kernel.shape
        plain = size > 1 or conv.stride > 1 or conv.low_rank is not None
        if not train or self.frozen or plain or inputs >= outputs:
            return self(conv(x), train=train)
        kernel = conv.kernel[...].astype(conv.dtype)[0, 0]
        scale, bias = self.scale[...], self.bias[...]
        y, mean, var = _normalise_product(x, kernel, scale, bias, self._axes())
        self._move(mean, var, _rows(x))
        return y.astype(self.dtype)

    def _axes(self) -> tuple[str, ...]:
        return () if self.per_device else mapped_axes()

    def _move(self, mean: jax.Array, var: jax.Array, rows: int) -> None:
        """Move the running statistics towards those of a batch of `rows` a device."""
        manual, axes = mapped_axes(), self._axes()
        count = rows * (jax.lax.axis_size(axes) if axes else 1)
        new = jax.lax.stop_gradient(jnp.stack([mean, var * (count / max(count - 1, 1))]))
        if manual and self.per_device:
            new = jax.lax.psum(jnp.where(jax.lax.axis_index(manual) == 0, new, 0), manual)
        for running, value in ((self.mean, new[0]), (self.var, new[1])):
            running[...] += self.momentum * (value - running[...])


def _normalise(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    # Centre first: with the mean folded into the bias, cancellation would lose digits.
    return (x - mean) * (scale * jax.lax.rsqrt(var + BatchNorm.epsilon)) + bias


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[str, ...], relu: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise `x` to mean 0 and variance 1, then scale, shift and perhaps rectify it.

    Mean and (biased) variance are over all but the last axis and over the mesh axes `axes`, and
    pass no gradient. The result has the type of `x`.

    The gradient is explicit (Ioffe and Szegedy 2015, section 3): it takes two sums over the data,
    while the derivatives of the single operations take three, and it keeps only `x`.

    Returns:
        The result, the mean and the variance.
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
    axes: tuple[str, ...], relu: bool, residuals: Any, grads: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, var = residuals
    grad = grads[0].astype(at_least_float32(x))
    if relu:
        # The sign is computed again from x, which both passes below read anyway.
        grad = jnp.where(_normalise(x, mean, var, scale, bias) > 0, grad, 0)
    inverse = jax.lax.rsqrt(var + BatchNorm.epsilon)
    # With the mean of grad * (x - mean) a CPU would keep x - mean from the forward pass.
    sums = _means((), grad, grad * x)
    local = sums.at[1].add(-mean * sums[0])
    moments = jax.lax.pmean(local, axes) if axes else local
    slope = moments[1] * jnp.square(inverse)
    x_grad = (grad - moments[0] - (x - mean) * slope) * (scale * inverse)
    count = _rows(x)
    return x_grad.astype(x.dtype), local[1] * inverse * count, local[0] * count


_normalise_batch.defvjp(_normalise_forward, _normalise_backward)


def _means(axes: tuple[str, ...], *values: jax.Array) -> jax.Array:
    """Average `[..., channels]` arrays over other axes and mesh axes: `[values, channels]`."""
    means = jnp.stack([value.mean(tuple(range(value.ndim - 1))) for value in values])
    return jax.lax.pmean(means, axes) if axes else means


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise_product(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[str, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `_normalise_batch(x @ kernel, scale, bias, axes, False)` in fewer passes over the
    product.

    A linear map's moments follow from those of its input: with m the mean and G the mean of x x'
    over the rows, the product's mean is m W and its mean square is the diagonal of W' G W. So the
    product's statistics are known before the product, and its normalisation needs no pass of its
    own. In the gradient, too, each sum over the product becomes a sum over `x`, which has fewer
    channels: with b the gradient of the outputs and P the mean of x b', the sums of
    `_normalise_backward` are the mean of b and the column sums of W P; the kernel's gradient is
    linear in P, G and m, and that of `x` in b and `x`.
    """
    return _product_forward(x, kernel, scale, bias, axes)[0]


def _product_forward(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[str, ...]
) -> tuple[Any, Any]:
    wide = kernel.astype(at_least_float32(x))
    square = keep(_mean_of_products(x, x, precision="highest"), "statistics")
    centre = keep(_means((), x.astype(wide.dtype))[0], "statistics")
    moments = jnp.stack([_exactly(centre, wide), (wide * _exactly(square, wide)).sum(0)])
    moments = jax.lax.pmean(moments, axes) if axes else moments
    mean, var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0.0)
    y = _normalise(_product(x, kernel), mean, var, scale, bias).astype(x.dtype)
    return (y, mean, var), (x, kernel, scale, mean, var, square, centre)


def _product_backward(
    axes: tuple[str, ...], residuals: Any, grads: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, kernel, scale, mean, var, square, centre = residuals
    wide, grad = kernel.astype(at_least_float32(x)), grads[0]
    inverse = jax.lax.rsqrt(var + BatchNorm.epsilon)
    gain = scale * inverse
    products = _mean_of_products(x, grad)
    first = _means((), grad.astype(wide.dtype))[0]
    local = jnp.stack([first, (wide * products).sum(0) - mean * first])
    moments = jax.lax.pmean(local, axes) if axes else local
    # The gradient of the product y is gain * (grad - shift - slope * y), as in _normalise_backward.
    slope = moments[1] * jnp.square(inverse)
    shift = moments[0] - mean * slope
    kernel_grad = products - jnp.outer(centre, shift) - _exactly(square, wide) * slope
    back = _exactly(wide * (gain * slope), wide.T).astype(x.dtype)
    x_grad = _product(grad, (wide * gain).T.astype(x.dtype)) - _product(x, back)
    x_grad -= _exactly(wide, gain * shift)
    count = _rows(x)
    return (
        x_grad.astype(x.dtype),
        (kernel_grad * gain * count).astype(kernel.dtype),
        local[1] * inverse * count,
        local[0] * count,
    )


_normalise_product.defvjp(_product_forward, _product_backward)


def _rows(x: jax.Array) -> int:
    return x.size // x.shape[-1]


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply `[..., inputs]` by `[inputs, outputs]` without rounding; flat, as in `Conv`."""
    flat = x.reshape(-1, x.shape[-1])
    y = jnp.matmul(flat, kernel, preferred_element_type=at_least_float32(x))
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _mean_of_products(x: jax.Array, y: jax.Array, precision: str | None = None) -> jax.Array:
    """Return the mean outer product `[m, n]` of the rows of `[..., m]` and `[..., n]`."""
    left, right = x.reshape(-1, x.shape[-1]).T, y.reshape(-1, y.shape[-1])
    kind = at_least_float32(x)
    total = jnp.matmul(left, right, precision=precision, preferred_element_type=kind)
    return total / _rows(x)


def _exactly(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return `a @ b` in full float32 on every platform, for the small matrices of statistics."""
    return jnp.matmul(a, b, precision="highest")
