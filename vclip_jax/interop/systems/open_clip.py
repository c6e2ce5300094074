"""Models of open_clip (mlfoundations/open_clip): CLIP's Vision Transformers and ResNets with CLIP's
text tower, and BiomedCLIP, whose towers are timm's Vision Transformer and a BERT.

OpenAI's own state dictionaries have the same names. Sizes are inferred from the shapes; all other
settings are in `open_clip_config.json`, which the Hugging Face Hub has next to the weights.
"""

from collections.abc import Mapping
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from vclip_jax.data.text.tokenizer_json import FastTokenizer
from vclip_jax.files.foreign import read_json
from vclip_jax.interop import names
from vclip_jax.interop.names import Source
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.vit import HEAD_WIDTH

FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
CONFIG = "open_clip_config.json"
CONTEXT_LENGTH = 77
_IGNORED = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Numbers in OpenAI's state dictionaries, and a constant in old files."""

# Settings that our towers have; a config may leave the keys out, or have one of these values.
_VISION = {
    "head_width": (HEAD_WIDTH,),
    "mlp_ratio": (4.0,),
    "ls_init_value": (None,),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,),
    "pool_type": ("tok",),
    "output_tokens": (False,),
    "timm_pool": ("", "token"),
    "timm_proj": ("linear",),
    "timm_proj_bias": (False,),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
}
_TEXT = {
    "mlp_ratio": (4.0,),
    "ls_init_value": (None,),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
    "final_ln_after_pool": (False,),
    "pool_type": ("argmax",),
    "proj_bias": (False,),
    "proj_type": ("linear",),
    "output_tokens": (False,),
    "pad_id": (0,),
    "eos_id": (2,),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
}
_FREE = {
    # Settings that follow from the shapes, or that do not affect the results.
    "layers",
    "width",
    "heads",
    "patch_size",
    "image_size",
    "patch_dropout",
    "context_length",
    "vocab_size",
    "timm_model_name",
    "timm_model_pretrained",
    "timm_drop",
    "timm_drop_path",
    "hf_model_name",
    "hf_model_pretrained",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "hf_proj_type",
    "hf_pooler_type",
    "proj",
    "pooler_type",
}
_POOLS = {"cls_last_hidden_state_pooler": "first", "mean_pooler": "mean"}

_TIMM = (
    # the reference's names, timm's
    ("visual.transformer.resblocks.", "visual.trunk.blocks."),
    ("visual.class_embedding", "visual.trunk.cls_token"),
    ("visual.positional_embedding", "visual.trunk.pos_embed"),
    ("visual.conv1.", "visual.trunk.patch_embed.proj."),
    ("visual.ln_post.", "visual.trunk.norm."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def load(source: str | Path, *, activation: str | None = None) -> Weights:
    """Read a model of open_clip.

    Args:
        source: the file with the weights (of safetensors or `torch.save`), or its folder.
        activation: "quick_gelu" or "gelu"; needed if there is no `open_clip_config.json` next to
            the weights, and one of the towers is a Transformer of CLIP's.

    Raises:
        ValueError: one line: the architecture or the preprocessing is another one, the activation
            is unknown, or weights are missing, unexpected or of another shape.
        OSError: a file cannot be read.
    """
    path = state_dicts.find(source, FILES)
    tensors = {
        name: array
        for name, array in state_dicts.read(path).items()
        if name not in _IGNORED
        and not name.endswith("embeddings.position_ids")
        and not name.startswith("text.transformer.pooler.")
    }
    if not any(name.startswith("visual.") for name in tensors):
        raise ValueError(f"{path} has no image tower: it is not a model of open_clip")
    described = _read(path.with_name(CONFIG))
    try:
        config = _config(tensors, described, activation, str(path))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path.with_name(CONFIG)} is not open_clip's ({error})") from error
    config = complete_config(config, origin=str(path))
    where = partial(_source, timm=_is_timm(tensors), text=_text_prefix(tensors))
    expected = expected_in(tensors, config, origin=str(path))
    arrays = names.from_reference(tensors, expected, origin=str(path), source=where)
    return Weights(config, arrays)


def with_cleaning(tokenizer: FastTokenizer, config: Mapping[str, Any]) -> FastTokenizer:
    """Return a tokenizer that cleans texts as open_clip does for a model of this configuration."""
    return tokenizer.with_cleaning("lower" if _is_clip_text(config["model"]) else "whitespace")


def _is_clip_text(model: Mapping[str, Any]) -> bool:
    return model["text_kind"] == "clip"


def _is_timm(tensors: Mapping[str, Any]) -> bool:
    return any(name.startswith("visual.trunk.") for name in tensors)


def _is_bert(tensors: Mapping[str, Any]) -> bool:
    return any(name.startswith("text.transformer.embeddings.") for name in tensors)


def _text_prefix(tensors: Mapping[str, Any]) -> str:
    """Return the prefix of CLIP's text tower: none, or `text.` in models with timm's tower."""
    return "text." if "text.token_embedding.weight" in tensors else ""


def _source(name: str, *, timm: bool, text: str) -> Source:
    """Return the place of one of our weights in open_clip's file."""
    if name == "visual.proj" and timm:
        return Source(("visual.head.proj.weight",), transposed=True)
    if name in ("text_projection.first", "text_projection.second"):
        number = 0 if name.endswith("first") else 2
        return Source((f"text.proj.{number}.weight",), transposed=True)
    their = names.reference_name(name)
    if name.startswith("bert."):
        return Source((their.replace("bert.", "text.transformer.", 1),))
    if name == "text_projection":
        return Source((text + name,))
    if name.startswith("text."):
        return Source((text + their.removeprefix("text."),))
    if timm:
        for ours, theirs in _TIMM:
            their = their.replace(ours, theirs)
        return Source(
            (their,), ones={"cls_token": 2, "pos_embed": 1}.get(their.rpartition(".")[2], 0)
        )
    return Source((their,))


def _config(
    tensors: Mapping[str, Any], described: Mapping[str, Any], activation: str | None, origin: str
) -> dict[str, Any]:
    model, preparation = described.get("model_cfg", {}), described.get("preprocess_cfg", {})
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    _check(vision, _VISION, f"{origin}: {CONFIG}: vision_cfg")
    _check(text, _TEXT, f"{origin}: {CONFIG}: text_cfg")
    image = _vision_sizes(tensors)
    if _is_timm(tensors):
        activation = "gelu"
    elif model:
        activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    elif activation is None and not (len(image["vision_layers"]) == 4 and _is_bert(tensors)):
        raise ValueError(
            f"{origin}: the activation is unknown, because there is no {CONFIG} next to the "
            "weights: set --activation quick_gelu (OpenAI's weights) or gelu"
        )
    image_size = image.pop("image_size")
    words = _bert_sizes(tensors, text) if _is_bert(tensors) else _text_sizes(tensors, text)
    vocab_size = words.pop("vocab_size")
    return {
        "model": image | words | {"activation": activation or "quick_gelu"},
        "data": _preparation(preparation, image_size, origin),
        "tokenizer": {
            "context_length": min(
                text.get("context_length", CONTEXT_LENGTH), words["text_max_positions"]
            ),
            "vocab_size": vocab_size,
        },
    }


def _check(section: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for key, value in section.items():
        if key not in fixed and key not in _FREE:
            raise ValueError(f"{where}.{key} is unknown: the tower may be another one")
        if key in fixed and value not in fixed[key]:
            raise ValueError(f"{where}.{key} is {value!r}, the tower has {fixed[key][0]!r}")


def _vision_sizes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    size, blocks = partial(state_dicts.size, tensors), partial(state_dicts.blocks, tensors)
    if _is_timm(tensors):
        grid = isqrt(max(size(197, ("visual.trunk.pos_embed", 1)) - 1, 1))
        patch = size(16, ("visual.trunk.patch_embed.proj.weight", 2))
        return {
            "vision_kind": "imagenet",
            "vision_layers": [blocks("visual.trunk.blocks.")],
            "vision_width": size(
                768, ("visual.trunk.norm.weight", 0), ("visual.head.proj.weight", 1)
            ),
            "vision_patch_size": patch,
            "image_size": patch * grid,
            "embed_dim": size(512, ("visual.head.proj.weight", 0), ("text.proj.2.weight", 0)),
        }
    text_projection = (f"{_text_prefix(tensors)}text_projection", 1)
    if "visual.class_embedding" in tensors or "visual.proj" in tensors:
        grid = isqrt(max(size(197, ("visual.positional_embedding", 0)) - 1, 1))
        patch = size(16, ("visual.conv1.weight", 2))
        return {
            "vision_layers": [blocks("visual.transformer.resblocks.")],
            "vision_width": size(768, ("visual.class_embedding", 0), ("visual.proj", 0)),
            "vision_patch_size": patch,
            "image_size": patch * grid,
            "embed_dim": size(512, ("visual.proj", 1), text_projection),
        }
    grid = isqrt(max(size(50, ("visual.attnpool.positional_embedding", 0)) - 1, 1))
    return {
        "vision_layers": [blocks(f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "vision_width": size(64, ("visual.conv3.weight", 0), ("visual.bn3.bias", 0)),
        "image_size": 32 * grid,
        "embed_dim": size(1024, ("visual.attnpool.c_proj.bias", 0), text_projection),
    }


def _text_sizes(tensors: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    size, prefix = partial(state_dicts.size, tensors), _text_prefix(tensors)
    blocks = f"{prefix}transformer.resblocks."
    width = size(512, (f"{prefix}ln_final.weight", 0), (f"{prefix}text_projection", 0))
    return {
        "text_kind": "clip",
        "text_width": width,
        # Leave out `visual.transformer.resblocks.`.
        "text_layers": state_dicts.blocks({n: 0 for n in tensors if n.startswith(blocks)}, blocks),
        "text_heads": described.get("heads", max(1, width // HEAD_WIDTH)),
        "text_mlp_width": size(4 * width, (f"{blocks}0.mlp.c_fc.bias", 0)),
        "text_max_positions": size(CONTEXT_LENGTH, (f"{prefix}positional_embedding", 0)),
        "text_dropout": 0.0,
        "text_pool": "end",
        "vocab_size": size(49408, (f"{prefix}token_embedding.weight", 0)),
    }


def _bert_sizes(tensors: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    size, stem = partial(state_dicts.size, tensors), "text.transformer."
    words = f"{stem}embeddings.word_embeddings.weight"
    width = size(768, (words, 1), (f"{stem}embeddings.LayerNorm.weight", 0))
    pooler = described.get(
        "hf_pooler_type", described.get("pooler_type", "cls_last_hidden_state_pooler")
    )
    if pooler not in _POOLS:
        raise ValueError(f"hf_pooler_type is {pooler!r}, not one of {', '.join(_POOLS)}")
    mlp = "text.proj.0.weight" in tensors
    if not mlp:
        raise ValueError("the projection of the text is not BiomedCLIP's, text.proj.0 and .2")
    return {
        "text_width": width,
        "text_layers": state_dicts.blocks(tensors, f"{stem}encoder.layer."),
        "text_heads": max(1, width // HEAD_WIDTH),
        "text_mlp_width": size(4 * width, (f"{stem}encoder.layer.0.intermediate.dense.bias", 0)),
        "text_max_positions": size(512, (f"{stem}embeddings.position_embeddings.weight", 0)),
        "text_dropout": 0.1,
        "text_pool": _POOLS[pooler],
        "text_projection_kind": "mlp",
        "vocab_size": size(30522, (words, 0)),
    }


def _preparation(theirs: Mapping[str, Any], size: int, origin: str) -> dict[str, Any]:
    fits = {"shortest": "centre_crop", "squash": "squash"}
    mode = theirs.get("resize_mode", "shortest")
    interpolation = theirs.get("interpolation", "bicubic")
    if mode not in fits or interpolation != "bicubic":
        raise ValueError(
            f"{origin}: {CONFIG}: preprocess_cfg has resize_mode {mode!r} and interpolation "
            f"{interpolation!r}; known are {', '.join(fits)}, and bicubic"
        )
    data: dict[str, Any] = {"image_size": size, "fit": fits[mode]}
    for ours, key in (("image_mean", "mean"), ("image_std", "std")):
        if key in theirs:
            data[ours] = theirs[key]
    return data


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("model_cfg"), dict):
        raise ValueError(f"{path} has no model_cfg: it is not open_clip's configuration")
    return content
