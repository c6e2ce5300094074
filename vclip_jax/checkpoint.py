"""Checkpoints: the train state and the data position, saved together by Orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vclip_jax.state import TrainState


class Checkpoints:
    """The numbered checkpoints of a workdir, saved in the background.

    The data position needs no state of its own: batch k is a function of (seed, k) alone, so the
    position is the number of steps done. It is stored beside the arrays so that a reader of the
    files, and a check at restore, need not know that.
    """

    def __init__(self, workdir: Path, *, keep: int = 1, read_only: bool = False):
        """`keep` newest ones stay. `read_only` touches nothing, so that a run that is still saving
        is left in peace."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def steps(self) -> tuple[int, ...]:
        """The steps of all complete checkpoints, rising."""
        return tuple(sorted(self._manager.all_steps()))

    def save(self, state: TrainState, step: int) -> None:
        """Save in the background; a step that is already there is left alone."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                position=ocp.args.JsonSave({"step": step, "next_batch": step}),
            ),
        )

    def restore(self, abstract: TrainState, shardings: TrainState, step: int) -> TrainState:
        """The state of `step`, laid out as `shardings` whatever layout it was saved with.

        Args:
            abstract: shapes and dtypes, from `jax.eval_shape`.
            shardings: a `NamedSharding` for every leaf.
            step: one of the saved steps.

        Raises:
            ValueError: the checkpoint's arrays are not those of this configuration.
        """
        state = ocp.args.StandardRestore(_targets(abstract, shardings))
        return self._restore(step, state)

    def restore_model(
        self, abstract: TrainState, shardings: TrainState, step: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """`params` and `batch_stats` alone, which spares the memory of the optimizer's state.

        Arguments and errors as for `restore`; `opt_state` is not looked at.
        """
        model = {
            name: _targets(getattr(abstract, name), getattr(shardings, name))
            for name in ("params", "batch_stats")
        }
        arguments = ocp.checkpoint_utils.construct_restore_args(model)
        restored = self._restore(
            step, ocp.args.PyTreeRestore(model, restore_args=arguments, partial_restore=True)
        )
        return restored["params"], restored["batch_stats"]

    def _restore(self, step: int, state: Any) -> Any:
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=state))
        except (ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"checkpoint {step} in {self._manager.directory} does not fit this config: {reason}"
            ) from error
        return restored.state

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _targets(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )
