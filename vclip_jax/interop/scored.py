"""The model that an evaluation scored: `scored.json`, if it is not of the workdir's own run."""

from pathlib import Path
from typing import Any, Final

from ml_collections import ConfigDict

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.writing import write_json
from vclip_jax.interop.weights import Weights, digest
from vclip_jax.tracking.metrics_log import environment

SCORED: Final = "scored.json"
_KEYS: Final = (
    "bootstrap_resamples",
    "calibration",
    "compute_dtype",
    "data",
    "eval_batch_size",
    "evals",
    "gate",
    "model",
    "restore_from",
    "restore_step",
    "tokenizer",
)
"""The keys and sections of a config that an evaluation depends on."""


def save(
    workdir: Path, config: ConfigDict, weights: Weights, tokenizer: Tokenizer, step: int | None
) -> None:
    """Write `scored.json`, or remove it if the model is that of the workdir's own run.

    It holds the model's name, step and SHA-256 (see `weights.digest`), the settings of the
    evaluation, and the environment.

    Args:
        workdir: the evaluation's folder.
        config: its config, with the model's part from the checkpoint.
        weights, tokenizer: the model.
        step: the model's step; None if unknown.
    """
    path = workdir / SCORED
    if not config.restore_from:
        path.unlink(missing_ok=True)
        return
    settings: dict[str, Any] = config.to_dict()
    write_json(
        path,
        {
            "model": config.restore_from,
            "step": step,
            "sha256": digest(weights.config, weights.arrays, tokenizer),
            "config": {key: settings[key] for key in _KEYS if key in settings},
            "environment": environment(),
        },
    )
