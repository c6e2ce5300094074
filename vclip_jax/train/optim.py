"""The optimizer and its learning rate: linear warm-up, then a cosine to zero."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vclip_jax.devices.tree import path_string
from vclip_jax.files.errors import few
from vclip_jax.train.parts import heights

log = logging.getLogger(__name__)


def learning_rate_schedule(base: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Return a linear warm-up to `base`, then half a cosine to 0.

    The schedule of Chinese-CLIP (`training/scheduler.py`).

    Args:
        base: the peak learning rate.
        warmup_steps: steps of warm-up; step 0 has a learning rate of `base / warmup_steps`.
        total_steps: the step at which the cosine reaches 0.
    """

    def schedule(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = base * (step + 1) / max(warmup_steps, 1)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = base * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
        return jnp.where(step < warmup_steps, warm, cosine)

    return schedule


def decay_mask(params: dict, no_decay: tuple[str, ...]) -> dict:
    """Return True for each parameter to decay: its path contains none of `no_decay`.

    The recipe's words are "bn", "ln", "bias", "logit_scale" (Chinese-CLIP, `training/main.py`). As
    in Chinese-CLIP, BERT's LayerNorm scales, the shortcuts' norm scales and all embeddings are
    decayed.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(word in path_string(path) for word in no_decay), params
    )


def adamw(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Make the AdamW of `config.optimizer`, with a decay mask by name."""
    return optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=lambda params: decay_mask(params, tuple(config.no_decay)),
    )


OPTIMIZERS: dict[str, Callable[[ConfigDict, optax.Schedule], optax.GradientTransformation]] = {
    "adamw": adamw
}
"""The values of `config.optimizer.kind` -> functions of `config.optimizer` and the learning rate
schedule; a recipe may add its own, see `docs/extending.md`."""


def check_kind(config: ConfigDict) -> None:
    """Raise ValueError, one line, unless `OPTIMIZERS` has the kind of `config.optimizer`."""
    if config.kind not in OPTIMIZERS:
        raise ValueError(
            f"config.optimizer.kind={config.kind!r} must be one of {', '.join(OPTIMIZERS)}"
        )


def stages(config: ConfigDict) -> list[str]:
    """Return the keys of `config.optimizer` that add a stage to the optimizer, and to its state."""
    on = {
        "clip_grad_norm": config.clip_grad_norm,
        "learning_rate_factors": config.learning_rate_factors,
        "layer_decay": config.layer_decay != 1,
    }
    return [name for name, is_on in on.items() if is_on]


def make_optimizer(
    config: ConfigDict, total_steps: int, names: Iterable[str] = ()
) -> optax.GradientTransformation:
    """Make the optimizer of `config.optimizer` for a run of `total_steps`.

    Warn of a warm-up that is as long as the run, and of a learning rate of 0.

    Args:
        config: `config.optimizer`.
        total_steps: the length of the run.
        names: the names of all parameters, for `layer_decay`.

    Raises:
        ValueError: one line: the optimizer's kind is unknown.
    """
    check_kind(config)
    if config.warmup_steps >= total_steps:
        log.warning(
            "warning: config.optimizer.warmup_steps=%d of config.total_steps=%d: the learning rate "
            "rises to the last step and never falls",
            config.warmup_steps,
            total_steps,
        )
    schedule = learning_rate_schedule(config.learning_rate, config.warmup_steps, total_steps)
    parts = [OPTIMIZERS[config.kind](config, schedule)]
    if config.clip_grad_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_grad_norm))
    if config.learning_rate_factors:
        if still := [pattern for pattern, factor in config.learning_rate_factors if factor == 0]:
            log.warning(
                "warning: config.optimizer.learning_rate_factors is 0 for %s: batch statistics "
                "still move, and gradients are still computed; config.train.image and "
                "config.train.text freeze a tower",
                few(map(repr, still)),
            )
        parts.append(scale_by_path(config.learning_rate_factors))
    if config.layer_decay != 1:
        parts.append(scale_by_height(config.layer_decay, heights(names)))
    return optax.chain(*parts)


def scale_by_height(factor: float, height: Mapping[str, int]) -> optax.GradientTransformation:
    """Multiply updates by `factor` to the power of their height, see `parts.heights`.

    After AdamW, this scales the learning rate: layer-wise decay (Bao et al. 2021, BEiT).
    """
    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(
            lambda path, update: factor ** height[path_string(path)] * update, updates
        )
    )


def scale_by_path(factors: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Multiply updates by the factor of the first regular expression found in their path, else 1.

    After AdamW, this scales the learning rate of those parameters, weight decay included.
    """

    def factor(path: tuple[Any, ...]) -> float:
        name = path_string(path)
        return next((value for pattern, value in factors if re.search(pattern, name)), 1.0)

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(
            lambda path, update: factor(path) * update, updates
        )
    )
