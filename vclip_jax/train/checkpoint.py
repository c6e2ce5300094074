"""Checkpoints: the train state and the data position, saved together by Orbax.

Every checkpoint that is read is verified, see `verification`. A checkpoint that cannot be read at
all is noticed as soon as it is written, because its structure and some small arrays are read back.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vclip_jax.devices.processes import is_lost_peer, is_out_of_memory
from vclip_jax.files.foreign import regular_files
from vclip_jax.train.state import TrainState
from vclip_jax.train.verification import (
    DamagedError,
    VerifiedReader,
    reason_of,
    sealed,
    small_arrays,
)

ASIDE = "corrupt-"
_SHARED_FROM = 2**20
"""The size in bytes from which on devices that hold the same array each write a part of it. Cutting
an array up takes a compilation for every shape and device, which is too slow for small arrays."""

_READ_BACK = 64
"""The number of small arrays that are read back from every new checkpoint."""
_MISREAD = "*?[\\"
"""Characters of a path that Orbax (which globs paths as they are) or TensorStore misreads."""

log = logging.getLogger("vclip_jax")
Read = TypeVar("Read")


class Checkpoints:
    """The numbered checkpoints of a workdir, saved in the background.

    Batch k is a function of (seed, k) alone, so the data position is the number of steps done. It
    is saved with the arrays so that readers of the files need not know this.

    A context manager: leaving it waits until everything is on disk.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 1,
        read_only: bool = False,
        on_error: str = "stop",
        best: Callable[[Sequence[int]], int | None] = lambda steps: None,
    ):
        """Open the folder of checkpoints, and make it if it does not exist.

        Args:
            workdir: the workdir; checkpoints are in its folder `checkpoints`.
            keep: how many of the newest checkpoints to keep.
            read_only: change nothing, so that a run that is still saving is not disturbed.
            on_error: "stop" raises an error if a save fails; "continue" only warns and counts it
                in `failed`.
            best: a function that picks one more step to keep, or None.

        Raises:
            ValueError: checkpoints cannot be kept under this path.
            OSError: the folder cannot be made.
            DamagedError: Orbax's metadata in the folder cannot be read, or an entry is neither a
                file nor a folder.
        """
        check_path(workdir)
        self.failed = 0
        """The number of saves that failed."""
        self._on_error, self._read_only = on_error, read_only
        self._directory = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else _NewestAndBest(keep, best),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SHARED_FROM)
        types = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        if self._directory.exists():  # Orbax would wait for a pipe's other end
            try:
                regular_files(self._directory)
            except ValueError as error:
                raise DamagedError(f"checkpoints cannot be read: {error}") from error
        try:
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=options,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(type_handler_registry=types),
                    "position": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError:
            raise
        except Exception as error:
            # Orbax reads the metadata of every step, and raises what the parts of a value raise.
            deep = isinstance(error, RecursionError)
            reason = "it is nested too deep" if deep else reason_of(error)
            raise DamagedError(
                f"a _CHECKPOINT_METADATA of the steps in {self._directory} cannot be read: {reason}"
            ) from error
        self._reader = VerifiedReader(self._directory)
        self._saving: int | None = None
        self._thread = ThreadPoolExecutor(1, "read back")
        self._reading: Future[None] | None = None
        self._readable: dict[str, Any] = {}
        """The arrays to read back of the step that is being saved."""

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # If one of several processes fails, the others may wait for a save without end.
        if kind is None or jax.process_count() == 1:
            self.close()

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def steps(self) -> tuple[int, ...]:
        """Return the steps of all complete checkpoints, in rising order."""
        return tuple(sorted(self._manager.all_steps()))

    def any_exist(self) -> bool:
        """Return whether there are checkpoints, damaged ones included.

        A run whose checkpoints are all damaged must not start again from step 0.
        """
        return bool(self.steps()) or any(self._directory.glob(f"{ASIDE}*"))

    # --- Saving.

    def save(self, state: TrainState, step: int, **position: Any) -> None:
        """Save in the background; do nothing if the step is already saved.

        Args:
            state: the state; every process passes it.
            step: the step of the state.
            position: more JSON to save with it, the same on every process.

        Raises:
            OSError: this save or the one before it failed, and `on_error` is "stop". Earlier
                checkpoints are intact.
        """
        self.check(wait=True)
        if step in self._manager.all_steps():
            return
        content = sealed(state, {"step": step, "next_batch": step, **position})
        with self._reporting_errors(step):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    position=ocp.args.JsonSave(content),
                ),
                force=True,  # the caller decides when to save
            )
            self._saving = step
            small = {"params": state.params, "batch_stats": state.batch_stats}
            self._readable = small_arrays(small, _READ_BACK)

    def check(self, *, wait: bool = False) -> None:
        """Check that the save in the background went well, if it has ended, or `wait` for its end.

        The first process reads the checkpoint back, also in the background: the structure of all
        arrays, and the content of some small ones.

        Raises:
            OSError: the save failed, and `on_error` is "stop".
        """
        if self._saving is None or not (wait or self._has_ended(self._saving)):
            return
        step, reading = self._saving, self._reading
        self._saving = self._reading = None
        with self._reporting_errors(step):
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                (reading or self._thread.submit(self._read_back, step)).result()

    def _has_ended(self, step: int) -> bool:
        """Return whether the save of a step has ended, and reading it back too."""
        if self._manager.is_saving_in_progress():
            return False
        if jax.process_index() != 0:
            return True
        if self._reading is None:
            self._reading = self._thread.submit(self._read_back, step)
        return self._reading.done()

    def _read_back(self, step: int) -> None:
        """Raise OSError if a checkpoint that was just written differs from what was saved."""
        try:
            self._reader.check_written(step, self._readable)
        except Exception as error:  # TensorStore's, or Orbax's own
            self._move_aside(step)
            raise OSError(f"it cannot be read back ({reason_of(error)})") from error

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: the last save failed, and `on_error` is "stop".
        """
        self.check(wait=True)
        self._manager.close()
        self._thread.shutdown()

    @contextmanager
    def _reporting_errors(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the system's, TensorStore's or Orbax's own
            if is_lost_peer(error) or is_out_of_memory(error):
                raise  # not an error of the disk
            self.failed += 1
            if jax.process_index() == 0:  # a half-written checkpoint only takes up space
                for part in self._directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(part, ignore_errors=True)
            self._manager.reload()
            newest = self._manager.latest_step()
            message = (
                f"checkpoint {step} could not be written to {self._directory}: {reason_of(error)}; "
                f"the newest one is {'none' if newest is None else newest}"
            )
            if self._on_error == "stop":
                raise OSError(
                    f"{message}: make room, or make the folder writable, and run the same command "
                    "again (--config.checkpoint_errors=continue trains on without it)"
                ) from error
            log.warning(
                "warning: %s; training continues without it (%d failed)", message, self.failed
            )

    # --- Restoring.

    def restore(
        self, abstract: TrainState, shardings: TrainState, step: int | None = None
    ) -> TrainState:
        """Restore the state of `step` with `shardings`, which may differ from those of the save.

        With several processes, all must call it together, and agree on the step.

        Args:
            abstract: shapes and dtypes, from `jax.eval_shape`.
            shardings: a `NamedSharding` for every leaf.
            step: one of the saved steps; None for the newest good one. Damaged checkpoints are
                reported, and renamed to `corrupt-STEP` unless this is `read_only`.

        Raises:
            DamagedError: the checkpoint of that step is damaged; or, without a step, all are.
            ValueError: the checkpoint's arrays do not fit this configuration.
        """
        targets = _targets(abstract, shardings)
        return self._newest_good(
            step, lambda step: self._reader.read(step, targets, together=True, whole=True)
        )

    def restore_model(
        self, abstract: TrainState, shardings: TrainState, step: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Restore only `params` and `batch_stats`, without memory for the optimizer's state.

        Arguments and errors as for `restore`; `opt_state` is ignored. Several processes must call
        it together if an array lies on more than one of them.

        Returns:
            `params`, `batch_stats` and their step.
        """
        model = {
            name: _targets(getattr(abstract, name), getattr(shardings, name))
            for name in ("params", "batch_stats")
        }

        together = not all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings))

        def read(step: int) -> tuple[dict[str, Any], dict[str, Any], int]:
            restored = self._reader.read(step, model, together=together, whole=False)
            return restored["params"], restored["batch_stats"], step

        return self._newest_good(step, read)

    def position(self, step: int) -> dict[str, Any]:
        """Read the JSON that `save` wrote with the arrays.

        Raises:
            DamagedError: the JSON cannot be read, or differs from what was saved.
        """
        return self._reader.position(step)

    def _newest_good(self, step: int | None, read: Callable[[int], Read]) -> Read:
        if step is not None:
            return read(step)
        for candidate in reversed(self.steps()):
            try:
                return read(candidate)
            except DamagedError as error:
                log.warning("warning: %s", error)
                if not self._read_only:
                    self._set_aside(candidate)
        raise DamagedError(
            f"no checkpoint in {self._directory} is good, damaged ones are called {ASIDE}STEP: "
            "restore one from a backup, or choose another --workdir"
        )

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            new = self._move_aside(step)
            log.warning("warning: it is kept as %s; an earlier one is used", new)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoint set aside")
        self._manager.reload()

    def _move_aside(self, step: int) -> Path:
        new = self._directory / f"{ASIDE}{step}"
        if new.exists():  # the same step was damaged before
            shutil.rmtree(new)
        (self._directory / str(step)).rename(new)
        return new


@dataclass(frozen=True)
class _NewestAndBest:
    """The policy of which checkpoints to keep, an Orbax `PreservationPolicy`."""

    keep: int
    best: Callable[[Sequence[int]], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        newest, best = steps[-self.keep :], self.best(steps)
        return [step in newest or step == best for step in steps]


def check_path(workdir: Path) -> None:
    """Refuse a path under which Orbax writes checkpoints that it cannot read.

    Raises:
        ValueError: one line that names the characters.
    """
    path = str(workdir.absolute())
    if wrong := sorted({repr(c) for c in path if c in _MISREAD or 0xD800 <= ord(c) <= 0xDFFF}):
        raise ValueError(
            f"checkpoints cannot be kept in {path!r}, whose path holds {', '.join(wrong)}: name "
            "another folder, or a symbolic link to it"
        )


def _targets(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )
