"""Chinese-CLIP's checkpoints (OFA-Sys/Chinese-CLIP, `cn_clip`), with a ResNet or a ViT.

A file holds `epoch`, `step`, `name`, `state_dict` and `optimizer`; the names of weights start with
`module.`, as distributed training writes them. Sizes are not stored: they are inferred from the
shapes, and the number of attention heads from the reference's rule of 64 channels each.
"""

from collections.abc import Mapping
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from vclip_jax.interop import names
from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.vit import HEAD_WIDTH

PREFIX = "module."
_WORDS = "bert.embeddings.word_embeddings.weight"
_POSITIONS = "bert.embeddings.position_embeddings.weight"
_LAYER = "bert.encoder.layer."
_VIT_H = (1280,)


def load(path: str | Path) -> Weights:
    """Read a checkpoint of Chinese-CLIP.

    Args:
        path: a `.pt` file: RN50 or another ModifiedResNet, or ViT-B/16, ViT-L/14 or another ViT
            with heads of 64 channels; with a text tower of any size.

    Returns:
        The weights as float32, also if they were saved as another type.

    Raises:
        ValueError: one line: see `checkpoints.read`, or the image tower is of another kind, or
            weights are missing, unexpected or of another shape.
        OSError: the file cannot be read.
    """
    content = checkpoints.read(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path} holds no state_dict: it is not a checkpoint of Chinese-CLIP")
    tensors = {
        name.removeprefix(PREFIX): array
        for name, array in state.items()
        if not name.removeprefix(PREFIX).startswith("bert.pooler.")
    }
    if getattr(tensors.get("visual.class_embedding"), "shape", None) == _VIT_H:
        raise ValueError(
            f"{path} has a ViT-H as its image tower, whose attention heads are 80 channels wide: "
            "use a checkpoint with RN50, ViT-B/16 or ViT-L/14"
        )
    if not any(name.startswith("visual.") for name in tensors):
        raise ValueError(f"{path} has no image tower: it is not a checkpoint of Chinese-CLIP")
    config = complete_config(_infer(tensors), origin=str(path))
    expected = expected_in(tensors, config, origin=str(path))
    arrays = names.from_reference(tensors, expected, origin=str(path))
    width = config["model"]["text_width"]
    if width % HEAD_WIDTH:
        raise ValueError(
            f"{path} has a text tower of width {width}: its number of heads is unknown, as "
            f"they are not {HEAD_WIDTH} wide"
        )
    return Weights(config, arrays)


def _infer(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Infer the portable configuration from shapes.

    Each size can be read from a second weight, or concerns only the missing weight. So if weights
    are missing, the sizes still allow an error that names all of them.
    """

    size, blocks = partial(state_dicts.size, tensors), partial(state_dicts.blocks, tensors)
    text_width = size(768, (_WORDS, 1), ("text_projection", 0))
    max_positions = size(512, (_POSITIONS, 0))
    vit = "visual.class_embedding" in tensors or "visual.proj" in tensors
    patch = size(16, ("visual.conv1.weight", 2)) if vit else 16
    positions = ("visual.positional_embedding", 0), ("visual.attnpool.positional_embedding", 0)
    grid = isqrt(max(size(197 if vit else 50, *positions) - 1, 1))
    if vit:
        layers = [blocks("visual.transformer.resblocks.")]
        width = size(768, ("visual.class_embedding", 0), ("visual.proj", 0))
    else:
        layers = [blocks(f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
        width = size(64, ("visual.conv3.weight", 0), ("visual.bn3.bias", 0))
    return {
        "model": {
            "embed_dim": size(1024, ("text_projection", 1), ("visual.attnpool.c_proj.bias", 0)),
            "vision_layers": layers,
            "vision_width": width,
            "vision_patch_size": patch,
            "vision_pool": "attention",
            "text_width": text_width,
            "text_layers": blocks(_LAYER),
            "text_heads": 1 if text_width % HEAD_WIDTH else text_width // HEAD_WIDTH,
            "text_mlp_width": size(
                4 * text_width,
                *((name, 0) for name in tensors if name.endswith(".intermediate.dense.bias")),
            ),
            "text_max_positions": max_positions,
            "text_pool": "first",
        },
        "data": {"image_size": (patch if vit else 32) * grid},
        "tokenizer": {
            "context_length": min(52, max_positions),
            "vocab_size": size(21128, (_WORDS, 0)),
        },
    }


def save(path: str | Path, weights: Weights, *, step: int = 0) -> None:
    """Write a checkpoint that Chinese-CLIP loads strictly.

    The file has no optimiser's state: to train on with `cn_clip`, pass `--reset-optimizer`.

    Args:
        path: the file, replaced if it exists.
        weights: the weights of both towers.
        step: the number of training steps to write into the file.

    Raises:
        ValueError: `cn_clip` has no such model: one line says what differs.
    """
    if problem := _unlike_reference(weights.config):
        raise ValueError(f"Chinese-CLIP has no such model: {problem}")
    state = {PREFIX + name: array for name, array in names.to_reference(weights.arrays).items()}
    checkpoints.write(
        path,
        {
            "epoch": 0,
            "step": step,
            "name": "vclip_jax",
            "state_dict": state,
            "optimizer": {"state": {}, "param_groups": []},
        },
    )


def _unlike_reference(config: Mapping[str, Any]) -> str | None:
    """Return why the reference would compute other results from these weights, or None."""
    if config["kind"] != "clip":
        return "this is only a text tower"
    model = config["model"]
    if model["vision_pool"] != "attention":
        return f"model.vision_pool is {model['vision_pool']!r}, not 'attention' as in cn_clip"
    if model["text_pool"] != "first":
        return f"model.text_pool is {model['text_pool']!r}, not 'first' as in cn_clip"
    if model["text_heads"] * HEAD_WIDTH != model["text_width"]:
        return (
            f"cn_clip's text heads are {HEAD_WIDTH} wide, this model's "
            f"{model['text_width']} / {model['text_heads']}"
        )
    return None


_PUBLISHED = (
    (224, 1024, 64, [3, 4, 6, 3]),  # RN50
    (224, 512, 768, [12]),  # ViT-B/16
    (224, 768, 1024, [24]),  # ViT-L/14
)
"""Image size, shared dimensions, width and layers of cn_clip's configs that can be exported."""


def notes(config: Mapping[str, Any]) -> list[str]:
    """Return notes on what users of the exported file must change in the reference's defaults."""
    model, data, tokenizer = config["model"], config["data"], config["tokenizer"]
    messages = []
    if data["fit"] != "squash" or data["enhance"]:
        how = f"data.fit={data['fit']}, data.enhance={data['enhance']}"
        messages.append(f"photographs were prepared with {how}; cn_clip squashes them")
    sizes = (data["image_size"], model["embed_dim"], model["vision_width"], model["vision_layers"])
    if sizes not in _PUBLISHED or tokenizer["vocab_size"] != 21128:
        messages.append("no config of cn_clip has these sizes: write one")
    return messages
