"""The model, the state and the training step of a config on a mesh.

Training and `vclip plan` share this module, so the step that is compiled ahead of time is the step
that runs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vclip_jax.devices import sharding, tree
from vclip_jax.devices.chips import COMPILER_OPTIONS
from vclip_jax.files.writing import write_json
from vclip_jax.models import build
from vclip_jax.models.build import Batch, build_clip, compute_dtype
from vclip_jax.models.clip import Clip
from vclip_jax.models.flops import step_flops
from vclip_jax.models.kinds import LOSSES
from vclip_jax.models.rng import seeded
from vclip_jax.train import guards, optim, parts, state
from vclip_jax.train.state import Metrics, TrainState
from vclip_jax.train.step import jit_train_step, make_train_step

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class Training:
    """Model, state and step of a config on a mesh."""

    mesh: Mesh
    graphdef: nnx.GraphDef
    """The model's structure, see `build.split_model`."""
    init: Callable[[], TrainState]
    """The state at step 0; to be jitted."""
    abstract: TrainState
    """Shapes and types of the state."""
    placement: TrainState
    """The shardings of the state: a tree of `NamedSharding`."""
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    """The jitted training step, see `guards.guarded`."""
    gradient_norms: Callable[[TrainState, Batch], dict[str, jax.Array]]
    """Norms of a step's gradients by part of the model, to diagnose a failed run."""
    trained: frozenset[str] | None = None
    """The names of the parameters that the step changes, see `parts`; None for all."""


def make_training(config: ConfigDict, mesh: Mesh, vocab_size: int) -> Training:
    """Make model, state and step; computes and compiles nothing yet."""
    make_model = model_maker(config, vocab_size, platform=mesh.devices.flat[0].platform)
    if config.loss.kind.startswith("sigmoid"):
        make_model = state.with_logit_bias(make_model)
    make_model, trained = with_parts(make_model, config.train)
    graphdef, params, _ = build.split_model(nnx.eval_shape(lambda: make_model(seeded(0))))
    optimizer = optim.make_optimizer(config.optimizer, config.total_steps, parts.names_in(params))
    init = partial(
        state.init_state,
        make_model,
        optimizer,
        config.seed,
        half=config.model.half_init,
        trained=trained,
    )
    abstract = jax.eval_shape(init)
    placement = sharding.state_sharding(abstract, mesh, config.mesh.rules)
    make_step = partial(
        make_train_step,
        graphdef,
        seed=config.seed,
        mesh=mesh,
        placement=placement,
        loss=partial(LOSSES[config.loss.kind], label_smoothing=config.loss.label_smoothing),
        targets=config.loss.targets,
        clamp=config.optimizer.clamp,
        feature_gradient=1.0 if config.optimizer.gather_gradient else 1 / mesh.size,
        micro_batches=config.micro_batches,
        remat=config.remat,
        trained=trained,
    )
    platform = mesh.devices.flat[0].platform
    step = jit_train_step(
        guards.guarded(make_step(optimizer)), mesh, placement, COMPILER_OPTIONS.get(platform)
    )
    diagnosing = make_step(guards.measuring())
    gradient_norms = jax.jit(
        lambda state, batch: diagnosing(state.replace(opt_state=None), batch)[0].opt_state,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    return Training(mesh, graphdef, init, abstract, placement, step, gradient_norms, trained)


def with_parts(
    make_model: parts.MakeModel, train: Mapping[str, Any]
) -> tuple[parts.MakeModel, frozenset[str] | None]:
    """Return `make_model` for what `config.train` trains, and the names of what is trained.

    The names are None if everything is trained.

    Raises:
        ValueError: one line: the model lacks what is to be trained.
    """
    if parts.all_is_trained(train):
        return make_model, None
    make_model = parts.with_low_rank(make_model, train)
    model = nnx.eval_shape(lambda: make_model(seeded(0)))
    trained = parts.trained_names(train, parts.names_in(build.split_model(model)[1]))
    parts.check_statistics(model, trained)
    return parts.with_frozen_statistics(make_model, trained), trained


def check_parts(config: ConfigDict) -> None:
    """Refuse to train parts that the model lacks; computes nothing.

    Raises:
        ValueError: one line that says what the model lacks.
    """
    with_parts(model_maker(config, vocab_size=1), config.train)


def describe(training: Training, workdir: Path) -> None:
    """Log the size of the model and of its state, and write `placements.json`."""
    mesh, abstract = training.mesh, training.abstract
    arrays = sharding.abstract_arrays(abstract, training.placement)
    log.info(
        "model: %s parameters on %d x %s, mesh %s, %.2f GiB of state on each",
        f"{tree.count(abstract.params):,}",
        jax.device_count(),
        jax.devices()[0].device_kind,
        dict(mesh.shape),
        sharding.bytes_per_device(arrays) / 2**30,
    )
    if training.trained is not None:
        changed = parts.pick(abstract.params, training.trained.__contains__)
        log.info(
            "trained: %s of these parameters; the others are frozen", f"{tree.count(changed):,}"
        )
    if jax.process_index() == 0:
        write_json(workdir / "placements.json", sharding.describe(arrays))


def graph_of(make_model: Callable[[nnx.Rngs], Clip]) -> nnx.GraphDef:
    """Return the structure of a model; computes nothing."""
    graphdef, _, _ = build.split_model(nnx.eval_shape(lambda: make_model(seeded(0))))
    return graphdef


def model_maker(
    config: ConfigDict, vocab_size: int, platform: str | None = None
) -> Callable[[nnx.Rngs], Clip]:
    """Return a function from `nnx.Rngs` to the model that the config describes.

    `platform` is that of the devices, "cpu", "gpu" or "tpu"; None is this process's default.
    """
    return partial(
        build_clip,
        config.model,
        image_size=config.data.image_size,
        vocab_size=vocab_size,
        image_mean=config.data.image_mean,
        image_std=config.data.image_std,
        per_device_norm=config.model.batch_norm == "device",
        scan_layers=config.scan_text_layers,
        dtype=compute_dtype(config.compute_dtype, platform),
    )


def flops_of_step(config: ConfigDict) -> float | None:
    """Return the model's operations in a training step; None if only parts of towers are trained.

    The count is of three forward passes, more than what partial training computes.
    """
    if not parts.all_is_trained(config.train):
        return None
    return step_flops(
        config.model,
        image_size=config.data.image_size,
        context_length=config.tokenizer.context_length,
        global_batch=config.global_batch_size,
    )


def step_arguments(config: ConfigDict, mesh: Mesh, training: Training) -> tuple[Any, Any]:
    """Return shapes, dtypes and shardings of the arguments of `training.step`."""
    rows = NamedSharding(mesh, sharding.BATCH)
    size, pairs = config.data.image_size, config.global_batch_size
    shapes = {
        "image": ((pairs, size, size, 3), jnp.uint8),
        "tokens": ((pairs, config.tokenizer.context_length), jnp.int32),
        "key_hash": ((pairs,), jnp.uint32),
        "caption_id": ((pairs,), jnp.int32),
    }
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in shapes.items()
    }
    return sharding.abstract_arrays(training.abstract, training.placement), batch
