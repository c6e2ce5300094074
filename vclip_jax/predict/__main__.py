"""Classify photographs with a prompt set (words for each class).

    vclip predict photo.jpg
    vclip predict --model W photo.jpg folder/ more.csv
    find . -name '*.jpg' | vclip predict --model W --prompts zh/messidor -
    vclip predict --model W --explain heat/ photo.jpg
    vclip predict --model W --prevalence 'normal=.6,amd=.05,dr=.25,glaucoma=.1' folder/

An input is an image, a folder (searched for images, subfolders and links included), a list (.csv,
.tsv, .xlsx, .jsonl or .parquet with a column `image`; paths are relative to the list's folder), or
- for paths on standard input. Without --model, the model that comes with the package answers.
Without --prompts or --prompt, the model's own prompts are used. With
--explain, a copy of each image is written with a heat map: colours mark the places that favour the
predicted class over the others.

The gate refuses a picture that is not a fundus photograph, or that is too poor to judge, and prints
the reason beside the answer (--gate). Answers are calibrated by calibration.json beside the model,
by --calibration FILE, or by a stated --prevalence of the classes among these photographs. Not for
diagnosis.
"""

import sys
from collections.abc import Sequence

from vclip_jax.console import commands
from vclip_jax.data.choices import GATES
from vclip_jax.files.foreign import check_paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 1 if an image or anything else failed."""
    options = _parser().parse_args(arguments)

    def run() -> int:
        commands.chosen_model(options)
        commands.keep_compiled()
        check_paths(options.images)
        if options.prompts is not None:
            from vclip_jax import prompts

            prompts.load(options.prompts)
        from vclip_jax.predict import classify

        failed = classify.run(options, sys.stdout)
        if failed:
            print(f"{failed} of the images could not be read", file=sys.stderr)
        return 1 if failed else 0

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip predict", description=__doc__)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="an image, a folder, a list, or -; see above"
    )
    commands.add_model(parser, default=True)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--prompts", help="a prompt set or a JSON file (default: the model's own)")
    choice.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="a phrase that stands for a class; give one --prompt for each class",
    )
    parser.add_argument(
        "--format",
        choices=("table", "jsonl", "csv"),
        default="table",
        help="format of the output (default: table)",
    )
    parser.add_argument(
        "--explain", metavar="DIR", help="write each image with a heat map over it into this folder"
    )
    commands.add_prevalence(commands.add_calibration(parser))
    commands.add_gate(parser, GATES)
    return parser


if __name__ == "__main__":
    commands.start(main)
