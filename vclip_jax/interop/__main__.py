"""Import the weights of other systems, export trained models, and push models to the Hub.

    vclip weights import --format cn_clip --source clip_cn_rn50.pt --out F
    vclip weights push --model F --repo OWNER/NAME
    vclip weights pack --model F
    vclip export --format cn_clip --model W --out rn50.pt
    vclip export --format safetensors --dtype float16 --model W --out F
    vclip export --format stablehlo --model W --out F

--source is a downloaded file or folder of another system; --model is a model of this package: a
run's workdir, or a portable folder (F above), which holds weights, vocabulary and model card.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from vclip_jax.console import commands
from vclip_jax.files import packaged
from vclip_jax.interop.export import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `vclip weights` and return the exit status."""
    return _run(_parser().parse_args(arguments))


def export(arguments: Sequence[str] | None = None) -> int:
    """Run `vclip export` and return the exit status."""
    return _run(_export_parser().parse_args(arguments))


def _run(options: Namespace) -> int:
    def run() -> None:
        if "model" in options:
            commands.chosen_model(options)
        from vclip_jax.interop import actions

        getattr(actions, options.action)(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip weights", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True)

    importing = actions.add_parser(
        "import", help="write a portable folder with the weights of another system"
    )
    importing.add_argument(
        "--format",
        required=True,
        choices=("cn_clip", "hf_clip", "open_clip", "flair", "hf_bert", "safetensors"),
        help="format of --source. cn_clip: Chinese-CLIP's .pt; hf_clip: a folder with a CLIPModel "
        "of Hugging Face; open_clip: a file or folder of open_clip (CLIP's ViT and RN50, "
        "BiomedCLIP); flair: FLAIR's .pth; hf_bert: a folder with a BERT of Hugging Face (only "
        "the text tower); safetensors: this package's model.safetensors or portable folder",
    )
    importing.add_argument(
        "--source", required=True, type=Path, help="the downloaded file or folder"
    )
    importing.add_argument(
        "--out", old=["--workdir"], required=True, type=Path, help="the portable folder to write"
    )
    importing.add_argument(
        "--vocab",
        help="the tokenizer: vocab.txt or hub:REPOSITORY; for hf_clip, open_clip and flair "
        "tokenizer.json, vocab.json, bpe_simple_vocab_16e6.txt.gz or vocab.txt, or a folder with "
        "one of them (default: the one next to --source)",
    )
    importing.add_argument(
        "--activation",
        choices=("quick_gelu", "gelu"),
        help="the model's activation, needed for open_clip files without an "
        "open_clip_config.json next to them: quick_gelu for OpenAI's weights, gelu for most others",
    )
    _add_overwrite(importing)
    importing.set_defaults(action="import_weights")

    _add_export(actions.add_parser("export", help="the same as `vclip export`"))

    pushing = actions.add_parser("push", help="upload a portable folder to the Hugging Face Hub")
    pushing.add_argument(
        "--model", old=["--source"], required=True, type=Path, help="the portable folder to upload"
    )
    pushing.add_argument(
        "--repo", required=True, help="the repository, OWNER/NAME; created if it does not exist"
    )
    pushing.add_argument("--private", action="store_true", help="create a private repository")
    pushing.set_defaults(action="push")

    packing = actions.add_parser(
        "pack", help="copy a portable folder into this package, where its name loads it"
    )
    packing.add_argument(
        "--model", required=True, type=Path, help="the portable folder to copy, whole"
    )
    packing.add_argument(
        "--as",
        dest="packaged_name",
        metavar="NAME",
        default=packaged.DEFAULT,
        help="the name of the packaged model, which is added or replaced "
        f"(default: {packaged.DEFAULT})",
    )
    packing.set_defaults(action="pack")
    return parser


def _export_parser() -> commands.Parser:
    parser = commands.Parser(
        prog="vclip export", description="Write a trained model for other programs."
    )
    _add_export(parser)
    return parser


def _add_export(parser: commands.Parser) -> None:
    parser.add_argument(
        "--format",
        required=True,
        choices=("cn_clip", "safetensors", *FORMATS),
        help="cn_clip: a .pt for Chinese-CLIP; safetensors: a portable folder; stablehlo, onnx: a "
        "portable folder that also has both towers as StableHLO (for cpu, cuda and tpu) or ONNX, "
        "for programs without this package",
    )
    commands.add_model(parser, old="--source")
    parser.add_argument(
        "--out", old=["--target"], required=True, type=Path, help="the file or folder to write"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="dtype of the weights in a safetensors folder: float16 halves the file, and loading "
        "makes the weights float32 again (default: float32)",
    )
    _add_overwrite(parser)
    parser.set_defaults(action="export")


def _add_overwrite(parser: commands.Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


if __name__ == "__main__":
    commands.start(main)
