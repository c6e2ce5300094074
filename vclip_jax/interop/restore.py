"""The start of a new run: at random, or from another run's checkpoint or a portable folder.

A run that starts from others' weights is a new run. It takes the weights (parameters and batch
statistics), and begins at step 0 with a learning rate schedule and an optimizer of its own.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.writing import write_json
from vclip_jax.interop import folder, weights, workdir
from vclip_jax.train.build import Training
from vclip_jax.train.checkpoint import Checkpoints
from vclip_jax.train.state import TrainState
from vclip_jax.train.whitening import whitened

# Initialisation runs once: not worth the optimiser's time (2.6 s rather than 11 s to compile).
QUICK_COMPILE = {"xla_backend_optimization_level": 0}

START = "start.json"
WEIGHTS, OPTIMIZER, TEXT_TOWER = "weights", "weights and optimizer", "text tower"
_WITHOUT_EFFECT = ("model.text_dropout", "model.text_initializer_range", "data.decode")
"""Keys of a portable configuration that say little about what trained weights compute."""

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class Origin:
    """From what a run started; the content of `start.json` in its workdir."""

    source: str
    """As `config.restore_from` gives it."""
    step: int | None
    """Of the checkpoint; None where that is not known."""
    taken: str
    """`WEIGHTS`, `OPTIMIZER` (the weights too) or `TEXT_TOWER`."""

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:,}"
        return f"{self.source}{step} ({self.taken})"

    def save(self, workdir: Path) -> None:
        """Write `start.json`."""
        write_json(workdir / START, asdict(self))


def check_source(config: ConfigDict) -> None:
    """See whether there is what `config.restore_from` names, before anything is spent.

    Raises:
        ValueError: one line: there is nothing to start from, or not that step or part of it.
    """
    source = Path(config.restore_from)
    if (source / folder.MODEL).is_file():
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
    """The state with which a new run begins: random weights, or those of `config.restore_from`,
    whitened if that is asked for and nobody has trained them.

    With several processes all call it together.

    Args:
        config: of the run.
        training: its model and the layout of its state.
        train: pairs to whiten on.
        tokenizer: the run's own.
        own_workdir: gets `start.json` where the weights are others'.

    Raises:
        ValueError: one line: there is nothing to start from, or it is of another model.
    """
    init = jax.jit(training.init, out_shardings=training.placement, compiler_options=QUICK_COMPILE)
    state, taken = init(), ""
    if config.restore_from:
        state, origin = restore_other(config, state, training.placement, tokenizer.vocab_size)
        taken = origin.taken
        log.info("starts at step 0 from %s", origin)
        if jax.process_index() == 0:
            origin.save(own_workdir)
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
    """The state at step 0 with the weights that `config.restore_from` names.

    With several processes all call it together.

    Args:
        config: of the run that starts. `restore_optimizer` takes the optimizer's state too; its
            learning rate schedule begins anew all the same.
        fresh: the state of an untrained model; what is not taken stays as it is there.
        shardings: where each of its arrays lies.
        vocab_size: number of tokens of the run's own vocabulary.

    Raises:
        ValueError: one line: there is nothing to start from, or it is of another model.
    """
    check_source(config)
    source = Path(config.restore_from)
    ours = weights.portable_config(config, vocab_size)
    if (source / folder.MODEL).is_file():
        portable, _ = folder.load(source)
        text_alone = portable.config["kind"] == "text"
        _report_differences(config.restore_from, portable.config, ours)
        if not text_alone and "logit_bias" in fresh.params:
            bias = {"logit_bias": np.asarray(fresh.params["logit_bias"])}  # of no portable model
            portable = replace(portable, arrays=portable.arrays | bias)
        taken = TEXT_TOWER if text_alone else WEIGHTS
        restored = weights.into_state(portable, fresh, shardings, origin=str(source))
        return restored, Origin(config.restore_from, None, taken)

    theirs = config_lib.default()
    theirs.update(config_lib.read(source / "config.json"))
    abstract = jax.eval_shape(lambda: fresh)
    with Checkpoints(source, read_only=True) as other:
        step = _chosen_step(source, other.steps(), config.restore_step)
        if config.restore_optimizer:
            whole = other.restore(abstract, shardings, step)
            step, params, batch_stats = int(whole.step), whole.params, whole.batch_stats
            fresh = fresh.replace(opt_state=_schedule_from_0(whole.opt_state))
        else:
            wanted = dict(abstract.params)
            if not theirs.loss.kind.startswith("sigmoid"):
                wanted.pop("logit_bias", None)  # of the sigmoid loss alone
            places = {name: shardings.params[name] for name in wanted}
            params, batch_stats, step = other.restore_model(
                abstract.replace(params=wanted), shardings.replace(params=places), step
            )
    _report_differences(config.restore_from, weights.portable_config(theirs, vocab_size), ours)
    restored = fresh.replace(params=fresh.params | params, batch_stats=batch_stats)
    taken = OPTIMIZER if config.restore_optimizer else WEIGHTS
    return restored, Origin(config.restore_from, step, taken)


def _schedule_from_0(opt_state: Any) -> Any:
    """An optimizer's state whose learning rate schedule has yet to begin; Adam's own count, which
    belongs to its moments, stays."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda node: node._replace(count=node.count * 0) if is_schedule(node) else node,
        opt_state,
        is_leaf=is_schedule,
    )


def _report_differences(source: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Say what the weights were trained with and this run is not, as shapes do not show it."""
    found = []
    for section in ("model", "data", "tokenizer"):
        for key, value in theirs.get(section, {}).items():
            here = ours[section].get(key)
            if value != here and f"{section}.{key}" not in _WITHOUT_EFFECT:
                found.append(
                    f"config.{section}.{key}={json.dumps(value)} (here {json.dumps(here)})"
                )
    if found:
        log.warning("warning: the weights of %s were trained with %s", source, ", ".join(found))
