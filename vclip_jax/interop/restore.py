"""The start of a new run: at random, or from another run's checkpoint or a portable folder.

A run that starts from existing weights is a new run. It takes the weights (parameters and batch
statistics), and begins at step 0 with a new learning rate schedule and a new optimizer.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files import packaged
from vclip_jax.files.writing import write_json
from vclip_jax.interop import folder, weights, workdir
from vclip_jax.models import low_rank
from vclip_jax.train import optim, parts
from vclip_jax.train.build import Training
from vclip_jax.train.checkpoint import Checkpoints
from vclip_jax.train.state import TrainState
from vclip_jax.train.whitening import whitened

# Initialisation runs once and is not worth optimising: it compiles in 2.6 s rather than 11 s.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}

START = "start.json"
WEIGHTS, OPTIMIZER, TEXT_TOWER = "weights", "weights and optimizer", "text tower"
_WITHOUT_EFFECT = ("model.text_dropout", "model.text_initializer_range", "data.decode")
"""Keys of a portable configuration that have little effect on the results of trained weights."""

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class Origin:
    """The weights that a run started from; the content of `start.json` in its workdir."""

    source: str
    """The value of `config.restore_from`."""
    step: int | None
    """The step of the checkpoint; None if unknown."""
    taken: str
    """The parts that were taken: `WEIGHTS`, `OPTIMIZER` (and the weights) or `TEXT_TOWER`."""

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:,}"
        return f"{self.source}{step} ({self.taken})"

    def save(self, workdir: Path) -> None:
        """Write `start.json`."""
        write_json(workdir / START, asdict(self))


def check_source(config: ConfigDict) -> None:
    """Check that the source that `config.restore_from` names exists, before any time is spent.

    Raises:
        ValueError: one line: there is no such source, or it lacks that step or the optimizer.
    """
    source = packaged.path_of(config.restore_from)
    if folder.is_portable(source):
        if config.restore_optimizer or config.restore_step != "latest":
            key = "restore_optimizer" if config.restore_optimizer else "restore_step"
            raise ValueError(
                f"config.{key} needs the workdir of a run, and config.restore_from={source} is a "
                "portable folder, which holds the weights alone"
            )
        return
    if not (source / "checkpoints").is_dir():
        hint = ": download it and name the folder" if config.restore_from[:4] == "hub:" else ""
        raise ValueError(
            f"config.restore_from={source} is neither a workdir with checkpoints nor a folder "
            f"with {folder.MODEL}{hint}"
        )
    with Checkpoints(source, read_only=True) as other:
        _chosen_step(source, other.steps(), config.restore_step)


def _chosen_step(source: Path, steps: tuple[int, ...], choice: str) -> int | None:
    if not steps:
        raise ValueError(f"config.restore_from={source} has no complete checkpoint")
    try:
        return workdir.choose(source, choice, steps)
    except ValueError as error:
        raise ValueError(f"config.restore_step={choice}: {error}") from error


def start_at_0(
    config: ConfigDict,
    training: Training,
    train: Sequence[Record],
    tokenizer: Tokenizer,
    own_workdir: Path,
) -> TrainState:
    """Return the state at step 0: random weights, or those of `config.restore_from`.

    The output projections are whitened if `config.model.whiten_pairs` asks for it and they are not
    trained yet. With several processes, all must call it together.

    Args:
        config: the run's config.
        training: the run's model and the layout of its state.
        train: pairs to whiten on.
        tokenizer: the run's tokenizer.
        own_workdir: the run's workdir, for `start.json` if the weights come from elsewhere.

    Raises:
        ValueError: one line: there is no such source, or it holds another model.
    """
    init = jax.jit(training.init, out_shardings=training.placement, compiler_options=QUICK_COMPILE)
    state, taken = init(), ""
    if config.restore_from:
        state, origin = restore_other(config, state, training.placement, tokenizer.vocab_size)
        taken = origin.taken
        log.info("starts at step 0 from %s", origin)
        if jax.process_index() == 0:
            origin.save(own_workdir)
    elif training.trained is not None:
        log.warning(
            "warning: config.train freezes parts of towers whose weights are random: name trained "
            "weights with config.restore_from"
        )
    if config.model.whiten_pairs and taken in ("", TEXT_TOWER):
        state = whitened(state, config, training, train, tokenizer)
    elif config.model.whiten_pairs:
        log.info("config.model.whiten_pairs is not used: the projections are trained already")
    return state


def restore_other(
    config: ConfigDict,
    fresh: TrainState,
    shardings: TrainState,
    vocab_size: int,
) -> tuple[TrainState, Origin]:
    """Return the state at step 0 with the weights that `config.restore_from` names.

    With several processes, all must call it together.

    Args:
        config: the config of the new run. `restore_optimizer` takes the optimizer's state too, but
            the learning rate schedule still begins at step 0.
        fresh: the state of an untrained model, from which everything else is taken.
        shardings: the shardings of its arrays.
        vocab_size: the number of tokens in the run's vocabulary.

    Raises:
        ValueError: one line: there is no such source, or it holds another model.
    """
    check_source(config)
    source = packaged.path_of(config.restore_from)
    ours = weights.portable_config(config, vocab_size)
    if folder.is_portable(source):
        portable, _ = folder.load(source)
        text_alone = portable.config["kind"] == "text"
        _report_differences(config.restore_from, portable.config, ours)
        taken = TEXT_TOWER if text_alone else WEIGHTS
        restored = weights.into_state(portable, fresh, shardings, origin=str(source))
        return restored, Origin(config.restore_from, None, taken)

    theirs = config_lib.default()
    theirs.update(config_lib.read(source / "config.json"))
    if config.restore_optimizer and theirs.train != config.train:
        raise ValueError(
            f"config.restore_optimizer=True: {source} trained config.train={theirs.train.to_dict()}"
            f" and this run trains {config.train.to_dict()}: take the weights alone"
        )
    if config.restore_optimizer and (
        differ := {*optim.stages(theirs.optimizer)} ^ {*optim.stages(config.optimizer)}
    ):
        raise ValueError(
            f"config.restore_optimizer=True: {source} and this run do not both use "
            f"config.optimizer.{sorted(differ)[0]}: set it as in that run, or take the weights "
            "alone"
        )
    if parts.has_low_rank(theirs.train) and not config.restore_optimizer:
        loaded, _, at = workdir.load(source, config.restore_step)
        _report_differences(config.restore_from, loaded.config, ours)
        restored = weights.into_state(loaded, fresh, shardings, origin=str(source))
        if "logit_bias" in fresh.params and theirs.loss.kind.startswith("sigmoid"):
            restored = _with_bias(restored, shardings, source, at)
        return restored, Origin(config.restore_from, at, WEIGHTS)
    abstract = jax.eval_shape(lambda: fresh)
    with Checkpoints(source, read_only=True) as other:
        step = _chosen_step(source, other.steps(), config.restore_step)
        if config.restore_optimizer:
            whole = other.restore(abstract, shardings, step)
            step, params, batch_stats = int(whole.step), whole.params, whole.batch_stats
            fresh = fresh.replace(opt_state=_schedule_from_0(whole.opt_state))
        else:
            has_bias = theirs.loss.kind.startswith("sigmoid")

            def has(name: str) -> bool:
                return has_bias if name == "logit_bias" else f"/{low_rank.NAME}/" not in name

            wanted, places = (parts.pick(t, has) for t in (abstract.params, shardings.params))
            params, batch_stats, step = other.restore_model(
                abstract.replace(params=wanted), shardings.replace(params=places), step
            )
            own = parts.pick(fresh.params, lambda name: not has(name))
            params = parts.joined(params, own)
    _report_differences(config.restore_from, weights.portable_config(theirs, vocab_size), ours)
    restored = fresh.replace(params=params, batch_stats=batch_stats)
    taken = OPTIMIZER if config.restore_optimizer else WEIGHTS
    return restored, Origin(config.restore_from, step, taken)


def _with_bias(state: TrainState, shardings: TrainState, source: Path, step: int) -> TrainState:
    """Take the sigmoid loss's bias of another run, which is no part of its model."""
    wanted, places = (
        tree.replace(params={"logit_bias": tree.params["logit_bias"]})
        for tree in (jax.eval_shape(lambda: state), shardings)
    )
    with Checkpoints(source, read_only=True) as other:
        params, _, _ = other.restore_model(wanted, places, step)
    return state.replace(params=state.params | params)


def _schedule_from_0(opt_state: Any) -> Any:
    """Set an optimizer's learning rate schedule back to step 0.

    Adam's own count, which belongs to its moments, stays.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda node: node._replace(count=node.count * 0) if is_schedule(node) else node,
        opt_state,
        is_leaf=is_schedule,
    )


def _report_differences(source: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Warn of settings that differ from those of the weights' training; shapes do not show them."""
    differences = []
    for section in ("model", "data", "tokenizer"):
        for key, value in theirs.get(section, {}).items():
            here = ours[section].get(key)
            if value != here and f"{section}.{key}" not in _WITHOUT_EFFECT:
                differences.append(
                    f"config.{section}.{key}={json.dumps(value)} (here {json.dumps(here)})"
                )
    if differences:
        log.warning(
            "warning: the weights of %s were trained with %s", source, ", ".join(differences)
        )
