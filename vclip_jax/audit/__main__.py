"""Find near-duplicates between two built datasets: pictures that show the same eye.

    vclip audit synfundus messidor --data-dir D --out FOLDER

Prints how many pictures of B have a near-duplicate in A. --out writes a list of all pairs and a
page with the closest ones. Perceptual hashes find them and, with --model, embeddings.
"""

from collections.abc import Sequence
from pathlib import Path

from vclip_jax.audit import COSINE, DISTANCE
from vclip_jax.console import commands
from vclip_jax.datasets.built import find_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        for name in (options.a, options.b):
            find_dataset(name, options.data_dir)
        if options.model is not None:
            commands.chosen_model(options)
        from vclip_jax.audit import findings

        findings.run(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip audit", description=__doc__)
    parser.add_argument("a", metavar="A", help="the training dataset: NAME or NAME/CONFIG")
    parser.add_argument("b", metavar="B", help="the evaluation dataset, or the same one again")
    parser.add_argument("--data-dir", required=True, help="the folder of built datasets")
    parser.add_argument(
        "--split-a", default="train", help="split of A, in TFDS's notation (default: train)"
    )
    parser.add_argument(
        "--split-b", default="test", help="split of B, in TFDS's notation (default: test)"
    )
    parser.add_argument(
        "--distance",
        type=int,
        default=DISTANCE,
        help="largest number of bits, of 256, in which the hashes of a pair may differ "
        f"(default: {DISTANCE})",
    )
    commands.add_model(parser, "also compare the embeddings of this model: ", required=False)
    parser.add_argument(
        "--cosine",
        type=float,
        default=COSINE,
        help=f"list pairs whose embeddings have at least this cosine (default: {COSINE})",
    )
    parser.add_argument("--out", type=Path, help="folder to write audit.csv and audit.html to")
    parser.add_argument(
        "--workers", type=int, help="number of threads (default: one for each core)"
    )
    return parser


if __name__ == "__main__":
    commands.start(main)
