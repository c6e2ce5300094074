"""The image towers by `config.model.vision_kind`, all made from the same sizes; see `kinds`."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.resnet import ModifiedResNet
from vclip_jax.models.resnet_v15 import ResNetV15
from vclip_jax.models.vit import VisionTransformer


def clip_image_tower(
    *,
    layers: Sequence[int],
    width: int,
    patch_size: int,
    pool: str,
    activation: str,
    image_size: int,
    embed_dim: int,
    per_device_norm: bool,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> ModifiedResNet | VisionTransformer:
    """Make CLIP's Vision Transformer if `layers` is one number, else its ResNet.

    Args:
        layers, width, patch_size, pool, activation: `config.model.vision_layers` and so on.
        image_size: side of the square images in pixels.
        embed_dim: size of the common space.
        per_device_norm: see `BatchNorm`.
        dtype: the type of the computation.
        rngs: generators with the stream `params`.
    """
    if len(layers) == 1:
        return VisionTransformer(
            layers=layers[0],
            width=width,
            patch_size=patch_size,
            image_size=image_size,
            embed_dim=embed_dim,
            activation=activation,
            dtype=dtype,
            rngs=rngs,
        )
    return ModifiedResNet(
        layers=layers,
        width=width,
        image_size=image_size,
        embed_dim=embed_dim,
        pool=pool,
        per_device_norm=per_device_norm,
        dtype=dtype,
        rngs=rngs,
    )


def imagenet_tower(
    *,
    layers: Sequence[int],
    width: int,
    patch_size: int,
    activation: str,
    image_size: int,
    embed_dim: int,
    per_device_norm: bool,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    **_: Any,
) -> ResNetV15 | VisionTransformer:
    """Make timm's Vision Transformer if `layers` is one number, else torchvision's ResNet.

    The arguments are those of `clip_image_tower`; the ResNet's pool is always the mean.
    """
    if len(layers) == 1:
        return VisionTransformer(
            layers=layers[0],
            width=width,
            patch_size=patch_size,
            image_size=image_size,
            embed_dim=embed_dim,
            activation=activation,
            original=True,
            dtype=dtype,
            rngs=rngs,
        )
    return ResNetV15(
        layers=layers,
        width=width,
        embed_dim=embed_dim,
        per_device_norm=per_device_norm,
        dtype=dtype,
        rngs=rngs,
    )
