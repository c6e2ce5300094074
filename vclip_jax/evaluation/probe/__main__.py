"""Measure what a few labelled photographs add: probes and adapters on frozen embeddings; retrieval.

    vclip probe --model W --dataset fives --data-dir D \\
        --method zero_shot,linear,clip_adapter,tip_adapter,tip_adapter_f --shots 1,2,4,8,16,all
    vclip probe --model W --dataset synfundus --data-dir D \\
        --method retrieval

Each fold draws k photographs of each class (the shots) from the training split and is scored on the
whole test split; the table shows mean and standard deviation over the folds. Images are embedded
once and cached. A dataset with a single split can be cut in TFDS's notation:
--train-split 'test[:50%]' --test-split 'test[50%:]'. Not for diagnosis.
"""

import argparse
from collections.abc import Sequence

from vclip_jax.console import commands
from vclip_jax.datasets.built import find_dataset
from vclip_jax.evaluation.probe import INVERSE_PENALTY, METHODS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        commands.chosen_model(options)
        commands.keep_compiled()
        find_dataset(options.dataset, options.data_dir)
        if options.prompts not in (None, "labels"):
            from vclip_jax import prompts

            prompts.load(options.prompts)
        from vclip_jax.evaluation.probe import experiment

        experiment.run(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip probe", description=__doc__)
    commands.add_model(parser, default=True)
    parser.add_argument("--dataset", required=True, help="a built dataset, NAME or NAME/CONFIG")
    parser.add_argument(
        "--data-dir", default="data", help="the folder of built datasets (default: data)"
    )
    parser.add_argument(
        "--method",
        type=_methods,
        default=("zero_shot", "linear"),
        help=f"methods, separated by commas, of {', '.join(METHODS)}; or only retrieval "
        "(default: zero_shot,linear)",
    )
    parser.add_argument(
        "--shots",
        type=_shots,
        default=(1, 2, 4, 8, 16, None),
        help="training images of each class, separated by commas (default: 1,2,4,8,16,all)",
    )
    parser.add_argument(
        "--folds", type=_positive, default=5, help="how often to draw the shots (default: 5)"
    )
    parser.add_argument(
        "--train-split", default="train", help="split to draw the shots from (default: train)"
    )
    parser.add_argument("--test-split", default="test", help="split to score (default: test)")
    parser.add_argument(
        "--prompts",
        help="a prompt set or a JSON file, for all methods but linear (default: the model's own if "
        "they fit the dataset's classes, else zh/DATASET)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the shots and of the adapters' initial weights (default: 0)",
    )
    parser.add_argument(
        "--C",
        type=float,
        default=INVERSE_PENALTY,
        dest="inverse_penalty",
        help="inverse of the linear probe's L2 penalty, as C in scikit-learn "
        f"(default: {INVERSE_PENALTY})",
    )
    parser.add_argument(
        "--cache", help="folder of cached embeddings (default: .embeddings in --data-dir)"
    )
    parser.add_argument("--out", help="folder to write probe.json or retrieval.json to")
    return parser


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if names == ("retrieval",):
        return names
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is none of {', '.join(METHODS)}, and retrieval must be alone"
        )
    return names


def _shots(text: str) -> tuple[int | None, ...]:
    return tuple(None if item == "all" else _positive(item) for item in text.split(","))


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
