"""The ResNet of torchvision, "v1.5" (He et al. 2016 with the strides in the 3x3 convolutions),
which is FLAIR's image tower. Its blocks are those of CLIP's ResNet without anti-aliasing.

Attribute names follow torchvision's checkpoints. Images are NHWC.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.layers import Conv, normal_init
from vclip_jax.models.resnet import EXPANSION, Bottleneck


class ResNetV15(nnx.Module):
    """A ResNet-50 or one of other sizes; the mean of all positions is projected without a bias.

    Args:
        layers: blocks in each of the four stages; ResNet-50 is `(3, 4, 6, 3)`.
        width: channels after the stem; ResNet-50 is 64.
        embed_dim: size of the output vector.
        per_device_norm: see `BatchNorm`.
        dtype: the type of the computation; parameters stay float32.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int],
        width: int,
        embed_dim: int,
        per_device_norm: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        norm = partial(BatchNorm, per_device=per_device_norm, dtype=dtype, rngs=rngs)
        self.conv1 = Conv(3, width, 7, stride=2, dtype=dtype, rngs=rngs)
        self.bn1 = norm(width)
        block = partial(
            Bottleneck, per_device_norm=per_device_norm, antialias=False, dtype=dtype, rngs=rngs
        )
        inputs = width
        for stage, blocks in enumerate(layers):
            planes = width * 2**stage
            stack = nnx.List()
            for index in range(blocks):
                stack.append(block(inputs, planes, 2 if index == 0 and stage > 0 else 1))
                inputs = planes * EXPANSION
            setattr(self, f"layer{stage + 1}", stack)
        self.stages = len(layers)
        self.proj = nnx.Param(normal_init(inputs**-0.5)(rngs.params(), (inputs, embed_dim)))

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Map normalised images `[b, h, w, 3]` to features `[b, embed_dim]`, not normalised."""
        x = self.conv1(images.astype(self.dtype))
        x = max_pool(self.bn1(x, train=train, relu=True))
        for stage in range(self.stages):
            for block in getattr(self, f"layer{stage + 1}"):
                x = block(x, train=train)
        return x.mean(axis=(1, 2)) @ self.proj[...].astype(self.dtype)


def max_pool(x: jax.Array) -> jax.Array:
    """Map `[b, h, w, c]` to `[b, h / 2, w / 2, c]`: the maximum of 3x3 around each second place."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
