"""The tracker for Weights & Biases."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from vclip_jax.tracking.tracker import PROJECT, LoggedImage, LoggedPoints, parameters


class WandbTracker:
    """A run in Weights & Biases, kept in WORKDIR/wandb; offline unless WANDB_MODE is "online".

    Everything that W&B would collect by itself (console, code, git, command line, packages) is
    turned off.
    """

    def __init__(self, config: ConfigDict, workdir: Path, known: str | None):
        """Resume the run with the id `known`, or start a new run if it is None."""
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.id = known or secrets.token_hex(4)
        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", workdir.absolute().name),
            id=self.id,
            resume="allow" if mode == "online" else None,  # offline, `wandb sync` joins the parts
            dir=workdir,
            mode=mode,
            config=parameters(config),
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                silent=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )
        # W&B's own step can only rise, and a missed evaluation is logged later.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """See `Tracker`."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """See `Tracker`."""
        images = {p.name: self._image(p.image, caption=p.caption) for p in pictures}
        self._run.log({"step": step, **images})

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """Do nothing: W&B would need a table of all points at every step."""

    def close(self, ended: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if ended else 1)
