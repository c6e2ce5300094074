"""Weights of other systems into a portable folder, and models of ours out and to the Hub.

    vclip weights import --format cn_clip --source clip_cn_rn50.pt --out F
    vclip weights push --model F --repo OWNER/NAME
    vclip export --format cn_clip --model W --out rn50.pt
    vclip export --format stablehlo --model W --out F

--source is what was downloaded, --model one of ours: a workdir or a portable folder.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from vclip_jax.console import commands
from vclip_jax.interop.export import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `vclip weights`; returns the exit status."""
    return _run(_parser().parse_args(arguments))


def export(arguments: Sequence[str] | None = None) -> int:
    """Run `vclip export`; returns the exit status."""
    return _run(_export_parser().parse_args(arguments))


def _run(options: Namespace) -> int:
    def run() -> None:
        from vclip_jax.interop import actions

        getattr(actions, options.action)(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip weights", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True)

    importing = actions.add_parser("import", help="make a portable folder of somebody's weights")
    importing.add_argument(
        "--format",
        required=True,
        choices=("cn_clip", "hf_clip", "open_clip", "flair", "hf_bert", "safetensors"),
        help="Chinese-CLIP's .pt; a folder with a CLIPModel of Hugging Face; open_clip's file or "
        "folder (CLIP's ViT and RN50, BiomedCLIP); FLAIR's .pth; a folder with a BERT of Hugging "
        "Face (the text tower alone); our own model.safetensors or portable folder",
    )
    importing.add_argument("--source", required=True, type=Path, help="the file or folder")
    importing.add_argument(
        "--out", old=["--workdir"], required=True, type=Path, help="the folder to write"
    )
    importing.add_argument(
        "--vocab",
        help="the tokenizer: vocab.txt or hub:REPOSITORY; of hf_clip, open_clip and "
        "flair tokenizer.json, vocab.json, bpe_simple_vocab_16e6.txt.gz or vocab.txt, or a folder "
        "with one (default: beside the source)",
    )
    importing.add_argument(
        "--activation",
        choices=("quick_gelu", "gelu"),
        help="of an open_clip file without open_clip_config.json beside it: OpenAI's weights have "
        "quick_gelu, most others gelu",
    )
    _add_overwrite(importing)
    importing.set_defaults(action="import_weights")

    _add_export(actions.add_parser("export", help="the same as vclip export"))

    pushing = actions.add_parser("push", help="a portable folder to the Hugging Face Hub")
    pushing.add_argument(
        "--model", old=["--source"], required=True, type=Path, help="the portable folder"
    )
    pushing.add_argument("--repo", required=True, help="OWNER/NAME, made if it is not there")
    pushing.add_argument("--private", action="store_true", help="only with access to it seen")
    pushing.set_defaults(action="push")
    return parser


def _export_parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip export", description="Write a model of ours for others.")
    _add_export(parser)
    return parser


def _add_export(parser: commands.Parser) -> None:
    parser.add_argument(
        "--format",
        required=True,
        choices=("cn_clip", "safetensors", *FORMATS),
        help="a .pt for Chinese-CLIP; a portable folder; a portable folder with both towers as "
        "StableHLO (for cpu, cuda and tpu) or as ONNX, for programs without this package",
    )
    commands.add_model(parser, old="--source")
    parser.add_argument(
        "--out", old=["--target"], required=True, type=Path, help="the file or folder to write"
    )
    _add_overwrite(parser)
    parser.set_defaults(action="export")


def _add_overwrite(parser: commands.Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


if __name__ == "__main__":
    commands.start(main)
