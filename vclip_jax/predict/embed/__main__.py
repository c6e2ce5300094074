"""Embed photographs as unit vectors, and write them with keys and metadata as a Parquet file.

    vclip embed retina-small photographs/ --out photographs.parquet
    vclip embed W idrid --data-dir D --split test --out idrid.parquet
    find . -name '*.jpg' | vclip embed W - --out found.parquet

INPUT is a built dataset (NAME or NAME/CONFIG), or photographs as vclip predict takes them: images,
folders, lists, - for paths on standard input. The first line of output says which was meant.

The columns are key, split, label, patient, the known facts (eye, sex, age, camera, site, visit,
quality), finding:NAME (1, 0, or null for not rated), gate (the reasons to refuse the photograph, ""
for none) and vector. The key of a file is its path relative to the folder. Captions are left out
without --captions, because they may be private. Photographs that cannot be read are listed in
X.rejects.csv.

If the command is killed, run it again: finished parts are kept in X.parquet.parts/ until the file
is whole. Not for diagnosis.
"""

import sys
from collections.abc import Sequence

from vclip_jax.console import commands
from vclip_jax.datasets.built import find_dataset, names_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 1 if an image or anything else failed."""
    options = _parser().parse_args(arguments)

    def run() -> int:
        commands.chosen_model(options)
        commands.keep_compiled()
        if options.split is None:
            names_dataset(options.inputs, options.data_dir)
        elif len(options.inputs) == 1:
            find_dataset(options.inputs[0], options.data_dir)
        from vclip_jax.predict.embed import command

        return 1 if command.run(options, sys.stdout) else 0

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip embed", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=commands.MODELS)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="a built dataset, or photographs; see above"
    )
    commands.add_step(parser)
    parser.add_argument("--out", required=True, metavar="X.parquet", help="the file to write")
    parser.add_argument(
        "--data-dir", default="data", help="the folder of built datasets (default: data)"
    )
    parser.add_argument(
        "--split", help="splits of the dataset, such as test or train+test (default: all)"
    )
    parser.add_argument("--captions", action="store_true", help="also write the dataset's captions")
    return parser


if __name__ == "__main__":
    commands.start(main)
