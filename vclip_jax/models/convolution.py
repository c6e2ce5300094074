"""A square convolution whose kernel gradient is fast on CPUs."""

import functools

import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Correlate images with a kernel of odd size; padding keeps the size at stride 1.

    Args:
        x: `[b, h, w, inputs]`.
        kernel: `[size, size, inputs, outputs]`, of the same type.
        stride: stride along both sides.

    Returns:
        `[b, ceil(h / stride), ceil(w / stride), outputs]`.
    """
    return _unit_stride(x, kernel) if stride == 1 else _native(x, kernel, stride)


def _native(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def _unit_stride(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _native(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _native(x, kernel), (x, kernel)


def _backward(
    residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (x_grad,) = jax.linear_transpose(lambda x: _native(x, kernel), x)(grad)
    kernel_grad = jax.lax.platform_dependent(
        x,
        grad,
        cpu=functools.partial(_kernel_gradient, size=kernel.shape[0]),
        default=lambda x, grad: jax.linear_transpose(lambda k: _native(x, k), kernel)(grad)[0],
    )
    return x_grad, kernel_grad


_unit_stride.defvjp(_forward, _backward)


def _kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Return the kernel's gradient by `size` matrix products.

    XLA computes it as a convolution with a kernel of the image's size; on CPUs this function is
    twice as fast on average (`benchmarks/cpu_step.py`). Each product takes the images, shifted
    along the width, and all shifts of the outputs' gradient along the height, concatenated.
    """
    height, width = grad.shape[1:3]
    inputs, outputs = x.shape[-1], grad.shape[-1]
    pad = size // 2
    images = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
    padded = jnp.pad(grad, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    shifts = [padded[:, size - 1 - i : size - 1 - i + height] for i in range(size)]
    grads = jnp.concatenate(shifts, axis=-1).reshape(-1, size * outputs)
    columns = [
        (images[:, :, j : j + width].reshape(-1, inputs).T @ grads).reshape(inputs, size, outputs)
        for j in range(size)
    ]
    return jnp.stack(columns).transpose(2, 0, 1, 3)
