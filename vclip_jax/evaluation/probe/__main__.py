"""What a few labelled photographs add: probes and adapters on frozen embeddings, and retrieval.

    vclip probe --model W --dataset fives --data-dir D \\
        --method zero_shot,linear,clip_adapter,tip_adapter,tip_adapter_f --shots 1,2,4,8,16,all
    vclip probe --model W --dataset synfundus --data-dir D \\
        --method retrieval

Every fold draws its own k photographs of each class from the training split; all folds are scored
on the whole test split, and the table shows their mean and standard deviation. Images are embedded
once and kept (`vclip_jax.predict.embeddings`). A dataset with one split is cut in TFDS's notation:
--train-split 'test[:50%]' --test-split 'test[50%:]'. Not for diagnosis.
"""

import argparse
from collections.abc import Sequence

from vclip_jax.console import commands
from vclip_jax.evaluation.probe import INVERSE_PENALTY, METHODS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        from vclip_jax.evaluation.probe import experiment

        experiment.run(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip probe", description=__doc__)
    commands.add_model(parser)
    parser.add_argument("--dataset", required=True, help="a built dataset, NAME or NAME/CONFIG")
    parser.add_argument("--data-dir", default="data", help="where it was built (default: data)")
    parser.add_argument(
        "--method",
        type=_methods,
        default=("zero_shot", "linear"),
        help=f"of {', '.join(METHODS)}, several with commas; or retrieval alone "
        "(default: zero_shot,linear)",
    )
    parser.add_argument(
        "--shots",
        type=_shots,
        default=(1, 2, 4, 8, 16, None),
        help="images of a class, several with commas (default: 1,2,4,8,16,all)",
    )
    parser.add_argument("--folds", type=_positive, default=5, help="(default: 5)")
    parser.add_argument("--train-split", default="train", help="(default: train)")
    parser.add_argument("--test-split", default="test", help="(default: test)")
    parser.add_argument(
        "--prompts",
        help="a prompt set or a JSON file, for all but linear (default: the model's own if they "
        "are for the dataset's classes, else zh/DATASET)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--C",
        type=float,
        default=INVERSE_PENALTY,
        dest="inverse_penalty",
        help=f"inverse penalty of the linear probe (default: {INVERSE_PENALTY})",
    )
    parser.add_argument("--cache", help="of embeddings (default: .embeddings in the --data-dir)")
    parser.add_argument("--out", help="folder for probe.json or retrieval.json")
    return parser


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if names == ("retrieval",):
        return names
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is none of {', '.join(METHODS)}, or retrieval alone"
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
