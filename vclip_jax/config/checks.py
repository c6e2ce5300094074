"""The checks of a configuration, made before anything is spent.

A key that does not exist is refused with the one that was meant, where that is clear; a value that
cannot work with what would do.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ml_collections import ConfigDict

from vclip_jax.config import NAMED, default
from vclip_jax.data.images.augment import named_policy
from vclip_jax.data.images.decode import FITS, MODES
from vclip_jax.data.order import ORDERS
from vclip_jax.data.workers import AUTOMATIC

# What other modules offer, without importing JAX with them; a test compares.
KINDS = ("softmax", "softmax_ring", "sigmoid", "sigmoid_ring")
KEPT = {"image": ("none", "norms", "blocks"), "text": ("none", "products", "blocks")}
ACTIVATIONS = ("quick_gelu", "gelu")
DTYPES = ("auto", "float32", "bfloat16")
TRACKERS = ("tensorboard", "wandb", "mlflow")
LEAST_RESAMPLES = 100

_ALIASES = {
    "optimizer.learning_rate": "lr base_lr peak_lr max_lr init_lr learning_rate",
    "optimizer.weight_decay": "wd decay l2",
    "optimizer.warmup_steps": "warmup warmup_ratio warmup_epochs num_warmup_steps",
    "optimizer.beta1": "adam_beta1",
    "optimizer.beta2": "adam_beta2",
    "optimizer.epsilon": "eps adam_eps adam_epsilon",
    "optimizer.clip_grad_norm": "grad_clip_norm max_grad_norm grad_clip clip_grad "
    "gradient_clipping",
    "optimizer.gather_gradient": "gather_with_grad local_loss",
    "total_steps": "epochs max_epochs num_epochs num_train_epochs train_epochs total_epochs steps "
    "max_steps train_steps num_steps num_train_steps iterations max_iter",
    "global_batch_size": "batch_size batch bs train_batch_size total_batch_size "
    "per_device_train_batch_size",
    "eval_batch_size": "valid_batch_size val_batch_size per_device_eval_batch_size",
    "micro_batches": "accum_freq grad_accum grad_accum_steps gradient_accumulation_steps",
    "compute_dtype": "precision dtype amp fp16 bf16 half mixed_precision use_fp16 use_bf16",
    "remat.image": "grad_checkpointing gradient_checkpointing",
    "seed": "random_seed rng_seed global_seed random_state",
    "log_every": "log_interval log_steps logging_steps log_every_n_steps log_training_steps",
    "eval_every": "eval_steps eval_interval val_frequency valid_step_interval eval_freq",
    "checkpoint_every": "save_steps save_frequency save_step_frequency save_freq save_every "
    "save_interval ckpt_steps checkpoint_steps",
    "keep_checkpoints": "save_total_limit max_to_keep keep_last",
    "keep_best": "load_best_model_at_end metric_for_best_model save_best",
    "restore_from": "resume resume_from resume_from_checkpoint pretrained init_from model_init "
    "checkpoint ckpt finetune_from",
    "restore_optimizer": "resume_optimizer load_optimizer",
    "trackers": "report_to wandb tensorboard mlflow",
    "loss.label_smoothing": "label_smoothing_factor smoothing ls",
    "loss.kind": "siglip loss_type",
    "mesh.fsdp": "fsdp_size num_fsdp",
    "data.dataset": "dataset_name train_data dataset_type train_dataset",
    "data.data_dir": "data_path data_root root_dir dataset_dir",
    "data.image_size": "img_size resolution input_size input_resolution force_image_size res",
    "data.augment": "aug augmentation use_augment data_aug aug_cfg",
    "data.image_mean": "mean",
    "data.image_std": "std",
    "tokenizer.context_length": "max_length max_seq_length max_len seq_len",
    "tokenizer.vocab": "tokenizer_name vocab_file vocab_path",
    "model.embed_dim": "projection_dim",
    "model.text_dropout": "dropout drop_rate",
    "model.vision_patch_size": "patch_size",
}
"""Key -> what it is called in open_clip, Chinese-CLIP, Hugging Face, big_vision and elsewhere."""


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
         "max_skipped", "optimizer.epsilon", "mesh.fsdp"),
    )  # fmt: skip
    _not_negative(
        config,
        ("seed", "eval_every", "validation_batches", "tracker_samples", "profile.first",
         "profile.steps", "model.whiten_pairs", "optimizer.warmup_steps",
         "optimizer.weight_decay", "optimizer.clip_grad_norm"),
    )  # fmt: skip
    for key in ("optimizer.beta1", "optimizer.beta2", "model.text_dropout"):
        if not 0 <= get(config, key) < 1:
            raise ValueError(f"config.{key}={get(config, key)} must lie in [0, 1)")
    _check_patterns(config)
    layers = tuple(config.model.vision_layers)
    if len(layers) not in (1, 4) or not all(type(n) is int and n > 0 for n in layers):
        raise ValueError(
            f"config.model.vision_layers={layers} must be four stages (a ResNet), such as "
            "(3, 4, 6, 3), or one number (a Vision Transformer), such as (12,)"
        )
    if config.global_batch_size < 2:
        raise ValueError(
            f"config.global_batch_size={config.global_batch_size} must be at least 2: a contrast "
            "needs two pairs"
        )
    for name in config.trackers:
        if name not in TRACKERS:
            raise ValueError(
                f"config.trackers={tuple(config.trackers)} names {name!r}: the trackers are "
                f"{', '.join(TRACKERS)}"
            )
    if config.restore_step not in ("latest", "best") and not config.restore_step.isdecimal():
        raise ValueError(
            f"config.restore_step={config.restore_step!r} must be latest, best or a step"
        )
    if config.restore_optimizer and not config.restore_from:
        raise ValueError("config.restore_optimizer=True needs config.restore_from: name a workdir")
    _one_of(config, "data.fit", FITS)
    _one_of(config, "data.decode", MODES)
    named_policy(config.data.augment)
    _one_of(config, "data.shuffle", ORDERS)
    for key, least in (("data.workers", AUTOMATIC), ("data.threads", 0)):
        if get(config, key) < least:
            raise ValueError(f"config.{key}={get(config, key)} must be at least {least}")
    _one_of(config, "compute_dtype", DTYPES)
    _one_of(config, "model.vision_pool", ("attention", "mean"))
    _one_of(config, "model.vision_kind", ("clip", "imagenet"))
    _one_of(config, "model.text_kind", ("bert", "clip"))
    _one_of(config, "model.text_projection_kind", ("linear", "mlp"))
    _one_of(config, "model.activation", ACTIVATIONS)
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
        reference and len(layers) == 4 and config.model.text_projection_kind == "linear"
    ):
        raise ValueError(
            f"config.model.whiten_pairs={config.model.whiten_pairs} is for CLIP's ResNet and BERT "
            "with a linear projection: set it to 0"
        )
    _one_of(config, "model.batch_norm", ("global", "device"))
    for tower in KEPT:
        _one_of(config, f"remat.{tower}", KEPT[tower])
    _one_of(config, "loss.kind", KINDS)
    _one_of(config, "loss.targets", ("pair", "caption"))
    if not 0 <= config.loss.label_smoothing < 1:
        raise ValueError(
            f"config.loss.label_smoothing={config.loss.label_smoothing} must lie in [0, 1)"
        )
    if not 0 <= config.tokenizer.max_unknown <= 1:
        raise ValueError(
            f"config.tokenizer.max_unknown={config.tokenizer.max_unknown} must lie in [0, 1]"
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
    if config.eval_all_checkpoints and config.restore_step != "latest":
        raise ValueError(
            f"config.restore_step={config.restore_step!r} and config.eval_all_checkpoints=True do "
            "not go together: leave one of them out"
        )
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
    normed = config.model.batch_norm == "device"
    if len(layers) == 4 and config.global_batch_size < 2 * config.micro_batches * (
        devices if normed else 1
    ):
        raise ValueError(
            f"config.micro_batches={config.micro_batches}: each part of "
            f"config.global_batch_size={config.global_batch_size} has one photograph"
            f"{' on each device' if normed else ''}, too few for batch statistics: use less parts"
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


def of_key(key: str, error: Exception) -> ValueError:
    """What is wrong with the file or the dataset that a key of the config names, key first."""
    where = isinstance(error, OSError) and error.strerror and f"{error.filename}: {error.strerror}"
    return ValueError(f"config.{key}: {where or error}")


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Put a key before what is said of what it names, see `of_key`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise of_key(key, error) from error


def check_names(config: ConfigDict) -> None:
    """Look for the datasets and files that a config names; nothing is built or downloaded.

    Raises:
        ValueError: one line that names the key.
    """
    # Imported here: wrong values are answered without them.
    from vclip_jax import prompts
    from vclip_jax.datasets.ingest.prepare import needs_source

    vocab = config.tokenizer.vocab
    if vocab != "captions" and not vocab.startswith("hub:"):
        with naming("tokenizer.vocab"):
            os.stat(vocab)
    named = {f"evals.{name}": entry for name, entry in config.evals.items()}
    if config.data.dataset:
        named["data"] = config.data
    for section, entry in named.items():
        with naming(f"{section}.dataset"):
            to_build = needs_source(entry.dataset, config.data.data_dir)
        if to_build and entry.source:
            with naming(f"{section}.source"):
                os.stat(entry.source)
    for name, entry in config.evals.items():
        if entry.prompts != "labels" and not config.systems:  # which have prompts of their own
            with naming(f"evals.{name}.prompts"):
                prompts.load(entry.prompts)


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
    if key in reference:
        return
    section = prefix.removeprefix("config").removeprefix(".")
    if close := suggestion(key, section):
        unit = " (steps, not epochs)" if "epoch" in key.lower() else ""
        raise ValueError(f"unknown key {prefix}.{key}: did you mean config.{close}{unit}?")
    there = (
        f"{prefix} has {', '.join(reference)}"
        if section
        else "vclip_jax/config/defaults.py has all keys"
    )
    raise ValueError(f"unknown key {prefix}.{key}: {there}")


def suggestion(name: str, section: str = "") -> str:
    """The key that somebody may have meant, with its section; "" where that is not clear.

    Args:
        name: what was written in place of a key.
        section: where it was written, "" for the top.
    """
    words = _plain(name.rpartition(".")[2])
    keys = list(_keys(default()))
    if section in NAMED or section.partition(".")[0] in NAMED:
        entry = NAMED[section.partition(".")[0]]
        keys = [f"{section}.{key}" for key in entry]
    names: dict[str, list[str]] = {}
    for key in keys:
        names.setdefault(_plain(key.rpartition(".")[2]), []).append(key)
    here = [key for key in keys if key.rpartition(".")[0] == section]
    if words in names:  # the right name in the wrong section
        return names[words][0]
    for key, aliases in _ALIASES.items():
        if key in keys and words in map(_plain, aliases.split()):
            return key
    for among in (here, keys):
        close = difflib.get_close_matches(
            words, [_plain(key.rpartition(".")[2]) for key in among], n=1, cutoff=0.8
        )
        if close:
            return next(key for key in among if _plain(key.rpartition(".")[2]) == close[0])
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys, sections too."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")


def check_overrides(argv: Sequence[str]) -> None:
    """Check the names in `--config.a.b=value` arguments, before anything is set.

    Raises:
        ValueError: one line that names the nearest key there is.
    """
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)", argument)
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
        if not 0 < get(config, key) < math.inf:
            raise ValueError(f"config.{key}={get(config, key)} must be positive")


def _not_negative(config: ConfigDict, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not 0 <= get(config, key) < math.inf:
            raise ValueError(f"config.{key}={get(config, key)} must not be negative")


def _check_patterns(config: ConfigDict) -> None:
    """The pairs of a regular expression and what holds for it."""
    for key, second in (
        ("mesh.rules", lambda value: value in ("replicate", "fsdp")),
        ("optimizer.learning_rate_factors", lambda value: type(value) in (int, float)),
    ):
        for pair in get(config, key):
            good = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
            if not good or not second(pair[1]):
                like = '("visual/.*", "fsdp")' if key == "mesh.rules" else '("bert/.*", 0.1)'
                raise ValueError(f"config.{key} holds {pair!r}: its parts are like {like}")
            try:
                re.compile(pair[0])
            except re.error as error:
                raise ValueError(
                    f"config.{key} holds {pair[0]!r}, which is no regular expression: {error}"
                ) from error


def _one_of(config: ConfigDict, key: str, choices: tuple[str, ...]) -> None:
    if get(config, key) not in choices:
        raise ValueError(f"config.{key}={get(config, key)!r} must be one of {', '.join(choices)}")


def get(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
