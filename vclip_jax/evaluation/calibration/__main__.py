"""Calibrate a model's answers to a prompt set: set a temperature and class offsets.

    vclip calibrate --model W --data-dir D idrid --prompts zh/idrid --shots 50 \\
        --out calibration.json
    vclip calibrate --model W photographs/ --prompts zh/fives --out calibration.json \\
        --prevalence 'normal=.6,amd=.05,dr=.25,glaucoma=.1'

With labels: name a built dataset. --shots of its labelled photographs are drawn at random, and
temperature and offsets are fitted on them. All figures are printed before and after, for the other
labelled photographs, or by cross-validation if few are left. If the classes are more or less
frequent where the model will be used, state their shares there with --at.

Without labels: name photographs, folders, lists (see vclip predict) or a built dataset, whose
labels are not used. Offsets are set that make the mean answer the --prevalence, which must be that
of these photographs. The command prints how far the answers depend on it.

vclip predict, eval and demo use calibration.json in the model's folder by default; name another
file with their --calibration. Not for diagnosis.
"""

import argparse
from collections.abc import Sequence

from vclip_jax.console import commands
from vclip_jax.data.choices import GATES
from vclip_jax.datasets.built import names_dataset
from vclip_jax.evaluation.calibration import FOLDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        commands.chosen_model(options)
        commands.keep_compiled()
        if options.at and options.prevalence:
            raise ValueError("--at is for a fit with labels: leave out --prevalence, or --at")
        if options.split is None:
            names_dataset(options.inputs, options.data_dir)
        if options.prompts not in (None, "labels"):
            from vclip_jax import prompts

            prompts.load(options.prompts)
        from vclip_jax.evaluation.calibration import experiment

        experiment.run(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip calibrate", description=__doc__)
    parser.add_argument(
        "inputs", nargs="+", metavar="DATASET", help="a built dataset, or photographs, see above"
    )
    commands.add_model(parser, default=True)
    parser.add_argument(
        "--data-dir", default="data", help="the folder of built datasets (default: data)"
    )
    parser.add_argument(
        "--split", help="the split of the dataset (default: test, or all without a test split)"
    )
    parser.add_argument(
        "--prompts",
        help="a prompt set or a JSON file (default: the model's own if they fit the dataset's "
        "classes, else zh/DATASET)",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--shots",
        type=_positive,
        metavar="N",
        help="the number of labelled photographs to draw at random (default: all)",
    )
    commands.add_prevalence(choice)
    parser.add_argument(
        "--at",
        type=commands.shares,
        metavar="CLASS=SHARE,...",
        help="with labels: the share of each class where the model will be used, if it is not that "
        "of the labelled photographs; one class may be left out and gets the rest",
    )
    commands.add_gate(parser, GATES)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the draws (default: 0)")
    parser.add_argument(
        "--folds",
        type=_positive,
        default=FOLDS,
        help=f"folds of a cross-validation (default: {FOLDS})",
    )
    parser.add_argument(
        "--cache", help="the cache of embeddings (default: .embeddings in the --data-dir)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the calibration file to write; entries for other prompts stay",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


if __name__ == "__main__":
    commands.start(main)
