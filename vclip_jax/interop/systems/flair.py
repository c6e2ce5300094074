"""FLAIR (jusiro/FLAIR): torchvision's ResNet-50 and Bio_ClinicalBERT, each with a projection.

The file is the model's state dictionary, `flair_resnet.pth`; sizes are inferred from the shapes.
Bio_ClinicalBERT's `vocab.txt` must be in the same folder, or be named by --vocab. Its words have
capitals, but it has no `tokenizer_config.json`, so FLAIR, which loads it with `AutoTokenizer`,
lower-cases texts (EmilyAlsentzer/clinicalBERT, issue 26).

FLAIR takes the mean over all tokens of a caption, including the padding to the longest caption of
the batch, so that an embedding depends on the other captions of the batch. The scorer does the same
for the prompts of a class, which FLAIR embeds together (`Scorer.prompt_embeddings`); texts that are
embedded alone have no padding in their mean.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vclip_jax.interop import names
from vclip_jax.interop.names import Source
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in

FILES = ("flair_resnet.pth", "model.safetensors", "pytorch_model.bin")
IMAGE_SIZE = 512
CONTEXT_LENGTH = 77
HEAD_WIDTH = 64
_VISION = "vision_model.model."
_TEXT = "text_model.model."
_PROJECTIONS = {
    "visual.proj": "vision_model.projection_head_vision.projection.weight",
    "text_projection": "text_model.projection_head_text.projection.weight",
}
_IGNORED = (f"{_TEXT}pooler.", f"{_TEXT}embeddings.position_ids", f"{_VISION}fc.")


def load(source: str | Path) -> Weights:
    """Read FLAIR.

    Args:
        source: the file with the weights (of `torch.save` or safetensors), or its folder.

    Raises:
        ValueError: one line: the file is not FLAIR's, or weights are missing, unexpected or of
            another shape.
        OSError: a file cannot be read.
    """
    path = state_dicts.find(source, FILES)
    tensors = {
        name: array
        for name, array in state_dicts.read(path).items()
        if not name.startswith(_IGNORED)
    }
    if not any(name.startswith((_VISION, _TEXT)) for name in tensors):
        raise ValueError(f"{path} has neither {_VISION}* nor {_TEXT}*: it is not FLAIR's")
    config = complete_config(_infer(tensors), origin=str(path))
    expected = expected_in(tensors, config, origin=str(path))
    arrays = names.from_reference(tensors, expected, origin=str(path), source=_source)
    return Weights(config, arrays)


def _source(name: str) -> Source:
    """Return the place of one of our weights in FLAIR's file."""
    if name in _PROJECTIONS:
        return Source((_PROJECTIONS[name],), transposed=True)
    theirs = names.reference_name(name)
    if theirs.startswith("bert."):
        return Source((_TEXT + theirs.removeprefix("bert."),))
    if theirs.startswith("visual."):
        return Source((_VISION + theirs.removeprefix("visual."),))
    return Source((theirs,))


def _infer(tensors: Mapping[str, Any]) -> dict[str, Any]:
    size, blocks = partial(state_dicts.size, tensors), partial(state_dicts.blocks, tensors)
    vision_projection, text_projection = _PROJECTIONS.values()
    words, positions = (
        f"{_TEXT}embeddings.{kind}_embeddings.weight" for kind in ("word", "position")
    )
    width = size(768, (words, 1), (text_projection, 1))
    max_positions = size(512, (positions, 0))
    return {
        "model": {
            "vision_kind": "imagenet",
            "vision_layers": [blocks(f"{_VISION}layer{stage}.") for stage in (1, 2, 3, 4)],
            "vision_width": size(64, (f"{_VISION}bn1.weight", 0), (f"{_VISION}conv1.weight", 0)),
            "vision_pool": "mean",
            "embed_dim": size(512, (text_projection, 0), (vision_projection, 0)),
            "text_width": width,
            "text_layers": blocks(f"{_TEXT}encoder.layer."),
            "text_heads": max(1, width // HEAD_WIDTH),
            "text_mlp_width": size(
                4 * width, (f"{_TEXT}encoder.layer.0.intermediate.dense.bias", 0)
            ),
            "text_max_positions": max_positions,
            "text_pool": "layers",
        },
        "data": {
            "image_size": IMAGE_SIZE,
            "fit": "flair",
            "image_mean": [0.0, 0.0, 0.0],
            "image_std": [1.0, 1.0, 1.0],
        },
        "tokenizer": {
            "context_length": min(CONTEXT_LENGTH, max_positions),
            "vocab_size": size(28996, (words, 0)),
        },
    }
