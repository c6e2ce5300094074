"""What training carries from step to step, and the step itself."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.losses import INITIAL_SIGMOID_BIAS, INITIAL_SIGMOID_SCALE, contrastive_loss
from vclip_jax.models.clip import MAX_LOGIT_SCALE, Clip
from vclip_jax.sharding import BATCH
from vclip_jax.tree import path_string

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. Model variables are nested dictionaries of arrays."""

    step: jax.Array
    """int32 scalar: steps done."""
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState


def split_model(model: Clip) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The model's structure, its parameters and its batch statistics, the latter two as dicts."""
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def with_logit_bias(make_model: Callable[[nnx.Rngs], Clip]) -> Callable[[nnx.Rngs], Clip]:
    """`make_model`, and what the sigmoid loss needs: a `logit_bias`, and its first temperature."""

    def make(rngs: nnx.Rngs) -> Clip:
        model = make_model(rngs)
        model.logit_bias = nnx.Param(jnp.array(INITIAL_SIGMOID_BIAS, jnp.float32))
        model.logit_scale = nnx.Param(jnp.log(jnp.array(INITIAL_SIGMOID_SCALE, jnp.float32)))
        return model

    return make


def init_state(
    make_model: Callable[[nnx.Rngs], Clip],
    optimizer: optax.GradientTransformation,
    seed: int,
    half: bool = False,
) -> TrainState:
    """A state at step 0 from random initialisation; a pure function of `seed`, so it can be jitted
    with output shardings, or evaluated for shapes only.

    `half` rounds the weights through float16: Chinese-CLIP converts its new model to half precision
    and back (`convert_weights`, `convert_models_to_fp32`).
    """
    _, params, batch_stats = split_model(make_model(nnx.Rngs(seed)))
    if half:
        params = jax.tree_util.tree_map_with_path(_round_to_half, params)
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


def _round_to_half(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    name = path_string(path)
    if name in ("logit_scale", "logit_bias") or (
        name.startswith("visual/") and name.endswith("_embedding")
    ):
        return leaf  # single parameters of the image tower, which the conversion passes over
    return leaf.astype(jnp.float16).astype(jnp.float32)


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    seed: int,
    *,
    loss: Callable[..., jax.Array] = contrastive_loss,
    targets: str = "pair",
    clamp: str = "after_step",
    feature_gradient: float = 1.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The training step as a pure function `(state, batch) -> (state, metrics)`, not yet jitted.

    The batch has `image`, uint8 `[b, s, s, 3]`, `tokens`, int32 `[b, length]`, and for captions as
    targets `caption_id`, int32 `[b]`. Metrics are float32 scalars: `loss`, `logit_scale` (the
    multiplier before the update), `logit_bias` (if the model has one) and `grad_norm`. Dropout at a
    step is a function of (seed, step).

    Args:
        graphdef: the model's structure, from `split_model`.
        optimizer: its state is in `TrainState.opt_state`.
        seed: of dropout.
        loss: `contrastive_loss` with its settings; a sigmoid needs a model of `with_logit_bias`.
        targets: see `config.loss.targets`.
        clamp: see `config.optimizer.clamp`.
        feature_gradient: what the gradient is multiplied by where it enters the towers; one over
            the number of devices is what an all-gather without gradient amounts to once the
            processes' gradients are averaged.
    """

    def loss_fn(params: dict, batch_stats: dict, batch: Batch, dropout: jax.Array):
        model = nnx.merge(graphdef, params, batch_stats)
        image = model.encode_image(batch["image"], train=True)
        text = model.encode_text(batch["tokens"], rngs=nnx.Rngs(dropout=dropout))
        logit_scale = model.logit_scale[...]
        if clamp == "forward":
            logit_scale = jnp.clip(logit_scale, 0.0, MAX_LOGIT_SCALE)
        image, text = (_scale_gradient(x, feature_gradient) for x in (image, text))
        terms: dict[str, jax.Array] = {}
        if "logit_bias" in params:
            terms["logit_bias"] = model.logit_bias[...]
        if targets == "caption":
            terms["group"] = batch["caption_id"]
        value = loss(image, text, logit_scale, **terms)
        return value, (jnp.exp(logit_scale), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout = jax.random.fold_in(jax.random.key(seed), state.step)
        (value, (scale, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.batch_stats, batch, dropout
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if clamp == "after_step":
            params["logit_scale"] = jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)
        metrics = {
            "loss": value,
            "logit_scale": scale,
            "grad_norm": optax.tree.norm(grads),
        }
        if "logit_bias" in state.params:
            metrics["logit_bias"] = state.params["logit_bias"]
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return train_step


def _scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """`x`, whose gradient is multiplied by `factor`."""
    return x if factor == 1 else factor * x + (1 - factor) * jax.lax.stop_gradient(x)


def jit_train_step(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    mesh: Mesh,
    state_shardings: TrainState,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compile a step for a mesh: batch sharded, metrics replicated, the old state's memory reused.

    The state's layout going in and coming out is `state_shardings`.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        train_step,
        in_shardings=(state_shardings, NamedSharding(mesh, BATCH)),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )
