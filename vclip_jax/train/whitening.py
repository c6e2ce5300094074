"""A data-dependent initialisation for short runs, which would stay long at a loss of log(batch).

At random initialisation the embeddings of all captions, and to a lesser degree of all images, are
almost one point: their common parts (common characters, the [CLS] token, the mean of rectified
features) outweigh their differences. Training then first collapses the differences and needs
hundreds of steps to leave this saddle. Whitening the two output projections on unlabelled training
pairs removes the common parts (after Krähenbühl et al. 2016, "Data-dependent initializations of
convolutional neural networks"). Only initial values change, not the model.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.models.build import Batch
from vclip_jax.train.build import Training
from vclip_jax.train.inputs import open_train_batches
from vclip_jax.train.state import TrainState

RIDGE = 1e-2
"""Directions with less than this share of the mean variance are noise and stay small."""


def _inverse_root(second_moment: jax.Array) -> jax.Array:
    """Return the symmetric inverse square root of a `[d, d]` positive semi-definite matrix.

    A ridge is added first, see `RIDGE`.
    """
    d = second_moment.shape[0]
    # The floor keeps a batch without any variance finite.
    ridge = RIDGE * jnp.trace(second_moment) / d + 1e-6
    values, vectors = jnp.linalg.eigh(second_moment)
    return (vectors * jax.lax.rsqrt(jnp.maximum(values, 0) + ridge)) @ vectors.T


def whiten_projections(
    graphdef: nnx.GraphDef, params: dict[str, Any], batch_stats: dict[str, Any], batch: Batch
) -> dict[str, Any]:
    """Return parameters whose output projections give white embeddings on `batch`.

    A pure function. Images are centred and whitened, because their projection has a bias. Captions
    are whitened about the origin, because theirs has none; the common direction then weighs no
    more than any other.

    Args:
        graphdef, params, batch_stats: the model, from `build.split_model`.
        batch: `image` and `tokens` of a few hundred pairs, as for a training step.
    """
    model = nnx.merge(graphdef, params, batch_stats)
    image = model.image_features(batch["image"], train=True).astype(jnp.float32)
    mean = image.mean(axis=0)
    centred = image - mean
    root = _inverse_root(centred.T @ centred / image.shape[0])
    projection = params["visual"]["attnpool"]["c_proj"]
    new_projection = {
        "kernel": projection["kernel"] @ root,
        "bias": (projection["bias"] - mean) @ root,
    }

    pooled = model.bert(batch["tokens"]).astype(jnp.float32)
    text = pooled @ params["text_projection"]
    root = _inverse_root(text.T @ text / text.shape[0])
    visual = params["visual"]
    attnpool = visual["attnpool"] | {"c_proj": new_projection}
    return params | {
        "visual": visual | {"attnpool": attnpool},
        "text_projection": params["text_projection"] @ root,
    }


def jit_whiten(
    graphdef: nnx.GraphDef, mesh: Mesh, state_shardings: TrainState
) -> Callable[[dict[str, Any], dict[str, Any], Batch], dict[str, Any]]:
    """Jit `whiten_projections` for a mesh, with the same bits on any number of devices.

    Every device whitens the whole sample: an inverse root turns the last digit of a sum into the
    third digit of a weight, so the order of the sums must not depend on the mesh.
    """
    replicated = NamedSharding(mesh, PartitionSpec())

    def whiten(params: dict[str, Any], batch_stats: dict[str, Any], batch: Batch):
        params, batch_stats, batch = jax.lax.with_sharding_constraint(
            (params, batch_stats, batch), replicated
        )
        return whiten_projections(graphdef, params, batch_stats, batch)

    return jax.jit(whiten, out_shardings=state_shardings.params)


def whitened(
    state: TrainState,
    config: ConfigDict,
    training: Training,
    train: Sequence[Record],
    tokenizer: Tokenizer,
) -> TrainState:
    """Whiten the output projections of `state` on `config.model.whiten_pairs` pairs of `train`.

    With several processes, all must call it together.
    """
    mesh, pairs = training.mesh, config.model.whiten_pairs
    batches = open_train_batches(config, mesh, train, tokenizer, pairs, few=True)
    whiten = jit_whiten(training.graphdef, mesh, training.placement)
    with closing(batches):
        params = whiten(state.params, state.batch_stats, next(batches))
    return state.replace(params=params)
