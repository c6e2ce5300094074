"""Train, evaluate, report: `vclip train --config configs/X.py --workdir W`.

The same command again continues where the run stopped. `vclip eval` scores the newest checkpoint,
another one (`--step best`) or all of them (`--config.eval_all_checkpoints=True`), and rewrites the
report. `vclip plan --topology v5e:4x4` compiles the step for accelerators ahead of time.
`python -m vclip_jax.main` with `--mode train`, `eval` or `compile` runs the same commands.
"""

if __name__ == "__main__":
    # Refuse a wrong command line before the imports below, which take seconds.
    from vclip_jax.config import command_line
    from vclip_jax.console import commands

    def start() -> None:
        """Import this module again, under its own name, and run it.

        As `__main__` its classes and its state would be others than those of `vclip_jax.main`.
        """
        from vclip_jax.main import run_flags

        run_flags()

    # A spawned worker would import this file, which takes seconds that it does not need.
    globals().update(__spec__=None, __file__=None)
    commands.prepare()
    command_line.run(start)

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vclip_jax.compilation import topologies
from vclip_jax.compilation.plan import compile_step
from vclip_jax.config import checks, command_line
from vclip_jax.devices import processes, sharding
from vclip_jax.devices.preemption import Preempted, Preemption
from vclip_jax.evaluation import table1
from vclip_jax.evaluation.data import Data, check_sources, open_data, open_scored_data
from vclip_jax.evaluation.measurement import Measurement
from vclip_jax.evaluation.tasks import check_words
from vclip_jax.files import open_files
from vclip_jax.files.writing import write_json
from vclip_jax.interop import scored, weights
from vclip_jax.interop import workdir as workdirs
from vclip_jax.interop.restore import check_source, start_at_0
from vclip_jax.interop.source import calibrations, load_weights
from vclip_jax.predict.scorer import Scorer
from vclip_jax.report import write_report, write_systems_report
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.tracking.pictures import show_samples
from vclip_jax.tracking.trackers import check_installed, open_trackers
from vclip_jax.train import optim, sources
from vclip_jax.train.build import check_parts, describe, graph_of, make_training, model_maker
from vclip_jax.train.checkpoint import check_path
from vclip_jax.train.due import Timetable
from vclip_jax.train.goodput import open_goodput
from vclip_jax.train.inputs import open_train_batches, training_data_of
from vclip_jax.train.loop import Loop
from vclip_jax.train.run import open_run, open_workdir, resume, set_length

log = logging.getLogger("vclip_jax")


def main(config: ConfigDict, workdir: Path, mode: str = "train", topology: str = "") -> None:
    """Train, evaluate or compile, as `mode` says ("train", "eval" or "compile").

    Args:
        topology: the accelerators that `mode` "compile" compiles for.

    Raises:
        ValueError, OSError: one line that says what is wrong.
        Preempted: a signal ended the run early; its state is saved.
    """
    if mode == "eval" and config.systems:
        workdir.mkdir(parents=True, exist_ok=True)
        table = table1.evaluate_systems(config, workdir, evaluate)
        if jax.process_index() == 0:
            write_json(workdir / "table1.json", table)
            page = write_systems_report(workdir, resamples=config.bootstrap_resamples)
            print(table1.format_systems(table))
            print(f"report: {page}")
    elif mode == "eval":
        evaluate(config, workdir)
    elif mode == "compile":
        compile_step(config, workdir, topology)
    else:
        with Preemption(config.preemption_seconds) as preemption, ExitStack() as at_end:
            train(config, workdir, preemption, at_end)


def train(config: ConfigDict, workdir: Path, preemption: Preemption, at_end: ExitStack) -> None:
    """Train a model, from config to report.

    Args:
        config: the run's config.
        workdir: the folder of the run's files.
        preemption: notices the signals that ask the run to end.
        at_end: closes what stays open until the report is written.

    Raises:
        Preempted: a signal asked the run to end; the last step is saved.
        ValueError, OSError: one line that says what is wrong with the config, the data or a file.
    """
    began = time.perf_counter()
    # --- Config: refuse what cannot work before any time is spent.
    check_training(config, workdir)
    at_end.enter_context(open_workdir(config, workdir))
    mesh = sharding.make_mesh(config.mesh.fsdp)

    # --- Data: build what is missing, open it, check some captions.
    data = open_data(config, workdir)
    set_length(config, workdir, len(data.train))

    # --- State: this run's newest checkpoint; without one, `config.restore_from` or random weights.
    training = make_training(config, mesh, data.tokenizer.vocab_size)
    describe(training, workdir)
    run = open_run(config, workdir)
    if run.checkpoints.any_exist():
        state = resume(run, training)
    else:
        state = start_at_0(config, training, data.train, data.tokenizer, workdir)
    step = int(state.step)
    measure = at_end.enter_context(
        open_measurement(config, workdir, training.graphdef, mesh, data, run.metrics_log)
    )
    timetable = Timetable.of(config)
    # An evaluation may be missing: a run can stop between a save and the evaluation after it.
    if timetable.measures(step) and not measure.is_logged(step):
        measure(state.variables, step)
    goodput = open_goodput(config, workdir, mesh, step, began=began)

    # --- The loop.
    if step < config.total_steps:
        batches = open_train_batches(
            config, mesh, data.train, data.tokenizer, config.global_batch_size, start_step=step
        )
        loop = Loop(run, training, data.train, batches, goodput, step)
        with preemption.deferred(), closing(batches), run.checkpoints, loop:
            while step < config.total_steps:
                batch = loop.next_batch()
                # A run that stopped before its first save has shown its samples already.
                if step == 0 and not run.metrics_log.has(1, ["loss"]):
                    show_samples(measure.trackers, config, data.train, data.validation, batch, step)
                state, metrics = training.step(state, batch)
                step += 1
                due = timetable.after(step, stop=preemption.reached(step))
                loop.follow(metrics, catch_up=due.log or due.save)
                if due.log:
                    loop.log(step, metrics, batch)
                    loop.stop_if_diverged(step, state, batch)
                loop.show()
                if due.save:
                    loop.save(state, step)
                if due.stop:
                    run.checkpoints.check(wait=True)
                    raise Preempted(f"step {run.checkpoints.latest_step()} is saved")
                if due.measure:
                    with loop.booked("evaluation"), preemption.interrupting():
                        measure(state.variables, step)

    # --- The final evaluation and the report.
    with goodput.account("evaluation"):
        measure(state.variables, step, final=True)
    goodput.write()
    measure.print_table()


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Score a trained model: the one of `config.restore_from`, else the workdir's.

    The checkpoint decides the model, its preprocessing and its vocabulary, even if the config
    differs. It is scored on `config.evals` and, if there are any, on validation pairs.

    Returns:
        The content of `zero_shot.json`, on every process.
    """
    # --- Model: read it, and take its part of the config from the checkpoint.
    source = config.restore_from or str(workdir)
    checks.check_scored(config, workdir)
    with checks.naming("restore_from") if config.restore_from else nullcontext():
        steps = workdirs.steps(source) if config.eval_all_checkpoints else ()
        loaded, tokenizer, known_step = load_weights(source, config.restore_step)
        calibrated = calibrations(source, loaded, tokenizer, config.calibration)
    step = known_step or 0  # a portable folder may not know its step
    config = weights.adopt(config, loaded)

    # --- Config: refuse what cannot work.
    check_values(config, training=False)
    check_words(config)

    # --- Data: open the datasets that exist.
    data = open_scored_data(config, tokenizer, training_data_of(Path(source)))

    # --- Measure earlier checkpoints, then this one.
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = sharding.make_mesh(1)
    graphdef = graph_of(model_maker(config, tokenizer.vocab_size))
    replicated = NamedSharding(mesh, PartitionSpec())
    with processes.alone_in(workdir):
        if jax.process_index() == 0:
            scored.save(workdir, config, loaded, tokenizer, known_step)
        metrics_log = MetricsLog(
            workdir / "metrics.jsonl", enabled=jax.process_index() == 0, renews=True
        )
        with open_measurement(config, workdir, graphdef, mesh, data, metrics_log) as measure:
            check_sources(workdir, {"validation": data.validation, "test": data.test}, data.tasks)
            for earlier in steps:
                if earlier < step and not measure.is_logged(earlier):
                    log.info("evaluating %s, step %d", source, earlier)
                    older = workdirs.load(source, earlier)[0]
                    measure.log_points(jax.device_put(older.variables, replicated), earlier)
            log.info("evaluating %s, step %d, %s parameters", source, step, f"{loaded.count:,}")
            measure.calibrations = calibrated  # of these weights, not of earlier ones
            measure(jax.device_put(loaded.variables, replicated), step, final=True)
    measure.print_table()
    return measure.results


def check_training(config: ConfigDict, workdir: Path) -> None:
    """Refuse a training that cannot work, before any time is spent.

    Raises:
        ValueError, OSError: one line that says what is wrong.
    """
    check_values(config, training=True)
    optim.check_kind(config.optimizer)
    check_path(workdir)
    if config.restore_from and not (workdir / "checkpoints").exists():
        check_source(config)
    check_parts(config)
    sources.check_training(config.data)  # before the Hub is asked for a vocabulary
    check_words(config)


def check_values(config: ConfigDict, *, training: bool) -> None:
    """Refuse a config with values or trackers that cannot work.

    Raises:
        ValueError, OSError: one line that says what is wrong.
    """
    checks.validate(
        config, devices=jax.device_count(), processes=jax.process_count(), training=training
    )
    check_installed(config.trackers)


@contextmanager
def open_measurement(
    config: ConfigDict,
    workdir: Path,
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    data: Data,
    metrics_log: MetricsLog,
) -> Iterator[Measurement]:
    """Make the measurement of a model on `data`; its trackers stay open inside the context."""
    with open_trackers(
        config, workdir, metrics_log.rows(), enabled=jax.process_index() == 0
    ) as trackers:
        metrics_log.subscribe(trackers.scalars)
        scorer = Scorer(
            graphdef,
            mesh,
            partial(data.tokenizer.encode, context_length=config.tokenizer.context_length),
            count_padding=config.model.text_pool == "layers",
        )
        yield Measurement(
            scorer,
            data.validation,
            data.tasks,
            config,
            workdir,
            metrics_log,
            write_report,
            data.test,
            trackers,
        )


def run_flags() -> None:
    """Run what the command line asks for, then end the process."""
    processes.keep_quiet()
    open_files.raise_limit()
    try:
        with processes.ending_together():
            # Set before anything asks for devices.
            if command_line.DETERMINISTIC.value:
                given = os.environ.get("XLA_FLAGS", "")
                os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_deterministic_ops=true".strip()
            if command_line.MODE.value == "compile":
                topologies.use_no_device()
            if command_line.COORDINATOR.value is not None or command_line.DISTRIBUTED.value:
                processes.join(
                    command_line.COORDINATOR.value,
                    command_line.NUM_PROCESSES.value,
                    command_line.PROCESS_ID.value,
                    heartbeat_seconds=command_line.HEARTBEAT_SECONDS.value,
                )
            log.setLevel(logging.INFO if jax.process_index() == 0 else logging.WARNING)
            main(
                command_line.CONFIG.value,
                Path(command_line.WORKDIR.value or ""),
                command_line.MODE.value,
                command_line.TOPOLOGY.value or "",
            )
    except Preempted as preempted:
        if jax.process_index() == 0:
            print(f"ended early by a signal: {preempted}; the same command resumes the run")
        processes.leave(command_line.PREEMPTED_EXIT_CODE.value)
    processes.leave()
