"""CLIP's image tower: a ResNet with a three-convolution stem, anti-aliased strides and attention
pooling (Radford et al. 2021, section 2.4; sizes as in Chinese-CLIP's `RN50`).

Attribute names follow the reference checkpoints (`layer1.0.conv1`, `attnpool.q_proj`), so that
weight maps stay short. Images are NHWC.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.kinds import IMAGE_POOLS
from vclip_jax.models.layers import Conv, Linear, at_least_float32, normal_init
from vclip_jax.models.remat import keep

EXPANSION = 4


def attention_heads(width: int) -> int:
    """Return the heads of the attention pool, 64 features each, for a stem of `width` channels."""
    return max(1, width * 8 * EXPANSION // 64)


def average_pool(x: jax.Array, window: int, *, train: bool) -> jax.Array:
    """Average over non-overlapping windows: `[b, h, w, c]` to `[b, h // window, w // window, c]`.

    Odd rows and columns at the end are dropped, as in `AvgPool2d`. Evaluation is the same on all
    platforms: models are exported, and ONNX has no choice by platform.
    """
    if window == 1:
        return x
    if not train:
        return mean_by_reshape(x, window)
    pooled = jax.lax.platform_dependent(
        x,
        cpu=partial(mean_by_reshape, window=window),
        default=partial(mean_by_reduce_window, window=window),
    )
    return keep(pooled, "pool")


def mean_by_reshape(x: jax.Array, window: int) -> jax.Array:
    """Compute `average_pool` by a reshape and a mean: on CPUs much faster than `reduce_window`."""
    batch, height, width, channels = x.shape
    height, width = height // window, width // window
    x = x[:, : height * window, : width * window]
    return x.reshape(batch, height, window, width, window, channels).mean(axis=(2, 4))


def mean_by_reduce_window(x: jax.Array, window: int) -> jax.Array:
    """Compute `average_pool` in one pass; on TPUs the reshape takes several float32 copies."""
    size = (1, window, window, 1)
    wide = x.astype(at_least_float32(x))
    total = jax.lax.reduce_window(wide, 0.0, jax.lax.add, size, size, "VALID")
    return (total / window**2).astype(x.dtype)


@jax.custom_vjp
def rectified_sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return `relu(x + y)` of two `[b, h, w, c]`, whose gradient needs only the result."""
    return _rectified_forward(x, y)[0]


def _rectified_forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = keep(nnx.relu(x + y), "block")
    return total, total


def _rectified_backward(total: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    grad = jnp.where(total > 0, grad, 0)
    return grad, grad


rectified_sum.defvjp(_rectified_forward, _rectified_backward)


class Downsample(nnx.Module):
    """The shortcut of a block that changes shape: average pooling, 1x1 convolution, norm.

    Without `antialias` the convolution has the stride instead.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        per_device_norm: bool = False,
        antialias: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.pool, stride = (stride, 1) if antialias else (1, stride)
        self.conv = Conv(inputs, outputs, 1, stride=stride, dtype=dtype, rngs=rngs)
        # Not called `bn`: the recipe decays this scale, and selects parameters by name (optim.py).
        self.norm = BatchNorm(outputs, per_device=per_device_norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, inputs]` to `[b, h / stride, w / stride, outputs]`."""
        return self.norm.of_convolution(
            self.conv, average_pool(x, self.pool, train=train), train=train
        )


class Bottleneck(nnx.Module):
    """1x1, 3x3, (average pooling), 1x1; the last norm starts at 0, so a new block is the identity.

    Without `antialias` the 3x3 convolution has the stride instead of the pooling.
    """

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int,
        *,
        per_device_norm: bool = False,
        antialias: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        outputs = planes * EXPANSION
        norm = partial(BatchNorm, per_device=per_device_norm, dtype=dtype, rngs=rngs)
        self.pool, conv_stride = (stride, 1) if antialias else (1, stride)
        self.conv1 = Conv(inputs, planes, 1, dtype=dtype, rngs=rngs)
        self.bn1 = norm(planes)
        self.conv2 = Conv(planes, planes, 3, stride=conv_stride, dtype=dtype, rngs=rngs)
        self.bn2 = norm(planes)
        self.conv3 = Conv(planes, outputs, 1, dtype=dtype, rngs=rngs)
        self.bn3 = norm(outputs, scale_init=nnx.initializers.zeros)
        self.downsample = (
            Downsample(
                inputs,
                outputs,
                stride,
                per_device_norm=per_device_norm,
                antialias=antialias,
                dtype=dtype,
                rngs=rngs,
            )
            if stride > 1 or inputs != outputs
            else None
        )

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, inputs]` to `[b, h / stride, w / stride, planes * EXPANSION]`."""
        shortcut = x if self.downsample is None else self.downsample(x, train=train)
        x = self.bn1(self.conv1(x), train=train, relu=True)
        x = self.bn2(self.conv2(x), train=train, relu=True)
        x = self.bn3.of_convolution(
            self.conv3, average_pool(x, self.pool, train=train), train=train
        )
        return rectified_sum(x, shortcut)


class AttentionPool(nnx.Module):
    """One attention step whose query is the mean of all positions, over all positions and that
    mean.

    For one query q of a head, the scores x W_k q are x (W_k q), and the weighted sum of the values
    x W_v is W_v applied to the weighted sum of x: neither keys nor values of the positions are
    computed, which would take twenty times as many operations. The bias of the keys adds the same
    to all scores of a query, so softmax cancels it; the bias of the values stays as it is, since
    the weights have the sum 1.
    """

    def __init__(
        self,
        positions: int,
        width: int,
        heads: int,
        outputs: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads, self.dtype = heads, dtype
        init = normal_init(width**-0.5)
        self.positional_embedding = nnx.Param(init(rngs.params(), (positions + 1, width)))
        self.q_proj = Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.k_proj = Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.v_proj = Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.c_proj = Linear(width, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, h, w, width]` to `[b, outputs]`."""
        batch, width = x.shape[0], x.shape[-1]
        x = x.reshape(batch, -1, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        x = x + self.positional_embedding[...].astype(self.dtype)
        query = self.q_proj(x[:, 0]).reshape(batch, self.heads, -1)
        key, value = (
            projection.kernel[...].astype(self.dtype).reshape(width, self.heads, -1)
            for projection in (self.k_proj, self.v_proj)
        )
        key_query = jnp.einsum("bhd,whd->bhw", query, key)
        scores = jnp.einsum(
            "bhw,btw->bht", key_query, x, preferred_element_type=at_least_float32(x)
        )
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5).astype(self.dtype)
        pooled = jnp.einsum("bht,btw->bhw", weights, x)
        values = jnp.einsum("bhw,whd->bhd", pooled, value).reshape(batch, width)
        return self.c_proj(values + self.v_proj.bias[...].astype(self.dtype))


class MeanPool(nnx.Module):
    """The mean of all positions, projected."""

    def __init__(self, width: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        init = normal_init(width**-0.5)
        self.c_proj = Linear(width, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, h, w, width]` to `[b, outputs]`."""
        return self.c_proj(x.mean(axis=(1, 2)))


def mean_pool(*, width: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs, **_: Any) -> MeanPool:
    """Make a `MeanPool`, which needs neither positions nor heads."""
    return MeanPool(width, outputs, dtype=dtype, rngs=rngs)


class ModifiedResNet(nnx.Module):
    """CLIP's ResNet.

    Args:
        layers: blocks in each of the four stages; RN50 is `(3, 4, 6, 3)`.
        width: channels after the stem; RN50 is 64.
        image_size: side of the square input in pixels, a multiple of 32.
        embed_dim: size of the output vector.
        pool: one of `kinds.IMAGE_POOLS`: "attention" (CLIP's), or "mean", which learns faster in
            the first hundreds of steps.
        per_device_norm: see `BatchNorm`.
        dtype: the type of the computation; parameters stay float32.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int],
        width: int,
        image_size: int,
        embed_dim: int,
        pool: str = "attention",
        per_device_norm: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        half = width // 2
        norm = partial(BatchNorm, per_device=per_device_norm, dtype=dtype, rngs=rngs)
        self.dtype = dtype
        self.conv1 = Conv(3, half, 3, stride=2, dtype=dtype, rngs=rngs)
        self.bn1 = norm(half)
        self.conv2 = Conv(half, half, 3, dtype=dtype, rngs=rngs)
        self.bn2 = norm(half)
        self.conv3 = Conv(half, width, 3, dtype=dtype, rngs=rngs)
        self.bn3 = norm(width)

        inputs = width
        for stage, blocks in enumerate(layers):
            planes = width * 2**stage
            stack = nnx.List()
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                stack.append(
                    Bottleneck(
                        inputs,
                        planes,
                        stride,
                        per_device_norm=per_device_norm,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                inputs = planes * EXPANSION
            setattr(self, f"layer{stage + 1}", stack)
        self.stages = len(layers)

        self.attnpool = IMAGE_POOLS[pool](
            positions=(image_size // 32) ** 2,
            width=inputs,
            heads=attention_heads(width),
            outputs=embed_dim,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Map normalised images `[b, s, s, 3]` to features `[b, embed_dim]`, not normalised."""
        x = images.astype(self.dtype)
        with jax.named_scope("stem"):
            x = self.bn1(self.conv1(x), train=train, relu=True)
            x = self.bn2(self.conv2(x), train=train, relu=True)
            x = self.bn3(self.conv3(x), train=train, relu=True)
            x = average_pool(x, 2, train=train)
        for stage in range(self.stages):
            with jax.named_scope(f"layer{stage + 1}"):
                for block in getattr(self, f"layer{stage + 1}"):
                    x = block(x, train=train)
        with jax.named_scope("attnpool"):
            return self.attnpool(x)
