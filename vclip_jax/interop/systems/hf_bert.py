"""BERT's weights in the layout of Hugging Face's `transformers`, for the text tower.

Examples are hfl/chinese-roberta-wwm-ext and hfl/rbt3, which are BERTs despite their names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vclip_jax.files.foreign import read_json
from vclip_jax.interop import names
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.bert import LAYER_NORM_EPSILON, PAD_ID

_SIZES = {
    # theirs: ours
    "hidden_size": "text_width",
    "num_hidden_layers": "text_layers",
    "num_attention_heads": "text_heads",
    "intermediate_size": "text_mlp_width",
    "max_position_embeddings": "text_max_positions",
}
_FIXED = {
    # settings of our text tower, which are also the defaults of keys that a config.json leaves out
    "model_type": "bert",
    "hidden_act": "gelu",
    "type_vocab_size": 2,
    "layer_norm_eps": LAYER_NORM_EPSILON,
    "pad_token_id": PAD_ID,
    "position_embedding_type": "absolute",
}
_IGNORED = (
    "cls.",
    "bert.pooler.",
    "bert.embeddings.position_ids",
    "bert.embeddings.token_type_ids",
)


def load(folder: str | Path) -> Weights:
    """Read a text tower.

    Args:
        folder: a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`. Names
            may lack the prefix `bert.`, and may have `gamma` and `beta`; the pre-training heads
            and the pooler are left out.

    Returns:
        Weights of kind "text".

    Raises:
        ValueError: one line: there is no such folder, the architecture is another one, or weights
            are missing, unexpected or of another shape.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    config = complete_config(_config(folder / "config.json"), origin=str(folder))
    path = state_dicts.find(folder, ("model.safetensors", "pytorch_model.bin"))
    arrays = state_dicts.read(path)
    prefix = "" if any(name.startswith("bert.") for name in arrays) else "bert."
    tensors = {
        prefix + name: array
        for name, array in _modern_norms(arrays).items()
        if not (prefix + name).startswith(_IGNORED)
    }
    expected = expected_in(tensors, config, origin=str(path))
    return Weights(config, names.from_reference(tensors, expected, origin=str(path)))


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} has no config.json: give the folder of a BERT")
    theirs = read_json(path)
    try:
        sizes = {ours: theirs[key] for key, ours in _SIZES.items()}
        vocab_size = theirs["vocab_size"]
        for key, value in _FIXED.items():
            if theirs.get(key, value) != value:
                raise ValueError(f"{key} is {theirs[key]!r}, the text tower has {value!r}")
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}: it is not a BERT's") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if type(sizes["text_max_positions"]) is not int:
        raise ValueError(f"{path}: max_position_embeddings is not a whole number")
    optional = {
        "text_dropout": theirs.get("hidden_dropout_prob"),
        "text_initializer_range": theirs.get("initializer_range"),
    }
    model = sizes | {key: value for key, value in optional.items() if value is not None}
    context_length = min(52, sizes["text_max_positions"])
    return {
        "kind": "text",
        "model": model,
        "tokenizer": {"context_length": context_length, "vocab_size": vocab_size},
    }


def _modern_norms(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename `gamma` and `beta`, as checkpoints converted from TensorFlow call scale and shift."""

    def modern(name: str) -> str:
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )

    return {modern(name): array for name, array in arrays.items()}
