"""The losses, towers and pools that a configuration names: functions and classes by name.

A recipe may add its own before `get_config` returns, see `docs/extending.md`. Nothing here imports
JAX, so that the command line can answer first: an entry's module is imported when the entry is
called.
"""

import importlib
from collections.abc import Callable
from typing import Any


def _later(module: str, name: str, **settings: Any) -> Callable[..., Any]:
    """Return the function `name` of a module of this room, imported when it is called."""

    def call(*arguments: Any, **more: Any) -> Any:
        function = getattr(importlib.import_module(f"vclip_jax.models.{module}"), name)
        return function(*arguments, **settings, **more)

    return call


LOSSES: dict[str, Callable[..., Any]] = {
    kind: _later("losses", "contrastive_loss", kind=kind)
    for kind in ("softmax", "softmax_ring", "sigmoid", "sigmoid_ring")
}
"""The values of `config.loss.kind`: functions like `losses.contrastive_loss` without `kind`.

A loss whose name begins with "sigmoid" gets a `logit_bias` and starts at the sigmoid's temperature.
"""

IMAGE_TOWERS: dict[str, Callable[..., Any]] = {
    "clip": _later("towers", "clip_image_tower"),
    "imagenet": _later("towers", "imagenet_tower"),
}
"""The values of `config.model.vision_kind`: functions that make a tower.

Their arguments are those of `towers.clip_image_tower`. A tower maps normalised images `[b, s, s,
3]` and the keyword `train` to `[b, embed_dim]`.
"""

IMAGE_POOLS: dict[str, Callable[..., Any]] = {
    "attention": _later("resnet", "AttentionPool"),
    "mean": _later("resnet", "mean_pool"),
}
"""The values of `config.model.vision_pool`: functions that make a pool of CLIP's ResNet.

Their arguments are those of `resnet.AttentionPool`. A pool maps `[b, h, w, width]` to `[b,
outputs]`.
"""

TEXT_TOWERS: dict[str, Callable[..., Any]] = {
    "bert": _later("build", "bert_config"),
    "clip": _later("build", "clip_text_config"),
}
"""The values of `config.model.text_kind`: functions of `config.model` and the vocabulary's size.

They return an object that makes a tower, such as a `clip.TextTower`. A tower maps tokens int32 `[b,
length]` and the keyword `keys` to `[b, width]`.
"""

TEXT_POOLS: dict[str, Callable[..., Any]] = {
    "first": _later("bert", "first_state"),
    "mean": _later("bert", "mean_state"),
    "layers": _later("bert", "mean_state"),  # applied to the states of three layers
}
"""The values of `config.model.text_pool` with BERT: functions that return `[b, width]`.

Their arguments are the states `[b, length, width]` and a mask of the counted states, `[b, length,
1]` of zeros and ones.
"""
