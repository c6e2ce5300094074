"""CLIP: an image tower, a text tower and the temperature between them."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vclip_jax.models.bert import Bert, BertConfig
from vclip_jax.models.layers import at_least_float32, normal_init
from vclip_jax.models.resnet import ModifiedResNet
from vclip_jax.models.vit import VisionTransformer

# OpenAI CLIP's channel statistics of RGB in [0, 1], which Chinese-CLIP's image transform uses.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100)


def normalise_image(images: jax.Array) -> jax.Array:
    """uint8 `[..., 3]` RGB to float32 with the channel statistics removed."""
    mean, std = jnp.array(IMAGE_MEAN) * 255, jnp.array(IMAGE_STD) * 255
    return (images.astype(jnp.float32) - mean) / std


def normalise(x: jax.Array) -> jax.Array:
    """Unit vectors along the last axis, in float32 (float64 if x is)."""
    x = x.astype(at_least_float32(x))
    # The floor keeps the gradient finite where an embedding is exactly zero.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


class Clip(nnx.Module):
    """VisionCLIP: CLIP's ResNet, BERT, a projection of the text, a logit scale.

    Args:
        embed_dim: size of the common space; 1024 in the paper's recipe.
        image_size: side of the square images in pixels.
        vision_layers: blocks of the image tower: those of a ResNet's four stages, or one number,
            a Vision Transformer's.
        vision_width: channels, see `ModifiedResNet` and `VisionTransformer`.
        vision_patch_size: of a Vision Transformer.
        vision_pool, norm_groups: of a ResNet.
        text: sizes of the text tower.
        dtype: the type of the computation; parameters, embeddings and logits are float32.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        image_size: int,
        vision_layers: tuple[int, ...],
        vision_width: int,
        vision_patch_size: int = 16,
        vision_pool: str = "attention",
        norm_groups: int = 1,
        text: BertConfig,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.visual: ModifiedResNet | VisionTransformer
        if len(vision_layers) == 1:
            self.visual = VisionTransformer(
                layers=vision_layers[0],
                width=vision_width,
                patch_size=vision_patch_size,
                image_size=image_size,
                embed_dim=embed_dim,
                dtype=dtype,
                rngs=rngs,
            )
        else:
            self.visual = ModifiedResNet(
                layers=vision_layers,
                width=vision_width,
                image_size=image_size,
                embed_dim=embed_dim,
                pool=vision_pool,
                norm_groups=norm_groups,
                dtype=dtype,
                rngs=rngs,
            )
        self.bert = Bert(text, dtype=dtype, rngs=rngs)
        init = normal_init(text.width**-0.5)
        self.text_projection = nnx.Param(init(rngs.params(), (text.width, embed_dim)))
        self.logit_scale = nnx.Param(jnp.array(INITIAL_LOGIT_SCALE, jnp.float32))

    def encode_image(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """uint8 RGB `[b, s, s, 3]` to unit vectors float32 `[b, embed_dim]`."""
        return normalise(self.visual(normalise_image(images), train=train))

    def encode_text(self, tokens: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """int32 `[b, length]` to unit vectors float32 `[b, embed_dim]`."""
        pooled = self.bert(tokens, rngs=rngs)
        return normalise(pooled @ self.text_projection[...].astype(self.dtype))
