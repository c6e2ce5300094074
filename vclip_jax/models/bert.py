"""The text tower: BERT's encoder as RoBERTa-wwm-ext uses it (post-norm, exact GELU, no pooler).

Attribute names follow the Hugging Face checkpoints (`encoder.layer.0.attention.self.query`, with
`self` written `self_` because the name is taken in Python).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vclip_jax.models.dropout import dropout, split_rows
from vclip_jax.models.layers import at_least_float32, normal_init
from vclip_jax.models.remat import keep

PAD_ID = 0
COUNTED_PAD_ID = -1
"""Padding whose states count in a mean, as FLAIR has it: see `Scorer.prompt_embeddings`."""
LAYER_NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class BertConfig:
    """Sizes of the text tower; the defaults are RoBERTa-wwm-ext-base-chinese."""

    vocab_size: int = 21128
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    initializer_range: float = 0.02
    pool: str = "first"
    """"first" takes the [CLS] token's state (the recipe), "mean" the average over real tokens,
    which tells captions apart from the first step on and so suits short training, "layers" that
    average of the states after the first, the second and the last layer (FLAIR)."""


def _dense(inputs: int, outputs: int, config: BertConfig, dtype, rngs: nnx.Rngs) -> nnx.Linear:
    init = normal_init(config.initializer_range)
    return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)


def _layer_norm(config: BertConfig, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Flax computes the moments in float32 whatever `dtype` is.
    return nnx.LayerNorm(config.width, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)


def _embed(size: int, config: BertConfig, dtype, rngs: nnx.Rngs) -> nnx.Embed:
    init = normal_init(config.initializer_range)
    return nnx.Embed(size, config.width, embedding_init=init, dtype=dtype, rngs=rngs)


class Embeddings(nnx.Module):
    """Word, position and token-type embeddings, norm, dropout."""

    def __init__(self, config: BertConfig, *, dtype, rngs: nnx.Rngs):
        self.word_embeddings = _embed(config.vocab_size, config, dtype, rngs)
        self.position_embeddings = _embed(config.max_positions, config, dtype, rngs)
        self.token_type_embeddings = _embed(config.type_vocab_size, config, dtype, rngs)
        self.LayerNorm = _layer_norm(config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, tokens: jax.Array, keys: jax.Array | None) -> jax.Array:
        positions = jnp.arange(tokens.shape[1])[None]
        x = self.word_embeddings(tokens) + self.position_embeddings(positions)
        x = x + self.token_type_embeddings(jnp.zeros_like(positions))
        return dropout(self.LayerNorm(x), self.dropout, keys)


class SelfAttention(nnx.Module):
    """Multi-head attention among the tokens of one caption, with dropout on the weights."""

    def __init__(self, config: BertConfig, *, dtype, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = _dense(config.width, config.width, config, dtype, rngs)
        self.key = _dense(config.width, config.width, config, dtype, rngs)
        self.value = _dense(config.width, config.width, config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> jax.Array:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (
            keep(part(x), "product").reshape(shape) for part in (self.query, self.key, self.value)
        )
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=at_least_float32(x)
        )
        scores = scores * (width // self.heads) ** -0.5 + bias
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        weights = dropout(weights, self.dropout, keys)
        seen = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return keep(seen, "product")


class AddAndNorm(nnx.Module):
    """`dense`, dropout, add the residual, `LayerNorm`: the end of both halves of a layer."""

    def __init__(self, inputs: int, config: BertConfig, *, dtype, rngs: nnx.Rngs):
        self.dense = _dense(inputs, config.width, config, dtype, rngs)
        self.LayerNorm = _layer_norm(config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, residual: jax.Array, keys: jax.Array | None) -> jax.Array:
        x = keep(self.dense(x), "product")
        return self.LayerNorm(dropout(x, self.dropout, keys) + residual)


class Attention(nnx.Module):
    def __init__(self, config: BertConfig, *, dtype, rngs: nnx.Rngs):
        self.self_ = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.output = AddAndNorm(config.width, config, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, bias: jax.Array, keys: tuple[jax.Array | None, jax.Array | None]
    ) -> jax.Array:
        return self.output(self.self_(x, bias, keys[0]), x, keys[1])


class Layer(nnx.Module):
    def __init__(self, config: BertConfig, *, dtype, rngs: nnx.Rngs):
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.intermediate = _dense(config.width, config.mlp_width, config, dtype, rngs)
        self.output = AddAndNorm(config.mlp_width, config, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> jax.Array:
        """`keys` are `[b, 3]`."""
        weights, attention, output = (None,) * 3 if keys is None else keys.T
        with jax.named_scope("attention"):
            x = self.attention(x, bias, (weights, attention))
        with jax.named_scope("mlp"):
            hidden = jax.nn.gelu(keep(self.intermediate(x), "product"), approximate=False)
            return keep(self.output(hidden, x, output), "block")


class Bert(nnx.Module):
    """BERT's embeddings and encoder layers."""

    def __init__(self, config: BertConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.pool = config.pool
        self.embeddings = Embeddings(config, dtype=dtype, rngs=rngs)
        self.layer = nnx.List([Layer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, tokens: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """One vector a caption.

        Args:
            tokens: int32 `[b, length]`, padded with `PAD_ID`, which nobody attends to. So it is
                with `COUNTED_PAD_ID`, but the means count the states in its places.
            keys: `[b]`, of dropout, see `dropout.row_keys`; None switches it off.

        Returns:
            `[b, width]`, in the computation's dtype.
        """
        # -10000 rather than -inf, as in the reference: a caption of padding alone stays finite.
        bias = jnp.where(tokens <= PAD_ID, -10000.0, 0.0)[:, None, None, :]
        own: list[Any] = [None] * (1 + len(self.layer))
        if keys is not None:
            split = split_rows(keys, (len(own), 3))
            own = [split[:, 0, 0], *(split[:, index] for index in range(1, len(own)))]
        with jax.named_scope("embeddings"):
            x = self.embeddings(jnp.maximum(tokens, PAD_ID), own[0])
        states = []
        for layer, layer_keys in zip(self.layer, own[1:], strict=True):
            x = layer(x, bias, layer_keys)
            states.append(x)
        if self.pool == "first":
            return x[:, 0]
        if self.pool == "layers":
            x = (states[0] + states[1] + states[-1]) / 3
        counted = (tokens != PAD_ID)[:, :, None].astype(x.dtype)
        return (x * counted).sum(axis=1) / jnp.maximum(counted.sum(axis=1), 1)
