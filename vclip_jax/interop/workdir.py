"""The model of a training run, read from one of its checkpoints."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

from vclip_jax import config as config_lib
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.tokenizer_json import VOCAB, saved_tokenizer
from vclip_jax.devices import sharding
from vclip_jax.files.errors import few
from vclip_jax.interop import names
from vclip_jax.interop.weights import Weights, make_clip, portable_config
from vclip_jax.models import low_rank
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.train import parts
from vclip_jax.train.checkpoint import Checkpoints
from vclip_jax.train.state import init_state


def steps(workdir: str | Path) -> tuple[int, ...]:
    """Return the steps of a training run's complete checkpoints, in rising order.

    Raises:
        ValueError: one line: there is no folder of checkpoints.
    """
    if not (Path(workdir) / "checkpoints").is_dir():
        raise ValueError(f"{workdir} is not a training run's workdir: it lacks checkpoints")
    checkpoints = Checkpoints(Path(workdir), read_only=True)
    try:
        return checkpoints.steps()
    finally:
        checkpoints.close()


def choose(workdir: str | Path, step: int | str, saved: Sequence[int]) -> int | None:
    """Return the number of a step that may be given in words.

    Args:
        workdir: the workdir of a training run.
        step: "latest" (which returns None: the newest that is not damaged), "best" (by the run's
            `config.keep_best`), or a number, in digits or not.
        saved: the steps of the run's checkpoints.

    Raises:
        ValueError: one line: there is no such checkpoint.
    """
    known = few(saved)
    if step == "latest":
        return None
    if step == "best":
        metric = config_lib.read(Path(workdir) / "config.json").get("keep_best", "")
        if not metric:
            raise ValueError(
                f"{workdir} was trained without config.keep_best, so none of its checkpoints is "
                f"known as the best: name a step, it has {known}"
            )
        log = MetricsLog(Path(workdir) / "metrics.jsonl", enabled=False, track=metric)
        best = log.best(saved)
        if best is None:
            raise ValueError(f"{workdir} has no {metric} of steps {known}: name one of them")
        return best
    if not str(step).isdecimal():
        raise ValueError(f"a step is latest, best or a number, got {step!r}: {workdir} has {known}")
    if int(step) not in saved:
        raise ValueError(f"{workdir} has no checkpoint of step {step}: it has {known}")
    return int(step)


def load(workdir: str | Path, step: int | str = "latest") -> tuple[Weights, Tokenizer, int]:
    """Read a training run.

    Args:
        workdir: a folder with `config.json`, `vocab.txt` (or `tokenizer.json`) and `checkpoints`.
        step: the checkpoint, see `choose`.

    Returns:
        The weights, the tokeniser and the step of the checkpoint.

    Raises:
        ValueError: one line: a file is missing, there is no complete checkpoint or not the one
            asked for, or the checkpoint does not fit the configuration.
    """
    workdir = Path(workdir)
    tokenizer = saved_tokenizer(workdir)
    needed = ["config.json", *([VOCAB] if tokenizer is None else []), "checkpoints"]
    missing = [name for name in needed if not (workdir / name).exists()]
    if missing or tokenizer is None:
        raise ValueError(
            f"{workdir} is not a training run's workdir: it lacks {', '.join(missing)}"
        )
    full = config_lib.default()
    full.update(config_lib.read(workdir / "config.json"))
    config = portable_config(full, tokenizer.vocab_size)

    # One CPU is enough, also for runs on many devices.
    make_model = parts.with_low_rank(partial(make_clip, config), full.train)
    abstract = jax.eval_shape(lambda: init_state(make_model, optax.identity(), full.seed))
    mesh = sharding.make_mesh(1, jax.local_devices(backend="cpu")[:1])
    layout = sharding.state_sharding(abstract, mesh, [])
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        saved = checkpoints.steps()
        if not saved:
            raise ValueError(f"{workdir} has no complete checkpoint yet")
        chosen = choose(workdir, step, saved)
        params, batch_stats, restored = checkpoints.restore_model(abstract, layout, chosen)
    finally:
        checkpoints.close()
    arrays = names.flatten(low_rank.merged(params, full.train.lora_alpha), batch_stats)
    return Weights(config, {k: np.asarray(v) for k, v in arrays.items()}), tokenizer, restored
