"""The configuration: every key with its default (`defaults`), what may be asked together
(`checks`), what a run keeps of it (`saved`), and the trainer's flags (`command_line`).

It stands on `data`, whose choices its keys name; nothing here imports JAX.
"""

from vclip_jax.config.defaults import NAMED, default, small, system, zero_shot_eval
from vclip_jax.config.saved import flatten, has_begun, read, save_or_check

__all__ = [
    "NAMED",
    "default",
    "flatten",
    "has_begun",
    "read",
    "save_or_check",
    "small",
    "system",
    "zero_shot_eval",
]
