"""The actions of `vclip weights` and `vclip export`: import, export, push and pack.

Each function takes the parsed options of its command, see `__main__`.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vclip_jax.data.text import tokenizer_json
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.files import packaged
from vclip_jax.files.foreign import check_inside, read_bytes
from vclip_jax.interop import folder, model_card
from vclip_jax.interop.export import FORMATS, hub, onnx, stablehlo, towers
from vclip_jax.interop.source import folder_of, read_folder
from vclip_jax.interop.systems import cn_clip, flair, hf_bert, hf_clip, open_clip
from vclip_jax.interop.weights import Weights, as_float16, digest
from vclip_jax.prompts import PromptSet, calibration, own
from vclip_jax.prompts.calibration import Calibration

MOST_CARD: Final = 4 << 20
"""The largest accepted model card in bytes."""


def import_weights(options: Namespace) -> None:
    """Write a portable folder with the weights of another system.

    Raises:
        ValueError, OSError: one line.
    """
    source: Path = options.source
    if not source.exists():
        raise ValueError(f"there is no {source}: --source names a file or folder")
    folder.check_target(options.out, overwrite=options.overwrite)
    read = _system if options.format in ("hf_clip", "open_clip", "flair") else _model
    weights, tokenizer = read(options)
    origin = f"imported from {source.name} ({options.format})"
    portable = options.format == "safetensors" and source.is_dir()
    folder.save(
        options.out,
        weights,
        tokenizer,
        origin=origin,
        prompts=own.load(source) if portable else None,
        calibrations=_calibrations(source, weights, tokenizer) if portable else (),
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {weights.count:,} parameters")


def _system(options: Namespace) -> tuple[Weights, Tokenizer]:
    """Read one of the systems that VisionCLIP is compared with; all of them are English."""
    source: Path = options.source
    folder_of_source = source if source.is_dir() else source.parent
    # Read the tokenizer first: a missing one is then noticed at once.
    tokenizer = tokenizer_json.import_tokenizer(options.vocab or folder_of_source)
    if options.format == "hf_clip":
        return hf_clip.load(source), tokenizer
    if options.format == "flair":
        return flair.load(source), tokenizer
    weights = open_clip.load(source, activation=options.activation)
    return weights, open_clip.with_cleaning(tokenizer, weights.config)


def _model(options: Namespace) -> tuple[Weights, Tokenizer]:
    """Read a Chinese-CLIP, a BERT or a model of this package."""
    source: Path = options.source
    if options.format == "safetensors" and source.is_dir() and options.vocab is None:
        return folder.load(source)
    folder_of_source = source if source.is_dir() else source.parent
    vocabulary = folder_of_source / folder.VOCAB
    tokenizer: Tokenizer
    if options.format == "safetensors" and options.vocab is None:
        saved = tokenizer_json.saved_tokenizer(folder_of_source)
        tokenizer = saved if saved is not None else _tokenizer(None, vocabulary)
    else:
        tokenizer = _tokenizer(options.vocab, vocabulary)
    if options.format == "cn_clip":
        return cn_clip.load(source), tokenizer
    if options.format == "hf_bert":
        return hf_bert.load(source), tokenizer
    path = source / folder.MODEL if source.is_dir() else source
    return folder.load_file_alone(path), tokenizer


def _tokenizer(vocab: str | None, default: Path) -> WordPiece:
    if vocab is not None:
        return WordPiece.load(vocab)
    if not default.is_file():
        raise ValueError(
            f"there is no {default}: name the model's vocabulary by --vocab PATH, "
            "or --vocab hub:hfl/chinese-roberta-wwm-ext, which Chinese-CLIP uses"
        )
    return WordPiece.from_vocab(default)


def export(options: Namespace) -> None:
    """Write a trained model in another format.

    Raises:
        ValueError, OSError: one line.
    """
    target: Path = options.out
    half = options.dtype == "float16"
    if half and options.format != "safetensors":
        raise ValueError(f"--dtype float16 is for --format safetensors, not {options.format}")
    if options.format in FORMATS:
        towers.check_target(target, options.format, overwrite=options.overwrite)
    elif options.format == "safetensors":
        folder.check_target(target, overwrite=options.overwrite)
    elif target.is_dir() or (target.exists() and not options.overwrite):
        raise ValueError(f"{target} exists already: pass --overwrite to replace a file")
    source = folder_of(options.model)
    weights, tokenizer, step = read_folder(source, options.step)
    if step is not None:
        print(f"{options.model}: step {step}", file=sys.stderr)
    if half:
        weights = as_float16(weights)
    if options.format == "cn_clip":
        cn_clip.save(target, weights, step=step or 0)
        for note in cn_clip.notes(weights.config):
            print(f"note: {note}")
    else:
        prompts = own.load(source)
        calibrations = _calibrations(source, weights, tokenizer)
        text = _card(source, weights, tokenizer, step, prompts, calibrations)
        saves: dict[str, Callable[..., Any]] = {
            "stablehlo": stablehlo.save,
            "onnx": onnx.save,
            "safetensors": folder.save,
        }
        save = saves[options.format]
        info = save(
            target,
            weights,
            tokenizer,
            card=text,
            prompts=prompts,
            calibrations=calibrations,
            overwrite=options.overwrite,
        )
        for name, tower in (info or {}).get("towers", {}).items():
            error = tower["parity"]["max_abs_error"]
            print(f"{target / tower['file']}: the {name} tower, within {error:.1e} of the model")
    print(f"{target}: {weights.count:,} parameters")


def _calibrations(source: Path, weights: Weights, tokenizer: Tokenizer) -> tuple[Calibration, ...]:
    """Return the calibrations in a model's folder, without those for another step."""
    found = calibration.beside(source)
    if found and found[0].model != digest(weights.config, weights.arrays, tokenizer):
        print(f"note: {source / calibration.FILE} is for other weights: left out")
        return ()
    return found


def _card(
    source: Path,
    weights: Weights,
    tokenizer: Tokenizer,
    step: int | None,
    prompts: PromptSet | None,
    calibrations: Sequence[Calibration],
) -> str:
    """Return the card of a portable folder, which may have been edited, or a new card of a run."""
    if step is None:
        path = source / folder.CARD
        if path.is_file():
            check_inside(path)
            text = model_card.with_dtype(_text(path), weights)
            return model_card.with_calibrations(text, calibrations)
        origin = f"exported from {source.name}"
        return model_card.write(weights, tokenizer, origin, None, prompts, calibrations)
    origin = f"exported from {source.name}, step {step}"
    run = model_card.read_saved_run(source, step)
    return model_card.write(weights, tokenizer, origin, run, prompts, calibrations)


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MOST_CARD).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def push(options: Namespace) -> None:
    """Upload a portable folder to the Hub and print the commit's address.

    Raises:
        ValueError, OSError: one line.
    """
    print(hub.push(options.model, options.repo, private=options.private))


def pack(options: Namespace) -> None:
    """Make a portable folder a packaged model of this installation, see `files.packaged`.

    Raises:
        ValueError, OSError: one line: the folder is not portable, or cannot be copied.
    """
    weights, _ = folder.load(options.model)
    target = packaged.pack(options.model, options.packaged_name)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {weights.count:,} parameters, {size / 2**20:.1f} MiB")
