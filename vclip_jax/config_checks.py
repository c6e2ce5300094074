"""The checks of a configuration, made before anything is spent.

A key that does not exist is refused with the nearest there is, a value that cannot work with what
would do.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vclip_jax.config import NAMED, default
from vclip_jax.data.augment import named_policy
from vclip_jax.data.decode import FITS, MODES
from vclip_jax.losses import KINDS
from vclip_jax.models.remat import KEPT
from vclip_jax.models.vit import ACTIVATIONS

DTYPES = ("auto", "float32", "bfloat16")
TRACKERS = ("tensorboard", "wandb", "mlflow")
LEAST_RESAMPLES = 100


def validate(
    config: ConfigDict, *, devices: int, processes: int = 1, training: bool = True
) -> None:
    """Check what can be known without reading data; `training` needs a dataset, evaluation none.

    Raises:
        ValueError: one line that names the key, its value and what would do.
    """
    _check_keys(config, default())
    _positive(
        config,
        ("total_steps", "global_batch_size", "micro_batches", "log_every", "checkpoint_every",
         "eval_batch_size", "keep_checkpoints", "data.image_size", "model.embed_dim",
         "model.vision_width", "optimizer.learning_rate", "preemption_seconds",
         "max_skipped"),
    )  # fmt: skip
    for name in config.trackers:
        if name not in TRACKERS:
            raise ValueError(
                f"config.trackers={tuple(config.trackers)} names {name!r}: the trackers are "
                f"{', '.join(TRACKERS)}"
            )
    if config.tracker_samples < 0:
        raise ValueError(f"config.tracker_samples={config.tracker_samples} must not be negative")
    _one_of(config, "data.fit", FITS)
    _one_of(config, "data.decode", MODES)
    named_policy(config.data.augment)
    _one_of(config, "compute_dtype", DTYPES)
    _one_of(config, "model.vision_pool", ("attention", "mean"))
    _one_of(config, "model.vision_kind", ("clip", "imagenet"))
    _one_of(config, "model.text_kind", ("bert", "clip"))
    _one_of(config, "model.text_projection_kind", ("linear", "mlp"))
    _one_of(config, "model.activation", tuple(ACTIVATIONS))
    clip_text = config.model.text_kind == "clip"
    _one_of(config, "model.text_pool", ("end",) if clip_text else ("first", "mean", "layers"))
    if config.model.text_pool == "layers" and config.model.text_layers < 2:
        raise ValueError(
            f"config.model.text_layers={config.model.text_layers} must be at least 2 where "
            "config.model.text_pool='layers'"
        )
    if min(config.data.image_std) <= 0 or len(config.data.image_std) != 3:
        raise ValueError(
            f"config.data.image_std={tuple(config.data.image_std)} must be three positive numbers"
        )
    if len(config.data.image_mean) != 3:
        raise ValueError(
            f"config.data.image_mean={tuple(config.data.image_mean)} must be three numbers"
        )
    reference = config.model.vision_kind == "clip" and not clip_text
    if config.model.whiten_pairs and not (
        reference
        and len(config.model.vision_layers) == 4
        and config.model.text_projection_kind == "linear"
    ):
        raise ValueError(
            f"config.model.whiten_pairs={config.model.whiten_pairs} is for CLIP's ResNet and BERT "
            "with a linear projection: set it to 0"
        )
    _one_of(config, "model.batch_norm", ("global", "device"))
    for tower in KEPT:
        _one_of(config, f"remat.{tower}", tuple(KEPT[tower]))
    _one_of(config, "loss.kind", KINDS)
    _one_of(config, "loss.targets", ("pair", "caption"))
    if not 0 <= config.loss.label_smoothing < 1:
        raise ValueError(
            f"config.loss.label_smoothing={config.loss.label_smoothing} must lie in [0, 1)"
        )
    _one_of(config, "optimizer.clamp", ("after_step", "forward"))
    if not config.bootstrap_resamples == 0 and config.bootstrap_resamples < LEAST_RESAMPLES:
        raise ValueError(
            f"config.bootstrap_resamples={config.bootstrap_resamples} is too few for an interval: "
            f"use at least {LEAST_RESAMPLES}, or 0 for none"
        )
    if training and config.eval_all_checkpoints:
        raise ValueError("config.eval_all_checkpoints=True needs --mode eval: training measures "
                         "every config.eval_every steps")  # fmt: skip
    step = config.restore_step
    if step not in ("latest", "best") and not step.isdecimal():
        raise ValueError(f"config.restore_step={step!r} must be latest, best or a step in digits")
    if training and step != "latest":
        raise ValueError(f"config.restore_step={step!r} needs --mode eval: training goes on from "
                         "the newest checkpoint")  # fmt: skip
    if config.eval_all_checkpoints and step != "latest":
        raise ValueError(f"config.restore_step={step!r} and config.eval_all_checkpoints=True do "
                         "not go together: leave one of them out")  # fmt: skip
    _one_of(config, "checkpoint_errors", ("stop", "continue"))
    if processes > 1 and config.checkpoint_errors == "continue":
        raise ValueError(
            "config.checkpoint_errors='continue' is for one process: several cannot agree on what "
            "was saved if one of them fails"
        )
    if config.keep_best:
        _check_best(config)
    if training and not config.data.dataset:
        raise ValueError("config.data.dataset is empty: name a dataset, for example idrid")
    for key in ("global_batch_size", "eval_batch_size", "model.whiten_pairs"):
        size = get(config, key)
        if size % devices:
            raise ValueError(
                f"config.{key}={size} does not divide by the {devices} devices: "
                f"use {max(1, size // devices) * devices}"
            )
    parts = devices * config.micro_batches
    if config.global_batch_size % parts:
        raise ValueError(
            f"config.global_batch_size={config.global_batch_size} does not divide by "
            f"config.micro_batches={config.micro_batches} on {devices} devices: "
            f"use {max(1, config.global_batch_size // parts) * parts}"
        )
    layers = tuple(config.model.vision_layers)
    if len(layers) not in (1, 4):
        raise ValueError(
            f"config.model.vision_layers={layers} must have four stages (a ResNet) or one (a "
            "Vision Transformer)"
        )
    stride = 32 if len(layers) == 4 else config.model.vision_patch_size
    if config.data.image_size % stride:
        raise ValueError(
            f"config.data.image_size={config.data.image_size} must be a multiple of {stride}, "
            "the image tower's total stride"
        )
    if config.model.text_width % config.model.text_heads:
        raise ValueError(
            f"config.model.text_width={config.model.text_width} does not divide by "
            f"config.model.text_heads={config.model.text_heads}"
        )
    if not 3 <= config.tokenizer.context_length <= config.model.text_max_positions:
        raise ValueError(
            f"config.tokenizer.context_length={config.tokenizer.context_length} must lie between "
            f"3 and config.model.text_max_positions={config.model.text_max_positions}"
        )


def _check_best(config: ConfigDict) -> None:
    first, _, rest = config.keep_best.partition("/")
    measured = [*config.evals, *(["validation"] if config.validation_batches else [])]
    if first != "eval" or "/" not in rest or rest.partition("/")[0] not in measured:
        raise ValueError(
            f"config.keep_best={config.keep_best!r} is no metric of this run: use "
            f"eval/NAME/METRIC with NAME one of {', '.join(measured) or 'config.evals'}"
        )
    if not config.eval_every:
        raise ValueError(
            f"config.keep_best={config.keep_best!r} needs config.eval_every: set the steps between "
            "evaluations"
        )


def _check_keys(config: Any, reference: Any, prefix: str = "config") -> None:
    """Every key must be one of the reference's; sections of `NAMED` may hold any names."""
    for key in config:
        _check_key(key, reference, prefix)
        if isinstance(config[key], ConfigDict) and not (prefix == "config" and key in NAMED):
            _check_keys(config[key], reference[key], f"{prefix}.{key}")
    if prefix == "config":
        for section, entry_of in NAMED.items():
            for name, entry in (config.get(section) or {}).items():
                _check_keys(entry, entry_of, f"config.{section}.{name}")


def _check_key(key: str, reference: Any, prefix: str) -> None:
    if key not in reference:
        close = difflib.get_close_matches(key, list(reference), n=1, cutoff=0.0)
        raise ValueError(f"unknown key {prefix}.{key}: did you mean {prefix}.{close[0]}?")


def check_overrides(argv: Sequence[str]) -> None:
    """Check the names in `--config.a.b=value` arguments, before anything is set.

    Raises:
        ValueError: one line that names the nearest key there is.
    """
    for argument in argv:
        match = re.match(r"--config\.([^=]+)", argument)
        keys = match[1].split(".") if match else []
        reference: Any = default()
        for depth, key in enumerate(keys):
            prefix = ".".join(["config", *keys[:depth]])
            section = prefix.removeprefix("config.")
            if section in NAMED:  # the recipe names them
                reference = NAMED[section]
                continue
            if not isinstance(reference, ConfigDict):
                raise ValueError(f"{prefix} is a value, it has no key {key!r}")
            _check_key(key, reference, prefix)
            reference = reference[key]


def _positive(config: ConfigDict, keys: tuple[str, ...]) -> None:
    for key in keys:
        if get(config, key) <= 0:
            raise ValueError(f"config.{key}={get(config, key)} must be positive")


def _one_of(config: ConfigDict, key: str, choices: tuple[str, ...]) -> None:
    if get(config, key) not in choices:
        raise ValueError(f"config.{key}={get(config, key)!r} must be one of {', '.join(choices)}")


def get(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
