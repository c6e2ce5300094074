"""The values that the forward pass keeps for the gradients; the others are computed again."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

KEPT: dict[str, dict[str, tuple[str, ...] | None]] = {
    "image": {
        "none": None,
        "norms": ("convolution", "statistics", "pool", "block"),
        "blocks": ("block",),
    },
    "text": {"none": None, "products": ("product",), "blocks": ("block",)},
}
"""Tower -> policy -> names of the kept values; None keeps everything."""
NO_REMAT = {"image": "none", "text": "none"}


def keep(x: jax.Array, name: str) -> jax.Array:
    """Return `x`, of any shape, under a name by which a policy may keep it."""
    return checkpoint_name(x, name)


def rematerialised(function: Callable[..., Any], tower: str, policy: str) -> Callable[..., Any]:
    """Return `function` with its intermediate values kept by the tower's policy."""
    names = KEPT[tower][policy]
    if names is None:
        return function
    return jax.checkpoint(function, policy=jax.checkpoint_policies.save_only_these_names(*names))
