"""The training step: loss, gradients and update, as one pure function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.devices.sharding import BATCH
from vclip_jax.models.build import Batch
from vclip_jax.models.clip import MAX_LOGIT_SCALE
from vclip_jax.models.dropout import row_keys
from vclip_jax.models.losses import contrastive_loss
from vclip_jax.models.remat import NO_REMAT, rematerialised
from vclip_jax.train import parts
from vclip_jax.train.state import Metrics, TrainState


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    seed: int,
    *,
    mesh: Mesh | None = None,
    placement: TrainState | None = None,
    loss: Callable[..., jax.Array] = contrastive_loss,
    targets: str = "pair",
    clamp: str = "after_step",
    feature_gradient: float = 1.0,
    micro_batches: int = 1,
    remat: Mapping[str, str] = NO_REMAT,
    trained: frozenset[str] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return the training step, a pure function `(state, batch) -> (state, metrics)`, not jitted.

    The batch has `image`, uint8 `[b, s, s, 3]`, `tokens`, int32 `[b, length]`, and for captions as
    targets `caption_id`, int32 `[b]`. Metrics are float32 scalars: `loss`, `logit_scale` (the
    multiplier before the update), `logit_bias` (if the model has one) and `grad_norm`. Dropout is a
    function of (seed, step, row of the batch).

    On a mesh, each device encodes its rows of the batch. Devices exchange only embeddings, the
    statistics of global batch norms, and gradients (in float32).

    Args:
        graphdef: the model's structure, from `split_model`.
        optimizer: the optimizer, whose state is in `TrainState.opt_state`.
        seed: the seed of dropout.
        mesh: the mesh; None computes the whole batch on one device.
        placement: shardings of the state on the mesh, from `sharding.state_sharding`.
        loss: `contrastive_loss` with its settings; a sigmoid needs a model of `with_logit_bias`.
        targets: see `config.loss.targets`.
        clamp: see `config.optimizer.clamp`.
        feature_gradient: the factor of the gradient where it enters the towers. One over the
            number of devices gives the result of an all-gather without gradient followed by
            averaging the gradients of the processes.
        micro_batches: parts in which a device encodes its rows, one after another, and again for
            the gradients. The loss is that of the whole batch; each part has its own batch
            statistics, whose mean updates the running statistics.
        remat: see `config.remat`.
        trained: the names of the parameters to change, from `parts.trained_names`; None for all.
            No gradient is computed for others. A text tower without trained parameters has no
            dropout.
    """

    def changes(name: str) -> bool:
        return trained is None or name in trained

    def moves(name: str) -> bool:
        return changes(f"{name.rpartition('/')[0]}/scale")  # of the statistics' batch norm

    def split(params: dict) -> tuple[dict, dict]:
        """Return the parameters that the step changes, and the others."""
        return parts.pick(params, changes), parts.pick(params, lambda name: not changes(name))

    axes = mesh.axis_names if mesh is not None else ()
    specs = jax.tree.map(lambda sharding: sharding.spec, placement.params) if placement else {}
    drops = trained is None or any(name.startswith(parts.TEXT_TOWERS) for name in trained)
    encode = _encoder(graphdef, remat, micro_batches)

    def loss_fn(changed: dict, fixed: dict, batch_stats: dict, batch: Batch, key: jax.Array):
        params = parts.joined(changed, fixed)
        if axes:
            params = jax.tree.map(partial(_whole, axes), params, specs)
        local = len(batch["tokens"])
        first = jax.lax.axis_index(axes) * local if axes else 0
        rows: dict[str, Any] = {name: batch[name] for name in ("image", "tokens")}
        rows["keys"] = row_keys(key, first + jnp.arange(local)) if drops else None
        image, text, moved = encode(params, batch_stats, rows)
        logit_scale = params["logit_scale"]
        if clamp == "forward":
            logit_scale = jnp.clip(logit_scale, 0.0, MAX_LOGIT_SCALE)
        image, text = (_scale_gradient(x, feature_gradient) for x in (image, text))
        terms: dict[str, Any] = {"axes": axes} if axes else {}
        if "logit_bias" in params:
            terms["logit_bias"] = params["logit_bias"]
        if targets == "caption":
            terms["group"] = batch["caption_id"]
        with jax.named_scope("loss"):
            value = loss(image, text, logit_scale, **terms)
        return value, moved

    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if mesh is not None:
        everywhere = PartitionSpec()
        gradient = jax.shard_map(
            gradient,
            mesh=mesh,
            in_specs=(*split(specs), everywhere, BATCH, everywhere),
            out_specs=((everywhere, everywhere), split(specs)[0]),
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        changed, fixed = split(state.params)
        (value, moved), grads = gradient(changed, fixed, state.batch_stats, batch, key)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, changed)
            params = parts.joined(optax.apply_updates(changed, updates), fixed)
        # A mean over micro-batches could change the bits of statistics that do not move.
        still = parts.pick(state.batch_stats, lambda name: not moves(name))
        batch_stats = parts.joined(parts.pick(moved, moves), still)
        scale = state.params["logit_scale"]
        if clamp == "forward":
            scale = jnp.clip(scale, 0.0, MAX_LOGIT_SCALE)
        else:
            params["logit_scale"] = jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)
        metrics = {
            "loss": value,
            "logit_scale": jnp.exp(scale),
            "grad_norm": optax.tree.norm(grads),
        }
        if "logit_bias" in state.params:
            metrics["logit_bias"] = state.params["logit_bias"]
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return train_step


def _encoder(
    graphdef: nnx.GraphDef, remat: Mapping[str, str], micro_batches: int
) -> Callable[[dict, dict, Batch], tuple[jax.Array, jax.Array, dict]]:
    """Return `(params, batch_stats, rows)` to unit vectors of images and texts, `[b, d]` each, and
    the new batch statistics. The rows have `image`, `tokens` and the `keys` of dropout, None for
    none."""

    def encode(params: dict, batch_stats: dict, rows: Batch) -> tuple[jax.Array, jax.Array, dict]:
        def visual(params: dict, images: jax.Array) -> tuple[jax.Array, dict]:
            model = nnx.merge(graphdef, params, batch_stats)
            image = model.encode_image(images, train=True)
            return image, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        def textual(params: dict, tokens: jax.Array, keys: jax.Array | None) -> jax.Array:
            model = nnx.merge(graphdef, params, batch_stats)
            return model.encode_text(tokens, keys=keys)

        visual = rematerialised(visual, "image", remat["image"])
        textual = rematerialised(textual, "text", remat["text"])
        image, moved = visual(params, rows["image"])
        return image, textual(params, rows["tokens"], rows["keys"]), moved

    def encode_parts(
        params: dict, batch_stats: dict, rows: Batch
    ) -> tuple[jax.Array, jax.Array, dict]:
        parts = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), rows)
        # Compute a part's activations again for its gradient instead of keeping them.
        again = jax.checkpoint(partial(encode, params, batch_stats))
        image, text, moved = jax.lax.map(again, parts)
        image, text = (x.reshape(len(rows["tokens"]), -1) for x in (image, text))
        return image, text, jax.tree.map(lambda x: x.mean(axis=0), moved)

    return encode if micro_batches == 1 else encode_parts


def _whole(axes: tuple[str, ...], x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Gather a parameter of which a device may hold only its share.

    The gradient, float32, is summed over all devices, and each device gets its share.
    """
    x = jax.lax.pcast(x, tuple(axis for axis in axes if axis not in spec), to="varying")
    for dimension, axis in enumerate(spec):
        if axis is not None:
            x = jax.lax.all_gather(x, axis, axis=dimension, tiled=True)
    return x


def _scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """Return `x`, with its gradient multiplied by `factor`."""
    return x if factor == 1 else factor * x + (1 - factor) * jax.lax.stop_gradient(x)


def jit_train_step(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    mesh: Mesh,
    state_shardings: TrainState,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Jit a step for a mesh: batch sharded, metrics replicated, the old state's memory reused.

    `state_shardings` are those of the state before and after the step; `compiler_options` are
    XLA's.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        train_step,
        in_shardings=(state_shardings, NamedSharding(mesh, BATCH)),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
        compiler_options=compiler_options,
    )
