"""CLIP in the layout of Hugging Face's `transformers` (`CLIPModel`): a Vision Transformer and
CLIP's text tower, such as openai/clip-vit-base-patch32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclip_jax.files.foreign import read_json
from vclip_jax.interop import names
from vclip_jax.interop.names import Source
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.vit import ACTIVATIONS, LAYER_NORM_EPSILON

CONTEXT_LENGTH = 77
_FILES = ("model.safetensors", "pytorch_model.bin")
_PARTS = (
    # the reference's names, theirs
    ("text.transformer.resblocks.", "text_model.encoder.layers."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("text.token_embedding.", "text_model.embeddings.token_embedding."),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.ln_final.", "text_model.final_layer_norm."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_PROJECTIONS = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_VISION = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 32,
    "image_size": 224,
}
_TEXT = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
"""Defaults of keys that a config.json leaves out."""
_LEGACY_END = 2
"""The `eos_token_id` of files from before 2023, which is wrong and means the highest id."""


def load(folder: str | Path) -> Weights:
    """Read a CLIP.

    Args:
        folder: a folder with `config.json`, `model.safetensors` or `pytorch_model.bin`, and, if
            photographs are not preprocessed as OpenAI did, `preprocessor_config.json`.

    Raises:
        ValueError: one line: there is no such folder, the architecture or the preprocessing is
            another one, or weights are missing, unexpected or of another shape.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    config = complete_config(_config(folder), origin=str(folder))
    path = state_dicts.find(folder, _FILES)
    tensors = {
        name: array
        for name, array in state_dicts.read(path).items()
        if not name.endswith(".position_ids")
    }
    expected = expected_in(tensors, config, origin=str(path))
    arrays = names.from_reference(tensors, expected, origin=str(path), source=source)
    return Weights(config, arrays)


def source(name: str) -> Source:
    """Return the place of one of our weights in a file of `transformers`."""
    if name in _PROJECTIONS:
        return Source((_PROJECTIONS[name],), transposed=True)
    name = names.reference_name(name)
    for ours, theirs in _PARTS:
        name = name.replace(ours, theirs)
    stem, joined, leaf = name.partition(".self_attn.in_proj_")
    if joined:
        return Source(tuple(f"{stem}.self_attn.{letter}_proj.{leaf}" for letter in "qkv"))
    return Source((name,))


def _config(folder: Path) -> dict[str, Any]:
    theirs = _read(folder / "config.json")
    if theirs.get("model_type") != "clip":
        raise ValueError(
            f"{folder / 'config.json'} is of a {theirs.get('model_type')!r}, not of a 'clip'"
        )
    try:
        vision = _VISION | dict(theirs.get("vision_config") or {})
        text = _TEXT | dict(theirs.get("text_config") or {})
        vision |= dict(theirs.get("vision_config_dict") or {})
        text |= dict(theirs.get("text_config_dict") or {})
        _check(vision, text)
        return {
            "model": {
                "embed_dim": theirs.get("projection_dim", 512),
                "vision_layers": [vision["num_hidden_layers"]],
                "vision_width": vision["hidden_size"],
                "vision_patch_size": vision["patch_size"],
                "activation": vision.get("hidden_act", "quick_gelu"),
                "text_kind": "clip",
                "text_width": text["hidden_size"],
                "text_layers": text["num_hidden_layers"],
                "text_heads": text["num_attention_heads"],
                "text_mlp_width": text["intermediate_size"],
                "text_max_positions": text["max_position_embeddings"],
                "text_dropout": 0.0,
                "text_pool": "end",
            },
            "data": _preparation(folder, vision["image_size"]),
            "tokenizer": {
                "context_length": min(CONTEXT_LENGTH, text["max_position_embeddings"]),
                "vocab_size": text["vocab_size"],
            },
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder}: {error}") from error


def _check(vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """Raise ValueError if our towers would compute other results."""
    fixed = {
        "vision_config.num_attention_heads": (vision, vision["hidden_size"] // 64),
        "vision_config.intermediate_size": (vision, 4 * vision["hidden_size"]),
        "vision_config.layer_norm_eps": (vision, LAYER_NORM_EPSILON),
        "vision_config.num_channels": (vision, 3),
        "text_config.layer_norm_eps": (text, LAYER_NORM_EPSILON),
        "text_config.hidden_act": (text, vision.get("hidden_act", "quick_gelu")),
    }
    for key, (section, value) in fixed.items():
        name = key.partition(".")[2]
        if section.get(name, value) != value:
            raise ValueError(f"{key} is {section[name]!r}, the tower has {value!r}")
    if vision.get("hidden_act", "quick_gelu") not in ACTIVATIONS:
        raise ValueError(
            f"hidden_act is {vision['hidden_act']!r}, not one of {', '.join(ACTIVATIONS)}"
        )
    end, last = text.get("eos_token_id", text["vocab_size"] - 1), text["vocab_size"] - 1
    if end not in (_LEGACY_END, last):
        raise ValueError(f"text_config.eos_token_id is {end}, not {last}, the last id")


def _preparation(folder: Path, size: int) -> dict[str, Any]:
    """Return the section `data`, from `preprocessor_config.json` if it exists."""
    data: dict[str, Any] = {"image_size": size, "fit": "centre_crop"}
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return data
    theirs = _read(path)
    sides = _sides(theirs.get("size", size)) | _sides(theirs.get("crop_size", size))
    steps = [theirs.get(f"do_{step}", True) for step in ("resize", "center_crop", "normalize")]
    if sides != {size} or theirs.get("resample", 3) != 3 or not all(steps):
        raise ValueError(
            f"{path.name} has another preprocessing than the supported one: shorter side to {size} "
            "pixels, bicubic, centre crop, normalised"
        )
    for key in ("image_mean", "image_std"):
        if key in theirs:
            data[key] = theirs[key]
    return data


def _sides(value: Any) -> set[Any]:
    """Return the sides of a size: a number, or `shortest_edge`, or `height` and `width`."""
    return set(value.values()) if isinstance(value, dict) else {value}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}: give the folder of a CLIPModel")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is a {type(content).__name__}, not an object")
    return content
