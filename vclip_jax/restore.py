"""Starting from somebody else's weights: another run's checkpoint, or a portable folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vclip_jax import state
from vclip_jax.checkpoint import Checkpoints
from vclip_jax.interop import folder, weights

# Initialisation runs once: not worth the optimiser's time (2.6 s rather than 11 s to compile).
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


def restore_other(
    workdir: Path, init: Any, abstract: state.TrainState, shardings: state.TrainState
) -> state.TrainState:
    """The newest checkpoint of another workdir, or the weights of a portable folder at step 0.

    Args:
        workdir: one with `checkpoints`, or a portable folder.
        init: makes the state of an untrained model, for what a portable folder does not have.
        abstract: shapes and types of the state.
        shardings: where each of its arrays goes.

    Raises:
        ValueError: one line: there is nothing to start from, or it is of another model.
    """
    if (workdir / folder.MODEL).is_file():
        portable, _ = folder.load(workdir)
        fresh = jax.jit(init, out_shardings=shardings, compiler_options=QUICK_COMPILE)()
        if portable.config["kind"] == "clip" and "logit_bias" in fresh.params:
            bias = {"logit_bias": np.asarray(fresh.params["logit_bias"])}  # of no portable model
            portable = replace(portable, arrays=portable.arrays | bias)
        return weights.into_state(portable, fresh, shardings, origin=str(workdir))
    if not (workdir / "checkpoints").is_dir():
        raise ValueError(
            f"config.restore_from={workdir} is neither a workdir with checkpoints nor a folder "
            f"with {folder.MODEL}"
        )
    with Checkpoints(workdir, read_only=True) as other:
        if other.latest_step() is None:
            raise ValueError(f"config.restore_from={workdir} has no complete checkpoint")
        return other.restore(abstract, shardings)
