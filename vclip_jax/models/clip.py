"""CLIP: an image tower, a text tower and the temperature between them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.data.images.statistics import IMAGE_MEAN, IMAGE_STD
from vclip_jax.models.bert import BertConfig
from vclip_jax.models.clip_text import ClipTextConfig
from vclip_jax.models.kinds import IMAGE_TOWERS
from vclip_jax.models.layers import at_least_float32, normal_init
from vclip_jax.models.vit import gelu

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100)


def normalise_image(
    images: jax.Array, mean: Sequence[float] = IMAGE_MEAN, std: Sequence[float] = IMAGE_STD
) -> jax.Array:
    """Convert uint8 RGB `[..., 3]` to float32 with the channel mean and deviation removed."""
    scaled_mean, scaled_std = jnp.array(mean) * 255, jnp.array(std) * 255
    return (images.astype(jnp.float32) - scaled_mean) / scaled_std


def normalise(x: jax.Array) -> jax.Array:
    """Scale `[..., d]` to unit vectors along the last axis, in float32 (float64 if x is)."""
    x = x.astype(at_least_float32(x))
    # The floor keeps the gradient finite if an embedding is exactly zero.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


class TextMlp(nnx.Module):
    """BiomedCLIP's projection of the text: two linear layers without bias and a GELU between."""

    def __init__(self, width: int, embed_dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dtype = dtype
        hidden = (width + embed_dim) // 2
        first, second = normal_init(width**-0.5), normal_init(hidden**-0.5)
        self.first = nnx.Param(first(rngs.params(), (width, hidden)))
        self.second = nnx.Param(second(rngs.params(), (hidden, embed_dim)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, width]` to `[b, embed_dim]`."""
        return gelu(x @ self.first[...].astype(self.dtype)) @ self.second[...].astype(self.dtype)


@dataclass(frozen=True)
class TextTower:
    """A recipe's own text tower, before it is made; see `kinds.TEXT_TOWERS`.

    Examples:
        >>> import numpy as np
        >>> from flax import nnx
        >>> from vclip_jax.models.clip import TextTower
        >>> class Length(nnx.Module):
        ...     def __init__(self, *, dtype, rngs): ...
        ...     def __call__(self, tokens, *, keys=None):
        ...         return (tokens > 0).sum(axis=1, keepdims=True)
        >>> tower = TextTower(1, Length).make(dtype=np.float32, rngs=nnx.Rngs(0))
        >>> tower(np.array([[2, 7, 3, 0]])).tolist()
        [[3]]
    """

    width: int
    """Size of the tower's vectors."""
    make: Callable[..., nnx.Module]
    """A function of the keywords `dtype` and `rngs` that makes the tower."""


class Clip(nnx.Module):
    """An image tower, a text tower, a projection of the text, a logit scale.

    VisionCLIP has CLIP's ResNet and BERT; the other kinds are for comparison. FLAIR also normalises
    features before it projects them, which changes nothing, because its projections have no bias
    and are normalised again.

    Args:
        embed_dim: size of the common space; 1024 in the paper's recipe.
        image_size: side of the square images in pixels.
        vision_layers: blocks of the image tower: four numbers for the stages of a ResNet, or one
            number for a Vision Transformer.
        vision_width: channels, see `ModifiedResNet` and `VisionTransformer`.
        vision_patch_size: patch size of a Vision Transformer.
        vision_pool, per_device_norm: options of a ResNet.
        vision_kind: one of `kinds.IMAGE_TOWERS`: "clip", or "imagenet" for torchvision's ResNet and
            timm's Vision Transformer.
        activation: activation of a Vision Transformer, see `vit.ACTIVATIONS`.
        text: sizes of the text tower (BERT's or CLIP's), or a recipe's own tower.
        text_projection_kind: "linear" or "mlp", see `TextMlp`.
        image_mean, image_std: mean and deviation of the channels of RGB in [0, 1], which are
            removed.
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
        per_device_norm: bool = False,
        vision_kind: str = "clip",
        activation: str = "quick_gelu",
        text: BertConfig | ClipTextConfig | TextTower,
        text_projection_kind: str = "linear",
        image_mean: Sequence[float] = IMAGE_MEAN,
        image_std: Sequence[float] = IMAGE_STD,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.visual = IMAGE_TOWERS[vision_kind](
            layers=vision_layers,
            width=vision_width,
            patch_size=vision_patch_size,
            pool=vision_pool,
            activation=activation,
            image_size=image_size,
            embed_dim=embed_dim,
            per_device_norm=per_device_norm,
            dtype=dtype,
            rngs=rngs,
        )
        self.text_kind = {BertConfig: "bert", ClipTextConfig: "clip"}.get(type(text), "text")
        tower = text.make(dtype=dtype, rngs=rngs)
        if isinstance(text, BertConfig):
            self.bert = tower
        else:
            self.text = tower
        self.text_projection: nnx.Param | TextMlp
        if text_projection_kind == "mlp":
            self.text_projection = TextMlp(text.width, embed_dim, dtype=dtype, rngs=rngs)
        else:
            init = normal_init(text.width**-0.5)
            self.text_projection = nnx.Param(init(rngs.params(), (text.width, embed_dim)))
        self.logit_scale = nnx.Param(jnp.array(INITIAL_LOGIT_SCALE, jnp.float32))

    def image_features(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Map uint8 RGB `[b, s, s, 3]` to features `[b, embed_dim]`, not normalised."""
        with jax.named_scope("visual"):
            images = normalise_image(images, self.image_mean, self.image_std)
            return self.visual(images, train=train)

    def text_features(self, tokens: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """Map int32 tokens `[b, length]` to features `[b, embed_dim]`, not normalised."""
        tower = self.bert if self.text_kind == "bert" else self.text
        with jax.named_scope(self.text_kind):
            pooled = tower(tokens, keys=keys)
            if isinstance(self.text_projection, TextMlp):
                return self.text_projection(pooled)
            return pooled @ self.text_projection[...].astype(self.dtype)

    def encode_image(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Map uint8 RGB `[b, s, s, 3]` to unit vectors float32 `[b, embed_dim]`."""
        return normalise(self.image_features(images, train=train))

    def encode_text(self, tokens: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """Map int32 `[b, length]` to unit vectors float32 `[b, embed_dim]`; `keys`: see `Bert`."""
        return normalise(self.text_features(tokens, keys=keys))
