"""Vision Transformers as image towers, and their blocks, which CLIP's text tower shares.

CLIP's (Radford et al. 2021, section 2.4) has the sizes of Chinese-CLIP's ViT-B/16 and ViT-L/14. The
original one of Dosovitskiy et al. 2021 is as in timm, for BiomedCLIP.

Attribute names follow the reference checkpoints (`transformer.resblocks.0.ln_1`), except for
`attn.in_proj_weight`, which is the kernel of `attn.in_proj` here. Images are NHWC.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.layers import Dense, Linear, normal_init, torch_conv_init
from vclip_jax.models.remat import keep

# PyTorch initialises linear layers as it does convolutions: uniform(+-1/sqrt(fan_in)).
torch_linear_init = torch_conv_init
HEAD_WIDTH = 64
"""Channels of an attention head."""
LAYER_NORM_EPSILON = 1e-5
IMAGENET_LAYER_NORM_EPSILON = 1e-6


def quick_gelu(x: jax.Array) -> jax.Array:
    """Return `x * sigmoid(1.702 x)` `[...]`, the approximation of OpenAI's weights."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: jax.Array) -> jax.Array:
    """Return the exact GELU `[...]`, by the error function."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def layer_norm(
    width: int, dtype: DTypeLike, rngs: nnx.Rngs, epsilon: float = LAYER_NORM_EPSILON
) -> nnx.LayerNorm:
    """Make a normalisation over the channels; the moments are float32 for every `dtype`."""
    return nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


@dataclass(frozen=True)
class BlockConfig:
    """Options of all blocks of a stack."""

    width: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    """A key of `ACTIVATIONS`."""
    epsilon: float = LAYER_NORM_EPSILON
    causal: bool = False
    """Each position sees itself and earlier ones only."""


class Attention(nnx.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, config: BlockConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = config.width
        self.heads, self.causal = config.heads, config.causal
        self.in_proj = Dense(
            width,
            3 * width,
            kernel_init=jax.nn.initializers.glorot_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.out_proj = Dense(width, width, kernel_init=torch_linear_init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, length, width]` to the same shape."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (part.reshape(shape) for part in jnp.split(self.in_proj(x), 3, -1))
        attended = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out_proj(attended.reshape(x.shape))


class Mlp(nnx.Module):
    """Two linear layers with a wider layer between them."""

    def __init__(self, config: BlockConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width, wide, init = config.width, config.mlp_width, torch_linear_init
        self.activation = config.activation
        self.c_fc = Linear(width, wide, kernel_init=init, dtype=dtype, rngs=rngs)
        self.c_proj = Linear(wide, width, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, length, width]` to the same shape."""
        return self.c_proj(ACTIVATIONS[self.activation](self.c_fc(x)))


class ResidualAttentionBlock(nnx.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: BlockConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.ln_1 = layer_norm(config.width, dtype, rngs, config.epsilon)
        self.attn = Attention(config, dtype=dtype, rngs=rngs)
        self.ln_2 = layer_norm(config.width, dtype, rngs, config.epsilon)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, length, width]` to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return keep(x + self.mlp(self.ln_2(x)), "block")


class Transformer(nnx.Module):
    """A stack of blocks."""

    def __init__(self, config: BlockConfig, layers: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.resblocks = nnx.List(
            [ResidualAttentionBlock(config, dtype=dtype, rngs=rngs) for _ in range(layers)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, length, width]` to the same shape."""
        for block in self.resblocks:
            x = block(x)
        return x


class VisionTransformer(nnx.Module):
    """CLIP's ViT: patches, a class token, learned positions, the class token's state projected.

    Args:
        layers: number of blocks; 12 in ViT-B/16.
        width: channels, a multiple of `HEAD_WIDTH`; 768 in ViT-B/16.
        patch_size: side of a patch in pixels; 16 in ViT-B/16.
        image_size: side of the square input in pixels, a multiple of `patch_size`.
        embed_dim: size of the output vector.
        activation: a key of `ACTIVATIONS`.
        original: the tower of Dosovitskiy et al.: patches with a bias, no norm before the blocks,
            epsilon 1e-6.
        dtype: the type of the computation; parameters stay float32.
    """

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        patch_size: int,
        image_size: int,
        embed_dim: int,
        activation: str = "quick_gelu",
        original: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        init = normal_init(width**-0.5)
        self.conv1 = nnx.Conv(
            3,
            width,
            (patch_size, patch_size),
            strides=patch_size,
            padding="VALID",
            use_bias=original,
            kernel_init=torch_conv_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.class_embedding = nnx.Param(init(rngs.params(), (width,)))
        positions = (image_size // patch_size) ** 2 + 1
        self.positional_embedding = nnx.Param(init(rngs.params(), (positions, width)))
        epsilon = IMAGENET_LAYER_NORM_EPSILON if original else LAYER_NORM_EPSILON
        blocks = BlockConfig(
            width=width,
            heads=width // HEAD_WIDTH,
            mlp_width=4 * width,
            activation=activation,
            epsilon=epsilon,
        )
        self.ln_pre = None if original else layer_norm(width, dtype, rngs)
        self.transformer = Transformer(blocks, layers, dtype=dtype, rngs=rngs)
        self.ln_post = layer_norm(width, dtype, rngs, epsilon)
        self.proj = nnx.Param(init(rngs.params(), (width, embed_dim)))

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Map normalised images `[b, s, s, 3]` to features `[b, embed_dim]`, not normalised.

        `train` changes nothing: there is neither dropout nor batch normalisation.
        """
        del train
        width = self.class_embedding.shape[0]
        x = self.conv1(images.astype(self.dtype)).reshape(images.shape[0], -1, width)
        token = self.class_embedding[...].astype(self.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, width))
        x = jnp.concatenate([token, x], axis=1)
        x = x + self.positional_embedding[...].astype(self.dtype)
        if self.ln_pre is not None:
            x = self.ln_pre(x)
        x = self.transformer(x)
        return self.ln_post(x[:, 0]) @ self.proj[...].astype(self.dtype)
