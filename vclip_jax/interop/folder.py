"""The portable folder: a model that needs no other file of the run that made it.

model.safetensors   the weights by dotted name, with the configuration in the metadata
config.json         the same configuration, see `weights.complete_config`
vocab.txt           the tokeniser's vocabulary, one token a line; or `tokenizer.json`, see
                    `data.text.tokenizer_json`, if the tokenizer is CLIP's or an English BERT's
README.md           a model card
prompts.json        the model's default prompts, see `prompts.own`, if they are known
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.tokenizer_json import TOKENIZER, VOCAB, FastTokenizer, saved_tokenizer
from vclip_jax.files.foreign import parse_json, read_json
from vclip_jax.files.writing import replacing
from vclip_jax.interop import names
from vclip_jax.interop.model_card import write as write_card
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.bert import PAD_ID
from vclip_jax.prompts.own import FILE as PROMPTS

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (MODEL, CONFIG, VOCAB, CARD)
POSSIBLE_FILES = (*FILES, TOKENIZER, PROMPTS)
METADATA_KEY = "vclip_jax"
_WORDS = ("bert.embeddings.word_embeddings.embedding", "text.token_embedding.embedding")


def save(
    folder: str | Path,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    origin: str = "",
    card: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model as a portable folder.

    Each file is replaced in one step. Other files of the folder stay as they are.

    Args:
        folder: the folder, made if it does not exist.
        weights: the weights of both towers, or of only the text tower.
        tokenizer: a tokenizer with as many tokens as the text tower has embeddings.
        origin: the source of the weights in a few words, for the model card.
        card: the model card, see `interop.model_card`; None for a card that states only the
            origin.
        overwrite: replace the four files if they exist.

    Raises:
        ValueError: one line: a file exists already, the folder is a training run's, or the
            vocabulary is another model's.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_target(folder, overwrite=overwrite)
    check_vocabulary(weights, tokenizer)
    text = card if card is not None else write_card(weights, tokenizer, origin)
    config = json.dumps(weights.config, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        # save_file ignores strides, so arrays must be contiguous.
        MODEL: lambda path: save_file(
            {name: np.asarray(array, order="C") for name, array in weights.arrays.items()},
            path,
            {METADATA_KEY: json.dumps(weights.config)},
        ),
        CONFIG: lambda path: path.write_text(config, "utf-8"),
        tokenizer.file_name: tokenizer.save,
        CARD: lambda path: path.write_text(text, "utf-8"),
    }
    for name, write in writers.items():
        with replacing(folder / name) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            write(temporary)
            temporary.chmod(mode)  # safetensors makes files that only their owner can read
    for name in {VOCAB, TOKENIZER} - {tokenizer.file_name}:  # an earlier tokenizer's file
        (folder / name).unlink(missing_ok=True)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise ValueError if `save` must not write to a folder."""
    if (folder / "checkpoints").exists():
        raise ValueError(f"{folder} is the workdir of a training run: choose another folder")
    existing = [name for name in POSSIBLE_FILES if (folder / name).exists()]
    if existing and not overwrite:
        raise ValueError(
            f"{folder} already has {', '.join(existing)}: pass --overwrite to replace them"
        )


def load(folder: str | Path) -> tuple[Weights, Tokenizer]:
    """Read a portable folder.

    Raises:
        ValueError: one line: a file is missing or damaged, the configuration and the weights do
            not belong together, or weights are missing, unexpected or of another shape.
    """
    folder = Path(folder)
    tokenizer = saved_tokenizer(folder)
    needed = (MODEL, CONFIG) if tokenizer is not None else (MODEL, CONFIG, VOCAB)
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing or tokenizer is None:
        raise ValueError(f"{folder} is not a portable folder: it lacks {', '.join(missing)}")
    weights = load_file_alone(folder / MODEL)
    path = folder / CONFIG
    if complete_config(read_json(path), origin=str(path)) != weights.config:
        raise ValueError(
            f"{path} differs from the configuration in {MODEL}'s metadata: "
            "take both files from the same model"
        )
    check_vocabulary(weights, tokenizer)
    return weights, tokenizer


def load_file_alone(path: str | Path) -> Weights:
    """Read only the `model.safetensors` of a portable folder, which includes the configuration.

    Raises:
        ValueError: as for `load`.
    """
    config: dict[str, Any] = {}
    expected: dict[str, tuple[int, ...]] = {}

    # A sparse file may take a kilobyte on disk and all memory once it is read.
    def look(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> None:
        if METADATA_KEY not in metadata:
            raise ValueError(
                f"{path} has no configuration of vclip_jax in its metadata: was it made by "
                "`vclip weights`? BERTs are imported with --format hf_bert"
            )
        declared = parse_json(metadata[METADATA_KEY], f"{path}: its metadata")
        config.update(complete_config(declared, origin=str(path)))
        arrays = expected_in(shapes, config, origin=str(path))
        expected.update({name: leaf.shape for name, leaf in arrays.items()})
        names.check_shapes(shapes, expected, origin=str(path))

    arrays, _ = state_dicts.read_safetensors(path, look)
    names.check(arrays, expected, origin=str(path))
    return Weights(config, {name: arrays[name].astype(np.float32, copy=False) for name in expected})


def check_vocabulary(weights: Weights, tokenizer: Tokenizer) -> None:
    """Raise ValueError unless the vocabulary and the padding token fit the text tower."""
    rows = next(weights.arrays[name].shape[0] for name in _WORDS if name in weights.arrays)
    if tokenizer.vocab_size != rows:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model {rows}: "
            "give the model's own vocabulary"
        )
    bert = weights.config["model"]["text_kind"] == "bert"
    if bert and isinstance(tokenizer, FastTokenizer) and tokenizer.pad_id != PAD_ID:
        raise ValueError(
            f"the tokenizer pads with the token {tokenizer.pad_id}, but BERT with {PAD_ID}"
        )
