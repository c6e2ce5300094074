"""The text tower: BERT's encoder as RoBERTa-wwm-ext uses it (post-norm, exact GELU, no pooler).

Attribute names follow the Hugging Face checkpoints (`encoder.layer.0.attention.self.query`, with
`self` written `self_` because the name is taken in Python).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.models.dropout import dropout, split_rows
from vclip_jax.models.kinds import TEXT_POOLS
from vclip_jax.models.layers import Dense, at_least_float32, normal_init
from vclip_jax.models.remat import keep

PAD_ID = 0
COUNTED_PAD_ID = -1
"""Padding whose states count in a mean, as in FLAIR: see `Scorer.prompt_embeddings`."""
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
    """The sentence vector: "first", "mean" or "layers".

    "first" takes the state of the [CLS] token (the recipe). "mean" averages over real tokens, which
    distinguishes captions from the first step on and so suits short training. "layers" takes that
    average over the states after the first, the second and the last layer (FLAIR).
    """
    scan: bool = False
    """Compile one layer and run it in a loop: faster to compile, slower to run."""

    def make(self, *, dtype: DTypeLike, rngs: nnx.Rngs) -> "Bert":
        """Make the tower with random weights."""
        return Bert(self, dtype=dtype, rngs=rngs)


def _dense(
    inputs: int, outputs: int, config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs
) -> Dense:
    init = normal_init(config.initializer_range)
    return Dense(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)


def _layer_norm(config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Flax computes the moments in float32 for every `dtype`.
    return nnx.LayerNorm(config.width, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)


def _embed(size: int, config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Embed:
    init = normal_init(config.initializer_range)
    return nnx.Embed(size, config.width, embedding_init=init, dtype=dtype, rngs=rngs)


class BertEmbeddings(nnx.Module):
    """Word, position and token-type embeddings, norm, dropout."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.word_embeddings = _embed(config.vocab_size, config, dtype, rngs)
        self.position_embeddings = _embed(config.max_positions, config, dtype, rngs)
        self.token_type_embeddings = _embed(config.type_vocab_size, config, dtype, rngs)
        self.LayerNorm = _layer_norm(config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, tokens: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Map int32 `[b, length]` to `[b, length, width]`; `keys` `[b]` are those of dropout."""
        positions = jnp.arange(tokens.shape[1])[None]
        x = self.word_embeddings(tokens) + self.position_embeddings(positions)
        x = x + self.token_type_embeddings(jnp.zeros_like(positions))
        return dropout(self.LayerNorm(x), self.dropout, keys)


class SelfAttention(nnx.Module):
    """Multi-head attention among the tokens of one caption, with dropout on the weights."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = _dense(config.width, config.width, config, dtype, rngs)
        self.key = _dense(config.width, config.width, config, dtype, rngs)
        self.value = _dense(config.width, config.width, config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Map `[b, length, width]` to the same shape.

        Args:
            x: the states.
            bias: `[b, 1, 1, length]`, added to the scores: 0, or a large negative number where
                nobody looks.
            keys: `[b]`, of dropout; None switches it off.
        """
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
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return keep(attended, "product")


class AddAndNorm(nnx.Module):
    """The end of both halves of a layer: `dense`, dropout, add the residual, `LayerNorm`."""

    def __init__(self, inputs: int, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dense = _dense(inputs, config.width, config, dtype, rngs)
        self.LayerNorm = _layer_norm(config, dtype, rngs)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, residual: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Map `[b, length, inputs]` and the residual `[b, length, width]` to the latter's shape.

        `keys` `[b]` are those of dropout; None switches it off.
        """
        x = keep(self.dense(x), "product")
        return self.LayerNorm(dropout(x, self.dropout, keys) + residual)


class BertAttention(nnx.Module):
    """The first half of a layer: attention, then `AddAndNorm`."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.self_ = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.output = AddAndNorm(config.width, config, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, bias: jax.Array, keys: tuple[jax.Array | None, jax.Array | None]
    ) -> jax.Array:
        """Map `[b, length, width]` to the same shape.

        `bias` is that of `SelfAttention`; `keys` `[b]` are those of the dropout of the weights and
        of the result.
        """
        return self.output(self.self_(x, bias, keys[0]), x, keys[1])


class Layer(nnx.Module):
    """A layer of the encoder: attention, then two linear layers with a GELU between."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.attention = BertAttention(config, dtype=dtype, rngs=rngs)
        self.intermediate = _dense(config.width, config.mlp_width, config, dtype, rngs)
        self.output = AddAndNorm(config.mlp_width, config, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Map `[b, length, width]` to the same shape.

        `bias` is that of `SelfAttention`; `keys` `[b, 3]` are those of dropout, None switches it
        off.
        """
        weights, attention, output = (None,) * 3 if keys is None else keys.T
        with jax.named_scope("attention"):
            x = self.attention(x, bias, (weights, attention))
        with jax.named_scope("mlp"):
            hidden = jax.nn.gelu(keep(self.intermediate(x), "product"), approximate=False)
            return keep(self.output(hidden, x, output), "block")


def first_state(states: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the state of [CLS]: `[b, length, width]` to `[b, width]`."""
    return states[:, 0]


def mean_state(states: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the mean of the counted states: `[b, length, width]` to `[b, width]`."""
    return (states * counted).sum(axis=1) / jnp.maximum(counted.sum(axis=1), 1)


class Bert(nnx.Module):
    """BERT's embeddings and encoder layers."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.pool, self.scan = config.pool, config.scan
        self.embeddings = BertEmbeddings(config, dtype=dtype, rngs=rngs)
        self.layer = nnx.List([Layer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, tokens: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """Return one vector a caption.

        Args:
            tokens: int32 `[b, length]`, padded with `PAD_ID`, which is masked in attention.
                `COUNTED_PAD_ID` is masked too, but its states count in the means.
            keys: `[b]`, keys of dropout, see `dropout.row_keys`; None switches dropout off.

        Returns:
            `[b, width]`, in the computation's dtype.
        """
        # -10000 rather than -inf, as in the reference: a caption of nothing but padding is finite.
        bias = jnp.where(tokens <= PAD_ID, -10000.0, 0.0)[:, None, None, :]
        layer_keys = None if keys is None else split_rows(keys, (1 + len(self.layer), 3))
        with jax.named_scope("embeddings"):
            first_keys = None if layer_keys is None else layer_keys[:, 0, 0]
            x = self.embeddings(jnp.maximum(tokens, PAD_ID), first_keys)
        x, states = (self._scanned if self.scan else self._unrolled)(x, bias, layer_keys)
        if self.pool == "layers":
            x = (states[0] + states[1] + x) / 3
        return TEXT_POOLS[self.pool](x, (tokens != PAD_ID)[:, :, None].astype(x.dtype))

    def _unrolled(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> Any:
        """Return the states after the last layer and after each layer.

        The arguments are the states before the first layer and keys `[b, 1 + layers, 3]`.
        """
        states = []
        for index, layer in enumerate(self.layer, start=1):
            x = layer(x, bias, None if keys is None else keys[:, index])
            states.append(x)
        return x, states

    def _scanned(self, x: jax.Array, bias: jax.Array, keys: jax.Array | None) -> Any:
        """Compute `_unrolled` in a loop over layers, whose parameters are stacked.

        The states after each layer are returned only if the pool needs them.
        """
        graphdef = nnx.graphdef(self.layer[0])
        params = [nnx.to_pure_dict(nnx.state(layer)) for layer in self.layer]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        layer_keys = None if keys is None else jnp.swapaxes(keys[:, 1:], 0, 1)

        def body(x: jax.Array, layer: tuple[Any, Any]) -> tuple[jax.Array, jax.Array | None]:
            x = nnx.merge(graphdef, layer[0])(x, bias, layer[1])
            return x, x if self.pool == "layers" else None

        return jax.lax.scan(body, x, (stacked, layer_keys))
