"""What `vclip weights` and `vclip export` do: import, export, push.

Each function takes the parsed options of its command, see `__main__`.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vclip_jax.data.text import tokenizer_json
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.interop import folder, model_card
from vclip_jax.interop.export import FORMATS, hub, onnx, stablehlo, towers
from vclip_jax.interop.source import folder_of, read_folder
from vclip_jax.interop.systems import cn_clip, flair, hf_bert, hf_clip, open_clip
from vclip_jax.interop.weights import Weights
from vclip_jax.prompts import PromptSet, own


def import_weights(options: Namespace) -> None:
    source: Path = options.source
    if not source.exists():
        raise ValueError(f"there is no {source}: --source names a file or folder")
    folder.check_target(options.out, overwrite=options.overwrite)
    read = _system if options.format in ("hf_clip", "open_clip", "flair") else _model
    weights, tokenizer = read(options)
    origin = f"imported from {source.name} ({options.format})"
    folder.save(options.out, weights, tokenizer, origin=origin, overwrite=options.overwrite)
    portable = options.format == "safetensors" and source.is_dir()
    own.save(options.out, own.load(source) if portable else None)
    print(f"{options.out}: {weights.count:,} parameters")


def _system(options: Namespace) -> tuple[Weights, Tokenizer]:
    """One of the systems that VisionCLIP is compared with; none of them is Chinese."""
    source: Path = options.source
    beside = source if source.is_dir() else source.parent
    # The tokenizer first: it is quick to miss.
    tokenizer = tokenizer_json.import_tokenizer(options.vocab or beside)
    if options.format == "hf_clip":
        return hf_clip.load(source), tokenizer
    if options.format == "flair":
        return flair.load(source), tokenizer
    weights = open_clip.load(source, activation=options.activation)
    return weights, open_clip.with_cleaning(tokenizer, weights.config)


def _model(options: Namespace) -> tuple[Weights, Tokenizer]:
    """Chinese-CLIP, a BERT or one of ours."""
    source: Path = options.source
    if options.format == "safetensors" and source.is_dir() and options.vocab is None:
        return folder.load(source)
    beside = source if source.is_dir() else source.parent
    tokenizer: Tokenizer
    if options.format == "safetensors" and options.vocab is None:
        found = tokenizer_json.saved_tokenizer(beside)
        tokenizer = found if found is not None else _tokenizer(None, beside / folder.VOCAB)
    else:
        tokenizer = _tokenizer(options.vocab, beside / folder.VOCAB)
    if options.format == "cn_clip":
        return cn_clip.load(source), tokenizer
    if options.format == "hf_bert":
        return hf_bert.load(source), tokenizer
    path = source / folder.MODEL if source.is_dir() else source
    return folder.load_file_alone(path), tokenizer


def _tokenizer(vocab: str | None, beside: Path) -> WordPiece:
    if vocab is not None:
        return WordPiece.load(vocab)
    if not beside.is_file():
        raise ValueError(
            f"there is no {beside}: name the model's vocabulary by --vocab PATH, "
            "or --vocab hub:hfl/chinese-roberta-wwm-ext, which Chinese-CLIP uses"
        )
    return WordPiece.from_vocab(beside)


def export(options: Namespace) -> None:
    target: Path = options.out
    if options.format in FORMATS:
        towers.check_target(target, options.format, overwrite=options.overwrite)
    elif options.format == "safetensors":
        folder.check_target(target, overwrite=options.overwrite)
    elif target.is_dir() or (target.exists() and not options.overwrite):
        raise ValueError(f"{target} is there already: pass --overwrite to replace a file")
    source = folder_of(options.model)
    weights, tokenizer, step = read_folder(source, options.step)
    if step is not None:
        print(f"{options.model}: step {step}", file=sys.stderr)
    if options.format == "cn_clip":
        cn_clip.save(target, weights, step=step or 0)
        for note in cn_clip.notes(weights.config):
            print(f"note: {note}")
    else:
        prompts = own.load(source)
        text = _card(source, weights, tokenizer, step, prompts)
        saves: dict[str, Callable[..., Any]] = {
            "stablehlo": stablehlo.save,
            "onnx": onnx.save,
            "safetensors": folder.save,
        }
        save = saves[options.format]
        info = save(target, weights, tokenizer, card=text, overwrite=options.overwrite)
        own.save(target, prompts)
        for name, tower in (info or {}).get("towers", {}).items():
            error = tower["parity"]["max_abs_error"]
            print(f"{target / tower['file']}: the {name} tower, within {error:.1e} of the model")
    print(f"{target}: {weights.count:,} parameters")


def _card(
    source: Path,
    weights: Weights,
    tokenizer: Tokenizer,
    step: int | None,
    prompts: PromptSet | None,
) -> str:
    """The card that a portable folder has, which may have been edited; of a run, a new one."""
    if step is None:
        path = source / folder.CARD
        if path.is_file():
            return path.read_text("utf-8")
        return model_card.write(weights, tokenizer, f"exported from {source.name}", prompts=prompts)
    origin = f"exported from {source.name}, step {step}"
    run = model_card.read_saved_run(source, step)
    return model_card.write(weights, tokenizer, origin, run, prompts)


def push(options: Namespace) -> None:
    print(hub.push(options.model, options.repo, private=options.private))
