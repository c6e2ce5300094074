"""The audit of two built datasets: near-duplicates counted, listed and shown.

`vclip audit A B` prints how many pictures of B have one in A; `--out FOLDER` gets a line for each
pair, and a page with the closest. How they are found is in `near_duplicates`.
"""

from collections.abc import Sequence
from pathlib import Path

from vclip_jax.audit import COSINE, DISTANCE
from vclip_jax.console import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        from vclip_jax.audit import findings

        findings.run(options)

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip audit", description=__doc__)
    parser.add_argument("a", metavar="A", help="the training set: NAME or NAME/CONFIG")
    parser.add_argument("b", metavar="B", help="the evaluation set, or the same again")
    parser.add_argument("--data-dir", required=True, help="where built datasets are")
    parser.add_argument("--split-a", default="train", help="in TFDS's notation (default: train)")
    parser.add_argument("--split-b", default="test", help="(default: test)")
    parser.add_argument(
        "--distance",
        type=int,
        default=DISTANCE,
        help=f"bits of 256 that hashes may differ in (default: {DISTANCE})",
    )
    commands.add_model(parser, "compare its embeddings too: ", required=False)
    parser.add_argument(
        "--cosine",
        type=float,
        default=COSINE,
        help=f"list pairs with at least this (default: {COSINE})",
    )
    parser.add_argument("--out", type=Path, help="a folder for audit.csv and audit.html")
    parser.add_argument("--workers", type=int, help="threads (default: one a core)")
    return parser


if __name__ == "__main__":
    commands.start(main)
