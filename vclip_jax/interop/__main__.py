"""Weights of other systems into a portable folder, and models of ours out and to the Hub.

python -m vclip_jax.interop import --format cn_clip --source clip_cn_rn50.pt --workdir W
python -m vclip_jax.interop export --format cn_clip --source W --target rn50.pt
python -m vclip_jax.interop export --format stablehlo --source W --target F
python -m vclip_jax.interop push --source F --repo OWNER/NAME
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vclip_jax.console import terminal
from vclip_jax.data.text import tokenizer_json
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.files.foreign import shown
from vclip_jax.interop import folder, model_card
from vclip_jax.interop.export import hub, onnx, stablehlo, towers
from vclip_jax.interop.source import load_weights
from vclip_jax.interop.systems import cn_clip, flair, hf_bert, hf_clip, open_clip
from vclip_jax.interop.weights import Weights
from vclip_jax.prompts import PromptSet, own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(
        prog="python -m vclip_jax.interop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True)

    importing = commands.add_parser("import", help="make a portable folder of somebody's weights")
    importing.add_argument(
        "--format", required=True,
        choices=("cn_clip", "hf_clip", "open_clip", "flair", "hf_bert", "safetensors"),
        help="Chinese-CLIP's .pt; a folder with a CLIPModel of Hugging Face; open_clip's file or "
        "folder (CLIP's ViT and RN50, BiomedCLIP); FLAIR's .pth; a folder with a BERT of Hugging "
        "Face (the text tower alone); our own model.safetensors or portable folder",
    )  # fmt: skip
    importing.add_argument("--source", required=True, type=Path, help="the file or folder")
    importing.add_argument("--workdir", required=True, type=Path, help="the folder to write")
    importing.add_argument(
        "--vocab", help="the tokenizer: vocab.txt or hub:REPOSITORY; of hf_clip, open_clip and "
        "flair tokenizer.json, vocab.json, bpe_simple_vocab_16e6.txt.gz or vocab.txt, or a folder "
        "with one (default: beside the source)",
    )  # fmt: skip
    importing.add_argument(
        "--activation", choices=("quick_gelu", "gelu"),
        help="of an open_clip file without open_clip_config.json beside it: OpenAI's weights have "
        "quick_gelu, most others gelu",
    )  # fmt: skip
    importing.set_defaults(run=_import)

    exporting = commands.add_parser("export", help="write a model of ours for others")
    exporting.add_argument(
        "--format", required=True, choices=("cn_clip", "safetensors", *towers.FORMATS),
        help="a .pt for Chinese-CLIP; a portable folder; a portable folder with both towers as "
        "StableHLO (for cpu, cuda and tpu) or as ONNX, for programs without this package",
    )  # fmt: skip
    exporting.add_argument(
        "--source", required=True, type=Path, help="a training run's workdir or a portable folder"
    )
    exporting.add_argument(
        "--step", default="latest",
        help="of a run: latest (default), best (by its config.keep_best) or a number",
    )  # fmt: skip
    exporting.add_argument("--target", required=True, type=Path, help="the file or folder to write")
    exporting.set_defaults(run=_export)

    pushing = commands.add_parser("push", help="a portable folder to the Hugging Face Hub")
    pushing.add_argument("--source", required=True, type=Path, help="the portable folder")
    pushing.add_argument("--repo", required=True, help="OWNER/NAME, made if it is not there")
    pushing.add_argument("--private", action="store_true", help="only with access to it seen")
    pushing.set_defaults(run=_push)

    for command in (importing, exporting):
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
    return parser


def _import(options: argparse.Namespace) -> None:
    source: Path = options.source
    if not source.exists():
        raise ValueError(f"there is no {source}: --source names a file or folder")
    folder.check_target(options.workdir, overwrite=options.overwrite)
    read = _system if options.format in ("hf_clip", "open_clip", "flair") else _model
    weights, tokenizer = read(options)
    origin = f"imported from {source.name} ({options.format})"
    folder.save(options.workdir, weights, tokenizer, origin=origin, overwrite=options.overwrite)
    portable = options.format == "safetensors" and source.is_dir()
    own.save(options.workdir, own.load(source) if portable else None)
    print(f"{options.workdir}: {weights.count:,} parameters")


def _system(options: argparse.Namespace) -> tuple[Weights, Tokenizer]:
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


def _model(options: argparse.Namespace) -> tuple[Weights, Tokenizer]:
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


def _export(options: argparse.Namespace) -> None:
    target: Path = options.target
    if options.format in towers.FORMATS:
        towers.check_target(target, options.format, overwrite=options.overwrite)
    elif options.format == "safetensors":
        folder.check_target(target, overwrite=options.overwrite)
    elif target.is_dir() or (target.exists() and not options.overwrite):
        raise ValueError(f"{target} is there already: pass --overwrite to replace a file")
    weights, tokenizer, step = load_weights(options.source, options.step)
    if step is not None:
        print(f"{options.source}: step {step}", file=sys.stderr)
    if options.format == "cn_clip":
        cn_clip.save(target, weights, step=step or 0)
        for note in cn_clip.notes(weights.config):
            print(f"note: {note}")
    else:
        prompts = own.load(options.source)
        text = _card(options.source, weights, tokenizer, step, prompts)
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
    return model_card.write(
        weights, tokenizer, origin, model_card.read_training_run(source, step), prompts
    )


def _push(options: argparse.Namespace) -> None:
    print(hub.push(options.source, options.repo, private=options.private))


if __name__ == "__main__":
    terminal.prepare()
    sys.exit(main())
