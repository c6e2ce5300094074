"""CLIP's own text tower: a causal Transformer (Radford et al. 2021, section 2.4).

Attribute names follow OpenAI's checkpoints (`transformer.resblocks.0.ln_1`, `ln_final`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.layers import normal_init
from vclip_jax.models.vit import BlockConfig, Transformer, layer_norm


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of the text tower; the defaults are those of ViT-B/32, ViT-B/16 and RN50."""

    vocab_size: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_width: int = 2048
    max_positions: int = 77
    activation: str = "quick_gelu"

    def make(self, *, dtype: DTypeLike, rngs: nnx.Rngs) -> "ClipText":
        """Make the tower with random weights."""
        return ClipText(self, dtype=dtype, rngs=rngs)


class ClipText(nnx.Module):
    """Token and position embeddings, causal blocks, a norm, the state at the caption's end."""

    def __init__(self, config: ClipTextConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.dtype = dtype
        self.token_embedding = nnx.Embed(
            config.vocab_size,
            config.width,
            embedding_init=normal_init(0.02),
            dtype=dtype,
            rngs=rngs,
        )
        positions = normal_init(0.01)(rngs.params(), (config.max_positions, config.width))
        self.positional_embedding = nnx.Param(positions)
        blocks = BlockConfig(
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            causal=True,
        )
        self.transformer = Transformer(blocks, config.layers, dtype=dtype, rngs=rngs)
        self.ln_final = layer_norm(config.width, dtype, rngs)

    def __call__(self, tokens: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """Return one vector a caption.

        Args:
            tokens: int32 `[b, length]`. The caption ends at the first occurrence of the row's
                highest id, since the end token is the vocabulary's last; later tokens are ignored.
            keys: for the interface of `Bert`; there is no dropout.

        Returns:
            `[b, width]`, in the computation's dtype.
        """
        del keys
        positions = self.positional_embedding[: tokens.shape[1]].astype(self.dtype)
        x = self.transformer(self.token_embedding(tokens) + positions)
        end = jnp.argmax(tokens, axis=1)
        return self.ln_final(x[jnp.arange(x.shape[0]), end])
