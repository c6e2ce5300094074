"""The portable folder: a model that needs no other file of the run that made it.

model.safetensors   the weights by dotted name, with the configuration in the metadata; float32,
                    or float16 for matrices and kernels (`weights.as_float16`)
config.json         the same configuration, see `weights.complete_config`
vocab.txt           the tokeniser's vocabulary, one token a line; or `tokenizer.json`, see
                    `data.text.tokenizer_json`, if the tokenizer is CLIP's or an English BERT's
README.md           a model card
prompts.json        the model's default prompts, see `prompts.own`, if they are known
calibration.json    the calibrations of its answers, see `prompts.calibration`, if there are any
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.tokenizer_json import TOKENIZER, VOCAB, FastTokenizer, saved_tokenizer
from vclip_jax.files.foreign import cleared, parse_json, read_json
from vclip_jax.interop import names
from vclip_jax.interop.model_card import write as write_card
from vclip_jax.interop.systems import state_dicts
from vclip_jax.interop.weights import Weights, complete_config, expected_in
from vclip_jax.models.bert import PAD_ID
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import FILE as CALIBRATION
from vclip_jax.prompts.calibration import Calibration
from vclip_jax.prompts.calibration import keep as keep_calibrations
from vclip_jax.prompts.own import FILE as PROMPTS
from vclip_jax.prompts.own import save as save_prompts

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (MODEL, CONFIG, VOCAB, CARD)
POSSIBLE_FILES = (*FILES, TOKENIZER, PROMPTS, CALIBRATION)
METADATA_KEY = "vclip_jax"
_NEW = ".new"
"""The subfolder with the complete files of a new model, until they are moved."""
_WORDS = ("bert.embeddings.word_embeddings.embedding", "text.token_embedding.embedding")


def save(
    folder: str | Path,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    origin: str = "",
    card: str | None = None,
    prompts: PromptSet | None = None,
    calibrations: Sequence[Calibration] = (),
    overwrite: bool = False,
) -> None:
    """Write a model as a portable folder, see `replaced`.

    Args:
        folder: the folder, made if it does not exist.
        weights: the weights of both towers, or of only the text tower, in the dtypes to store.
        tokenizer: a tokenizer with as many tokens as the text tower has embeddings.
        origin: the source of the weights in a few words, for the model card.
        card: the model card, see `interop.model_card`; None for a card that states only the
            origin.
        prompts: the prompts that the model is asked by default, or None.
        calibrations: the calibrations of the model's answers.
        overwrite: replace an existing model.

    Raises:
        ValueError: one line: a file exists already, the folder is a training run's, or the
            vocabulary is another model's.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_target(folder, overwrite=overwrite)
    check_vocabulary(weights, tokenizer)
    text = card if card is not None else write_card(weights, tokenizer, origin)
    with replaced(folder) as part:
        write(part, weights, tokenizer, text, prompts, calibrations)


def write(
    part: Path,
    weights: Weights,
    tokenizer: Tokenizer,
    card: str,
    prompts: PromptSet | None,
    calibrations: Sequence[Calibration],
) -> None:
    """Write the files of a portable folder into an empty one."""
    path = part / MODEL
    path.touch()
    mode = path.stat().st_mode
    # save_file ignores strides, so arrays must be contiguous.
    arrays = {name: np.asarray(array, order="C") for name, array in weights.arrays.items()}
    save_file(arrays, path, {METADATA_KEY: json.dumps(weights.config)})
    path.chmod(mode)  # safetensors makes files that only their owner can read
    config = json.dumps(weights.config, indent=1, ensure_ascii=False) + "\n"
    (part / CONFIG).write_text(config, "utf-8")
    tokenizer.save(part / tokenizer.file_name)
    (part / CARD).write_text(card, "utf-8")
    save_prompts(part, prompts)
    keep_calibrations(part, calibrations)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for a model's files, which replace those of `folder` all together.

    If the block raises, or the process is killed before the end of the block, the old model stays.
    After the end of the block the new model counts, even if the process is killed while the files
    are moved: see `complete`. Files of other names stay as they are.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    complete(folder)
    part = folder / f"{_NEW}.part"
    # Remove the rest of a killed call, and never follow a link in a folder from elsewhere.
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    cleared(part).mkdir()
    cleared(folder / _NEW)
    try:
        yield part
        part.rename(folder / _NEW)
    finally:
        if part.exists():
            shutil.rmtree(part)
            if made:
                folder.rmdir()
    complete(folder)


def complete(folder: Path) -> None:
    """Finish a call of `replaced` that was killed while it moved the new files.

    Raises:
        OSError: a file cannot be moved.
    """
    new = folder / _NEW
    if new.is_symlink() or not new.is_dir():
        return
    names = {path.name for path in new.iterdir()}
    if CONFIG in names:  # the first file to move: the old model is still whole
        for name in {*POSSIBLE_FILES} - names:
            (folder / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: (name != CONFIG, name)):
        (new / name).replace(folder / name)
    new.rmdir()


def is_portable(folder: Path) -> bool:
    """Return whether a folder is a portable folder."""
    complete(folder)
    return (folder / MODEL).is_file()


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise ValueError if `save` must not write to a folder."""
    complete(folder)
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
    complete(folder)
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
