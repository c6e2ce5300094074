"""The model of a configuration's `model` section."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vclip_jax.data.images.statistics import IMAGE_MEAN, IMAGE_STD
from vclip_jax.models.bert import BertConfig
from vclip_jax.models.clip import Clip
from vclip_jax.models.clip_text import ClipTextConfig
from vclip_jax.models.kinds import TEXT_TOWERS


def compute_dtype(name: str, platform: str | None = None) -> Any:
    """Return the type of the computation; "auto" is bfloat16 on accelerators and float32 on CPUs.

    `platform` is the platform of the computation; None is this process's default.
    """
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(name)


def clip_text_config(model: Mapping[str, Any], vocab_size: int) -> ClipTextConfig:
    """Return the sizes of CLIP's text tower, from the keys `text_...` and `activation`."""
    return ClipTextConfig(**_text_sizes(model, vocab_size), activation=model["activation"])


def bert_config(model: Mapping[str, Any], vocab_size: int) -> BertConfig:
    """Return the sizes of a BERT, from the keys `text_...`."""
    return BertConfig(
        **_text_sizes(model, vocab_size),
        dropout=model["text_dropout"],
        initializer_range=model["text_initializer_range"],
        pool=model["text_pool"],
    )


def _text_sizes(model: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    names = ("width", "layers", "heads", "mlp_width", "max_positions")
    return {"vocab_size": vocab_size, **{name: model[f"text_{name}"] for name in names}}


def build_clip(
    model: Mapping[str, Any],
    rngs: nnx.Rngs,
    *,
    image_size: int,
    vocab_size: int,
    image_mean: Sequence[float] = IMAGE_MEAN,
    image_std: Sequence[float] = IMAGE_STD,
    per_device_norm: bool = False,
    scan_layers: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Clip:
    """Make the model with random weights.

    Args:
        model: `config.model`, see `vclip_jax.config.default`.
        rngs: generators with the stream `params`.
        image_size: side of the square images in pixels.
        vocab_size: number of tokens.
        image_mean, image_std: see `Clip`.
        per_device_norm: see `BatchNorm`.
        scan_layers: see `BertConfig.scan`; CLIP's own text tower is never scanned.
        dtype: the type of the computation.
    """
    text = TEXT_TOWERS[model["text_kind"]](model, vocab_size)
    if isinstance(text, BertConfig):
        text = replace(text, scan=scan_layers)
    return Clip(
        embed_dim=model["embed_dim"],
        image_size=image_size,
        vision_layers=tuple(model["vision_layers"]),
        vision_width=model["vision_width"],
        vision_patch_size=model["vision_patch_size"],
        vision_pool=model["vision_pool"],
        per_device_norm=per_device_norm,
        vision_kind=model["vision_kind"],
        activation=model["activation"],
        text=text,
        text_projection_kind=model["text_projection_kind"],
        image_mean=image_mean,
        image_std=image_std,
        dtype=dtype,
        rngs=rngs,
    )


Batch = dict[str, jax.Array]


def split_model(model: Clip) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """Return the model's structure, and as dicts its parameters and its batch statistics."""
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
