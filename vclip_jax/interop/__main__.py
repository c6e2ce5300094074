"""Weights of other systems into a portable folder, and models of ours out.

python -m vclip_jax.interop import --format cn_clip --source clip_cn_rn50.pt --workdir W
python -m vclip_jax.interop export --format cn_clip --source W --target rn50.pt
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.interop import cn_clip, folder, hf_bert, workdir
from vclip_jax.interop.weights import Weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vclip_jax.interop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True)

    importing = commands.add_parser("import", help="make a portable folder of somebody's weights")
    importing.add_argument(
        "--format", required=True, choices=("cn_clip", "hf_bert", "safetensors"),
        help="Chinese-CLIP's .pt; a folder with a BERT of Hugging Face (the text tower alone); "
        "our own model.safetensors or portable folder",
    )  # fmt: skip
    importing.add_argument("--source", required=True, type=Path, help="the file or folder")
    importing.add_argument("--workdir", required=True, type=Path, help="the folder to write")
    importing.add_argument(
        "--vocab", help="vocab.txt or hub:REPOSITORY (default: vocab.txt beside the source)"
    )
    importing.set_defaults(run=_import)

    exporting = commands.add_parser("export", help="write a model of ours for others")
    exporting.add_argument(
        "--format", required=True, choices=("cn_clip", "safetensors"),
        help="a .pt for Chinese-CLIP; a portable folder",
    )  # fmt: skip
    exporting.add_argument(
        "--source", required=True, type=Path, help="a training run's workdir or a portable folder"
    )
    exporting.add_argument("--target", required=True, type=Path, help="the file or folder to write")
    exporting.set_defaults(run=_export)

    for command in (importing, exporting):
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
    return parser


def _import(options: argparse.Namespace) -> None:
    source: Path = options.source
    if not source.exists():
        raise ValueError(f"there is no {source}: --source names a file or folder")
    folder.check_target(options.workdir, overwrite=options.overwrite)
    beside = source if source.is_dir() else source.parent
    tokenizer = _tokenizer(options.vocab, beside / folder.VOCAB)
    if options.format == "cn_clip":
        weights = cn_clip.load(source)
    elif options.format == "hf_bert":
        weights = hf_bert.load(source)
    elif source.is_dir() and options.vocab is None:
        weights, tokenizer = folder.load(source)
    else:
        weights = folder.load_file_alone(source / folder.MODEL if source.is_dir() else source)
    origin = f"imported from {source.name} ({options.format})"
    folder.save(options.workdir, weights, tokenizer, origin=origin, overwrite=options.overwrite)
    print(f"{options.workdir}: {weights.count:,} parameters")


def _tokenizer(vocab: str | None, beside: Path) -> Tokenizer:
    if vocab is not None:
        return Tokenizer.load(vocab)
    if not beside.is_file():
        raise ValueError(
            f"there is no {beside}: name the model's vocabulary by --vocab PATH, "
            "or --vocab hub:hfl/chinese-roberta-wwm-ext, which Chinese-CLIP uses"
        )
    return Tokenizer.from_vocab(beside)


def _export(options: argparse.Namespace) -> None:
    target: Path = options.target
    if options.format == "safetensors":
        folder.check_target(target, overwrite=options.overwrite)
    elif target.is_dir() or (target.exists() and not options.overwrite):
        raise ValueError(f"{target} is there already: pass --overwrite to replace a file")
    weights, tokenizer, step = _load(options.source)
    if options.format == "safetensors":
        origin = f"exported from {options.source.name}" + (f", step {step}" if step else "")
        folder.save(target, weights, tokenizer, origin=origin, overwrite=options.overwrite)
    else:
        cn_clip.save(target, weights, step=step)
        for note in cn_clip.notes(weights.config):
            print(f"note: {note}")
    print(f"{target}: {weights.count:,} parameters")


def _load(source: Path) -> tuple[Weights, Tokenizer, int]:
    if (source / folder.MODEL).is_file():
        return *folder.load(source), 0
    return workdir.load(source)


if __name__ == "__main__":
    sys.exit(main())
