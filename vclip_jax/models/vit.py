"""CLIP's other image tower, a Vision Transformer (Radford et al. 2021, section 2.4), with the sizes
of Chinese-CLIP's ViT-B/16 and ViT-L/14.

Attribute names follow the reference checkpoints (`transformer.resblocks.0.ln_1`), but for
`attn.in_proj_weight`, which is the kernel of `attn.in_proj` here. Images are NHWC.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vclip_jax.models.layers import Linear, normal_init, torch_conv_init

# PyTorch's default for linear layers is that for convolutions: uniform(+-1/sqrt(fan_in)).
torch_linear_init = torch_conv_init
LAYER_NORM_EPSILON = 1e-5


def quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation `x * sigmoid(1.702 x)` that OpenAI's weights were trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def _layer_norm(width: int, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.in_proj = nnx.Linear(
            width,
            3 * width,
            kernel_init=jax.nn.initializers.glorot_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.out_proj = nnx.Linear(
            width, width, kernel_init=torch_linear_init, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, length, width]` to the same shape."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (part.reshape(shape) for part in jnp.split(self.in_proj(x), 3, -1))
        return self.out_proj(jax.nn.dot_product_attention(query, key, value).reshape(x.shape))


class Mlp(nnx.Module):
    """Two linear layers, four times as wide in between."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        init = torch_linear_init
        self.c_fc = Linear(width, 4 * width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.c_proj = Linear(4 * width, width, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, length, width]` to the same shape."""
        return self.c_proj(quick_gelu(self.c_fc(x)))


class ResidualAttentionBlock(nnx.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.ln_1 = _layer_norm(width, dtype, rngs)
        self.attn = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.ln_2 = _layer_norm(width, dtype, rngs)
        self.mlp = Mlp(width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nnx.Module):
    """A stack of blocks."""

    def __init__(self, width: int, layers: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.resblocks = nnx.List(
            [ResidualAttentionBlock(width, heads, dtype=dtype, rngs=rngs) for _ in range(layers)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, length, width]` to the same shape."""
        for block in self.resblocks:
            x = block(x)
        return x


class VisionTransformer(nnx.Module):
    """CLIP's ViT: patches, a class token, learned positions, the class token's state projected.

    Args:
        layers: number of blocks; 12 in ViT-B/16.
        width: channels, a multiple of `head_width`; 768 in ViT-B/16.
        patch_size: side of a patch in pixels; 16 in ViT-B/16.
        image_size: side of the square input in pixels, a multiple of `patch_size`.
        embed_dim: size of the output vector.
        head_width: channels of an attention head; 64 but for ViT-H.
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
        head_width: int = 64,
        dtype=jnp.float32,
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
            use_bias=False,
            kernel_init=torch_conv_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.class_embedding = nnx.Param(init(rngs.params(), (width,)))
        positions = (image_size // patch_size) ** 2 + 1
        self.positional_embedding = nnx.Param(init(rngs.params(), (positions, width)))
        self.ln_pre = _layer_norm(width, dtype, rngs)
        self.transformer = Transformer(width, layers, width // head_width, dtype=dtype, rngs=rngs)
        self.ln_post = _layer_norm(width, dtype, rngs)
        self.proj = nnx.Param(init(rngs.params(), (width, embed_dim)))

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Normalised images `[b, s, s, 3]` to un-normalised features `[b, embed_dim]`.

        `train` changes nothing: there is neither dropout nor batch normalisation.
        """
        del train
        width = self.class_embedding.shape[0]
        x = self.conv1(images.astype(self.dtype)).reshape(images.shape[0], -1, width)
        token = self.class_embedding[...].astype(self.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, width))
        x = jnp.concatenate([token, x], axis=1)
        x = self.ln_pre(x + self.positional_embedding[...].astype(self.dtype))
        x = self.transformer(x)
        return self.ln_post(x[:, 0]) @ self.proj[...].astype(self.dtype)
