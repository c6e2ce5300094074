"""The workdir of a training run: its lock, its description, its metrics and checkpoints."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.devices import processes
from vclip_jax.files.writing import write_json
from vclip_jax.tracking.metrics_log import MetricsLog, environment
from vclip_jax.train.build import Training
from vclip_jax.train.checkpoint import Checkpoints
from vclip_jax.train.state import TrainState

log = logging.getLogger("vclip_jax")


@contextmanager
def open_workdir(config: ConfigDict, workdir: Path) -> Iterator[None]:
    """Keep other runs out of a workdir, and write `config.json` and `environment.json` there.

    Raises:
        ValueError: another run uses the workdir, or began in it with another config.
        OSError: the workdir cannot be written to.
    """
    lead = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    with processes.alone_in(workdir):
        config_lib.save_or_check(config, workdir, save=lead)
        if lead:
            write_json(workdir / "environment.json", environment())
        yield


def set_length(config: ConfigDict, workdir: Path, records: int) -> None:
    """Set `config.total_steps` from `config.epochs`, here and in the run's `config.json`.

    A run that has begun keeps the steps of its start, see `config.save_or_check`.

    Args:
        config: the run's config.
        workdir: the run's workdir.
        records: the length of the training split, or of those of a mixture together.
    """
    if not config.epochs or config_lib.has_begun(workdir):
        return
    config.total_steps = steps_of(config.epochs, records, config.global_batch_size)
    log.info(
        "length: %g epochs of %s records are %s steps of %d",
        config.epochs,
        f"{records:,}",
        f"{config.total_steps:,}",
        config.global_batch_size,
    )
    config_lib.save_or_check(config, workdir, save=jax.process_index() == 0)


def steps_of(epochs: float, records: int, batch: int) -> int:
    """Return the steps in which a run sees every record `epochs` times; the last is rounded up.

    Examples:
        >>> from vclip_jax.train.run import steps_of
        >>> steps_of(1, 240, 64), steps_of(32, 800_000, 64), steps_of(0.1, 1000, 64)
        (4, 400000, 2)
    """
    # The decimal as it is written: 0.1 is a tenth.
    return math.ceil(Fraction(str(epochs)) * records / batch)


@dataclass(frozen=True)
class Run:
    """A run: its config, its workdir, and the files that it writes."""

    config: ConfigDict
    workdir: Path
    metrics_log: MetricsLog
    checkpoints: Checkpoints


def open_run(config: ConfigDict, workdir: Path) -> Run:
    """Open the metrics and the checkpoints of a workdir.

    Raises:
        ValueError, OSError: one line: the files are damaged, or cannot be written there.
    """
    metrics_log = MetricsLog(
        workdir / "metrics.jsonl", enabled=jax.process_index() == 0, track=config.keep_best
    )
    checkpoints = Checkpoints(
        workdir,
        keep=config.keep_checkpoints,
        on_error=config.checkpoint_errors,
        best=metrics_log.best,
    )
    return Run(config, workdir, metrics_log, checkpoints)


def resume(run: Run, training: Training) -> TrainState:
    """Restore the run's newest good checkpoint, see `Checkpoints.restore`."""
    state = run.checkpoints.restore(training.abstract, training.placement)
    step = int(state.step)
    log.info("restored step %d of %s", step, run.workdir)
    if step >= run.config.total_steps:
        log.info(
            "nothing is left to train: %s has reached config.total_steps=%d and is evaluated "
            "again; to train its weights further, use another --workdir with "
            "--config.restore_from=%s",
            run.workdir,
            run.config.total_steps,
            run.workdir,
        )
    return state
