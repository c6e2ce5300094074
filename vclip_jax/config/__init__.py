"""The configuration: every key, declared once (`keys`), the ConfigDict made from them (`defaults`),
the rules between keys (`rules`), all checks (`checks`), the config.json of a run (`saved`), the
page of the keys (`page`), and the trainer's flags (`command_line`).

The keys name choices of the room `data`; nothing here imports JAX.
"""

from vclip_jax.config.defaults import (
    default,
    published_eval,
    small,
    starting_from,
    system,
    zero_shot_eval,
)
from vclip_jax.config.saved import as_text, flatten, has_begun, read, save_or_check

__all__ = [
    "as_text",
    "default",
    "flatten",
    "has_begun",
    "published_eval",
    "read",
    "save_or_check",
    "small",
    "starting_from",
    "system",
    "zero_shot_eval",
]
