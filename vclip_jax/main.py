"""Train, evaluate, report: `python -m vclip_jax.main --config configs/X.py --workdir W`.

Run the same command again and it goes on where it stopped. `--mode eval` restores the newest
checkpoint, another (`--config.restore_step=best`) or one after the other
(`--config.eval_all_checkpoints=True`), scores it and rewrites the report. `--mode compile
--topology v5e:4x4` compiles the step for accelerators ahead of time.
"""

from vclip_jax.interop.source import load_weights

if __name__ == "__main__":
    # A command line that is wrong is answered before the imports below, which take seconds.
    from absl import flags

    from vclip_jax.config import command_line
    from vclip_jax.console import terminal

    def start() -> None:
        """Import this module anew, now that it is worth its seconds."""
        from vclip_jax.main import run_flags

        run_flags()

    terminal.prepare()
    flags.adopt_module_key_flags(command_line)  # for --help
    command_line.run(start)

import logging
import os
import time
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax import datasets
from vclip_jax.compilation import topologies
from vclip_jax.compilation.plan import compile_step
from vclip_jax.config import checks, command_line
from vclip_jax.console import terminal
from vclip_jax.data import pipeline
from vclip_jax.data.text.tokenizer_json import AnyTokenizer
from vclip_jax.datasets.ingest.captions import describe_lengths, some_of
from vclip_jax.devices import processes, sharding, tree
from vclip_jax.devices.preemption import Preempted, Preemption
from vclip_jax.evaluation import table1
from vclip_jax.evaluation.measurement import Measurement
from vclip_jax.evaluation.tasks import (
    check_readings,
    check_words,
    open_zero_shot_tasks,
    usual_prompts,
)
from vclip_jax.files import open_files
from vclip_jax.interop import weights
from vclip_jax.interop import workdir as saved_run
from vclip_jax.interop.restore import QUICK_COMPILE, TEXT_TOWER, check_source, restore_other
from vclip_jax.models import build
from vclip_jax.models.flops import step_flops
from vclip_jax.predict.scorer import Scorer
from vclip_jax.prompts import own
from vclip_jax.report import write_report, write_systems_report
from vclip_jax.tracking.metrics_log import MetricsLog, environment, write_json
from vclip_jax.tracking.pictures import show_samples
from vclip_jax.tracking.trackers import check_installed, open_trackers
from vclip_jax.train import guards, optim
from vclip_jax.train.build import make_training, model_maker
from vclip_jax.train.checkpoint import Checkpoints, check_path
from vclip_jax.train.goodput import Goodput, Trace
from vclip_jax.train.guards import Watch
from vclip_jax.train.inputs import (
    check_data,
    load_tokenizer,
    open_test_pairs,
    open_train_batches,
    open_training_data,
)
from vclip_jax.train.whitening import jit_whiten

log = logging.getLogger("vclip_jax")


def main(config: ConfigDict, workdir: Path, mode: str = "train", topology: str = "") -> None:
    """One run; `topology` is what `mode` "compile" compiles for.

    Raises:
        ValueError, OSError: one line about what is wrong.
        Preempted: the run was asked to end before its end, and what there was to save is saved.
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
    """From config to report; the order matters and is the order of the page."""
    began = time.perf_counter()
    # --- Config: refuse what cannot work before anything is spent.
    checks.validate(config, devices=jax.device_count(), processes=jax.process_count())
    check_installed(config.trackers)
    check_words(config)
    optim.check_kind(config.optimizer)
    check_path(workdir)
    if config.restore_from and not (workdir / "checkpoints").exists():
        check_source(config)
    lead = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    at_end.enter_context(processes.alone_in(workdir))
    config_lib.save_or_check(config, workdir, save=lead)
    if lead:
        write_json(workdir / "environment.json", environment())
    mesh = sharding.make_mesh(config.mesh.fsdp)

    # --- Data: build what is missing, open it, look at some captions.
    log.info("data: %s", config.data.dataset)
    train, validation = open_training_data(config)
    test = open_test_pairs(config)
    tasks = open_zero_shot_tasks(config)
    check_data(
        workdir,
        {"train": train, "validation": validation, "test": test}
        | {f"evals.{task.name}": task.source for task in tasks},
        resumes=config_lib.has_begun(workdir), save=lead,
    )  # fmt: skip
    tokenizer = load_tokenizer(config, train, workdir)

    some = some_of(train)
    check_readings(config, tokenizer, tasks, some, most_unknown=config.tokenizer.max_unknown)
    if lead:
        own.save(workdir, usual_prompts(config, tasks, train, tokenizer))
    log.info("%s", describe_lengths(some, tokenizer.encode, config.tokenizer.context_length))

    # --- Model and state: shapes first, then arrays made where they will live.
    training = make_training(config, mesh, tokenizer.vocab_size)
    graphdef, abstract, shardings = training.graphdef, training.abstract, training.placement
    arrays = sharding.abstract_arrays(abstract, shardings)
    log.info(
        "model: %s parameters on %d x %s, mesh %s, %.2f GiB of state on each",
        f"{tree.count(abstract.params):,}", jax.device_count(), jax.devices()[0].device_kind,
        dict(mesh.shape), sharding.bytes_per_device(arrays) / 2**30,
    )  # fmt: skip
    if lead:
        write_json(workdir / "placements.json", sharding.describe(arrays))

    # --- Start: from this run's own checkpoint, or at step 0 from others' weights or at random.
    counters: dict[str, int] = {}
    metrics_log = MetricsLog(workdir / "metrics.jsonl", enabled=lead, track=config.keep_best)
    checkpoints = Checkpoints(
        workdir, keep=config.keep_checkpoints, on_error=config.checkpoint_errors,
        best=metrics_log.best,
    )  # fmt: skip
    if checkpoints.exist():
        train_state = checkpoints.restore(abstract, shardings)
        counters = checkpoints.position(int(train_state.step)).get("guards", {})
        log.info("restored step %d of %s", int(train_state.step), workdir)
    else:
        init = jax.jit(training.init, out_shardings=shardings, compiler_options=QUICK_COMPILE)
        train_state, taken = init(), ""
        if config.restore_from:
            train_state, origin = restore_other(
                config, train_state, shardings, tokenizer.vocab_size
            )
            taken = origin.taken
            log.info("starts at step 0 from %s", origin)
            if lead:
                origin.save(workdir)
        if config.model.whiten_pairs and taken in ("", TEXT_TOWER):
            batches = open_train_batches(
                config, mesh, train, tokenizer, config.model.whiten_pairs, few=True
            )
            whiten = jit_whiten(graphdef, mesh, shardings)
            with closing(batches):
                params = whiten(train_state.params, train_state.batch_stats, next(batches))
            train_state = train_state.replace(params=params)
        elif config.model.whiten_pairs:
            log.info("config.model.whiten_pairs is not used: the projections are trained already")
    step = int(train_state.step)
    if step >= config.total_steps:
        log.info(
            "nothing is left to train: %s has reached config.total_steps=%d and is evaluated "
            "again; another --workdir with --config.restore_from=%s trains its weights on",
            workdir, config.total_steps, workdir,
        )  # fmt: skip

    scorer = make_scorer(graphdef, mesh, tokenizer, config)
    trackers = at_end.enter_context(
        open_trackers(config, workdir, metrics_log.rows(), enabled=lead)
    )
    metrics_log.tell(trackers.scalars)
    measure = Measurement(
        scorer, validation, tasks, config, workdir, metrics_log, write_report, test, trackers
    )

    # --- The loop.
    def is_measured(step: int) -> bool:
        """Whether there is an evaluation after this step, beside the one at the end."""
        return bool(config.eval_every) and step % config.eval_every == 0 < step < config.total_steps

    if is_measured(step) and not measure.is_logged(step):  # the run may have ended meanwhile
        measure((train_state.params, train_state.batch_stats), step)
    flops = step_flops(
        config.model, image_size=config.data.image_size,
        context_length=config.tokenizer.context_length, global_batch=config.global_batch_size,
    )  # fmt: skip
    goodput = Goodput(
        workdir / "goodput.json", step, batch_size=config.global_batch_size, flops=flops,
        devices=list(mesh.devices.flat), enabled=lead,
    )  # fmt: skip
    goodput.seconds["start"] += time.perf_counter() - began
    if step < config.total_steps:
        schedule = jax.jit(
            optim.learning_rate_schedule(
                config.optimizer.learning_rate, config.optimizer.warmup_steps, config.total_steps
            )
        )
        batches = open_train_batches(
            config, mesh, train, tokenizer, config.global_batch_size, start_step=step
        )
        watch = Watch(
            config.global_batch_size, config.max_skipped, quiet_steps=config.optimizer.warmup_steps,
            softmax=config.loss.kind.startswith("softmax"), pairs=config.loss.targets == "pair",
            skipped=counters.get("skipped", 0), in_a_row=counters.get("in_a_row", 0),
        )  # fmt: skip
        trace = Trace(workdir / "profile", config.profile.first, config.profile.steps)
        progress = terminal.bar(
            total=config.total_steps, initial=step, unit="step", disable=not lead,
            mininterval=1, desc="compiling",
        )  # fmt: skip
        running: list[dict[str, jax.Array]] = []
        with (
            preemption.deferred(), closing(batches), checkpoints, closing(progress),
            closing(goodput), closing(trace),
        ):  # fmt: skip
            since, waited, first = time.perf_counter(), batches.seconds_waited, step
            while step < config.total_steps:
                trace.before_step()
                batch = next(batches)
                if step == 0 and not metrics_log.has(1, ["loss"]):
                    show_samples(trackers, config, train, validation, batch, step)
                train_state, metrics = training.step(train_state, batch)
                watch.add(metrics)
                running.append(metrics)
                step += 1
                last = step == config.total_steps
                preempted = preemption.reached(step)
                logs = step % config.log_every == 0 or last or step == 1
                saves = (
                    step % config.checkpoint_every == 0 or last or preempted or is_measured(step)
                )
                # Never more than a step ahead of the devices, and in step with them where the host
                # looks: so time is booked where it goes.
                while len(running) > (0 if logs or saves or step == first + 1 else 1):
                    jax.block_until_ready(running.pop(0))
                    now = time.perf_counter()
                    goodput.step_done(
                        now - since, batches.seconds_waited - waited,
                        compiled=step == first + 1,
                    )  # fmt: skip
                    since, waited = now, batches.seconds_waited
                trace.after_step(metrics["loss"])
                if logs:
                    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
                    values["repeated_captions"] = guards.repeated(batch["caption_id"])
                    loss = values["loss"]
                    values = watch.look(step, values)
                    values["learning_rate"] = float(schedule(step - 1))
                    values |= goodput.read()
                    checkpoints.check()
                    if checkpoints.failed:
                        values["failed_saves"] = float(checkpoints.failed)
                    metrics_log.write(step, values)
                    if watch.exhausted():
                        # Nothing but the step's number has changed since, so its gradients are:
                        norms = training.gradient_norms(train_state.replace(step=step - 1), batch)
                        keys = pipeline.record_keys(
                            train, seed=config.seed, step=step - 1,
                            global_batch_size=config.global_batch_size,
                            shuffle=config.data.shuffle,
                        )  # fmt: skip
                        raise watch.diagnosis(step, keys, norms, checkpoints.steps(), workdir)
                    progress.set_description(
                        f"loss {loss:.3f}  {values['examples_per_second']:.0f} pairs/s  "
                        f"data wait {values['data_wait_fraction']:.0%}"
                    )
                progress.update(step - progress.n)
                if saves:
                    with goodput.account("checkpoint"):
                        checkpoints.save(train_state, step, guards=watch.position())
                if preempted:
                    checkpoints.check(wait=True)
                    raise Preempted(f"step {checkpoints.latest_step()} is saved")
                if is_measured(step):
                    with goodput.account("evaluation"), preemption.interrupting():
                        measure((train_state.params, train_state.batch_stats), step)
                if saves:
                    since = time.perf_counter()

    # --- The end: what it is worth.
    with goodput.account("evaluation"):
        measure((train_state.params, train_state.batch_stats), step, final=True)
    goodput.close()
    measure.print_table()


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Score a trained model: that of `config.restore_from`, or the workdir's own.

    The model, its preprocessing and its vocabulary are the checkpoint's, whatever the config says
    of them; `config.evals` says on what, and validation pairs are scored if there are any.

    Returns:
        The content of `zero_shot.json`, on every process.
    """
    source = config.restore_from or str(workdir)
    if not config.restore_from and not (workdir / "checkpoints").is_dir():
        raise ValueError(f"{workdir} has no checkpoint to evaluate: train first, or set "
                         "--config.restore_from=WORKDIR")  # fmt: skip
    steps = saved_run.steps(source) if config.eval_all_checkpoints else ()
    loaded, tokenizer, found = load_weights(source, config.restore_step)
    step = found or 0  # a portable folder's figures stand at the start of a curve
    weights.adopt(config, loaded)
    checks.validate(
        config, devices=jax.device_count(), processes=jax.process_count(), training=False
    )
    check_installed(config.trackers)
    check_words(config)
    tasks = open_zero_shot_tasks(config)
    validation, test = None, None
    if config.data.dataset:
        try:
            _, validation = open_training_data(config)
            test = open_test_pairs(config)
        except datasets.SourceNeededError:
            log.info("held-back pairs are not scored: %s is not built", config.data.dataset)
    if validation is None and test is None and not tasks:
        raise ValueError("there is nothing to evaluate on: name datasets in config.evals, and "
                         "where their files are")  # fmt: skip
    # What was learnt cannot be changed any more: unknown words in captions are said, not refused.
    captions = [c for s in (validation, test) if s is not None for c in some_of(s)]
    check_readings(config, tokenizer, tasks, captions, most_unknown=1.0)
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = sharding.make_mesh(1)
    make_model = model_maker(config, tokenizer.vocab_size)
    graphdef, _, _ = build.split_model(nnx.eval_shape(lambda: make_model(nnx.Rngs(0))))
    replicated = NamedSharding(mesh, PartitionSpec())
    lead = jax.process_index() == 0
    with (
        processes.alone_in(workdir),
        nullcontext(
            MetricsLog(workdir / "metrics.jsonl", enabled=lead, renews=True)
        ) as metrics_log,
        open_trackers(config, workdir, metrics_log.rows(), enabled=lead) as trackers,
    ):
        held_back = {"validation": validation, "test": test}
        check_data(
            workdir, held_back | {f"evals.{task.name}": task.source for task in tasks},
            resumes=config_lib.has_begun(workdir), save=lead,
        )  # fmt: skip
        metrics_log.tell(trackers.scalars)
        measure = Measurement(
            make_scorer(graphdef, mesh, tokenizer, config), validation, tasks, config,
            workdir, metrics_log, write_report, test, trackers,
        )  # fmt: skip
        for earlier in steps:
            if earlier < step and not measure.is_logged(earlier):
                log.info("evaluating %s, step %d", source, earlier)
                older, _, _ = saved_run.load(source, earlier)
                measure.log_points(jax.device_put(older.variables, replicated), earlier)
        log.info("evaluating %s, step %d, %s parameters", source, step, f"{loaded.count:,}")
        measure(jax.device_put(loaded.variables, replicated), step, final=True)
    measure.print_table()
    return measure.results


def make_scorer(
    graphdef: nnx.GraphDef, mesh: Mesh, tokenizer: AnyTokenizer, config: ConfigDict
) -> Scorer:
    """The scorer of the model that the config describes."""
    return Scorer(
        graphdef,
        mesh,
        partial(tokenizer.encode, context_length=config.tokenizer.context_length),
        count_padding=config.model.text_pool == "layers",
    )


def run_flags() -> None:
    """What the command line asks for; the process ends here."""
    processes.keep_quiet()
    open_files.raise_limit()
    try:
        with processes.ending_together():
            # Before anything asks for devices.
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
            print(f"ended early, as asked: {preempted}; the same command goes on")
        processes.leave(command_line.PREEMPTED_EXIT_CODE.value)
    processes.leave()
