"""The bookkeeping of the training loop: metrics, progress, checkpoints, use of time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import jax

from vclip_jax.console import terminal
from vclip_jax.data import pipeline
from vclip_jax.data.mixture import Mixture
from vclip_jax.data.prefetch import DevicePrefetcher
from vclip_jax.data.record import Record
from vclip_jax.files.errors import few
from vclip_jax.models.build import Batch
from vclip_jax.train import guards, optim
from vclip_jax.train.build import Training
from vclip_jax.train.goodput import Goodput, Pace, Trace
from vclip_jax.train.guards import Watch
from vclip_jax.train.run import Run
from vclip_jax.train.state import Metrics, TrainState

log = logging.getLogger("vclip_jax")


class Loop:
    """The work around the steps of `main.train`; a context manager.

    With several processes, all must call its methods together.
    """

    def __init__(
        self,
        run: Run,
        training: Training,
        train: Sequence[Record],
        batches: DevicePrefetcher,
        goodput: Goodput,
        step: int,
    ):
        """Start at `step`: 0, or the step of one of the run's checkpoints.

        Args:
            run: the run's config, checkpoints and `metrics.jsonl`.
            training: the model and the step.
            train: the training records; a diagnosis names the records of the step that diverged.
            batches: the batches from `step` on; the caller closes them.
            goodput: the ledger of the run's time; it is written when the loop ends.
            step: steps done so far.
        """
        config = run.config
        self._run, self._training, self._train = run, training, train
        self._batches, self._goodput = batches, goodput
        self._learning_rate = jax.jit(
            optim.learning_rate_schedule(
                config.optimizer.learning_rate, config.optimizer.warmup_steps, config.total_steps
            )
        )
        counters = run.checkpoints.position(step).get("guards", {}) if step else {}
        self._watch = Watch.of(config, counters)
        self._trace = Trace(run.workdir / "profile", config.profile.first, config.profile.steps)
        self._progress = terminal.bar(
            total=config.total_steps,
            initial=step,
            unit="step",
            disable=jax.process_index() != 0,
            mininterval=1,
            desc="compiling",
        )
        self._pace = Pace(goodput, lambda: batches.seconds_waited)
        self._description = ""
        self._stack = ExitStack()

    def __enter__(self) -> "Loop":
        self._stack.callback(self._goodput.write)
        for resource in (self._progress, self._trace):
            self._stack.enter_context(closing(resource))
        self._pace.resume()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def next_batch(self) -> Batch:
        """Return the batch of the next step, and start the profiler if `config.profile` says so."""
        self._trace.before_step()
        return next(self._batches)

    def follow(self, metrics: Metrics, *, catch_up: bool) -> None:
        """Record a step that was dispatched; the devices may still be at work on it.

        Args:
            metrics: the metrics of the step.
            catch_up: wait until the devices have finished the step.
        """
        self._watch.record(metrics)
        self._pace.follow(metrics, catch_up=catch_up)
        self._trace.after_step(metrics["loss"])

    def log(self, step: int, metrics: Metrics, batch: Batch) -> None:
        """Write a row of `metrics.jsonl`, and warn of values that look wrong.

        Raises:
            OSError: a save in the background failed, and `config.checkpoint_errors` is "stop".
        """
        values = {name: float(x) for name, x in jax.device_get(metrics).items()}
        values["repeated_captions"] = guards.repeated(batch["caption_id"])
        loss = values["loss"]
        values = self._watch.check(step, values)
        values["learning_rate"] = float(self._learning_rate(step - 1))
        values |= self._goodput.read()
        self._run.checkpoints.check()
        if self._run.checkpoints.failed:
            values["failed_saves"] = float(self._run.checkpoints.failed)
        self._run.metrics_log.write(step, values)
        if step == self._run.config.total_steps and isinstance(self._train, Mixture):
            examples = step * self._run.config.global_batch_size
            drawn = self._train.drawn_from(examples, self._run.config.seed)
            each = (f"{count:,} from {name}" for name, count in drawn.items())
            log.info("examples: %s", few(each, 20))
        self._description = (
            f"loss {loss:.3f}  {values['examples_per_second']:.0f} pairs/s  "
            f"data wait {values['data_wait_fraction']:.0%}"
        )

    def stop_if_diverged(self, step: int, state: TrainState, batch: Batch) -> None:
        """Stop if too many updates in a row were skipped.

        Args:
            step: the last step.
            state: the state after it.
            batch: the batch of that step.

        Raises:
            SkippedError: too many were skipped; `diagnosis.json` describes the last step.
        """
        if not self._watch.should_stop():
            return
        config = self._run.config
        # A skipped step changed nothing but the step number: with the number before it, the state
        # gives the gradients of that step again.
        norms = self._training.gradient_norms(state.replace(step=step - 1), batch)
        keys = pipeline.record_keys(
            self._train,
            seed=config.seed,
            step=step - 1,
            global_batch_size=config.global_batch_size,
            shuffle=config.data.shuffle,
        )
        saved = self._run.checkpoints.steps()
        raise self._watch.diagnosis(step, keys, norms, saved, self._run.workdir)

    def show(self) -> None:
        """Advance the progress bar by a step, and show the values of a new row there."""
        if self._description:
            self._progress.set_description(self._description)
            self._description = ""
        self._progress.update()

    def save(self, state: TrainState, step: int) -> None:
        """Save in the background, see `Checkpoints.save`."""
        with self.booked("checkpoint"):
            self._run.checkpoints.save(state, step, guards=self._watch.counters())

    @contextmanager
    def booked(self, account: str) -> Iterator[None]:
        """Count the time of a `with` block between two steps for one of `goodput.ACCOUNTS`."""
        with self._goodput.account(account):
            yield
        self._pace.resume()
