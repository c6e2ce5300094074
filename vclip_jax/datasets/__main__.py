"""Build, list, show and export datasets."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from vclip_jax.console import commands
from vclip_jax.datasets.catalog import DATASETS, SYNTHETIC, Dataset
from vclip_jax.datasets.ingest import FEW_REJECTS, MAX_REJECTS
from vclip_jax.files import open_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["audit"]:  # the old name; audit uses models, which this room does not
        commands.note_once("this command is called `vclip audit` now")
        return int(import_module("vclip_jax.audit.__main__").main(words[1:]))
    options = _parser().parse_args(words)

    def run() -> None:
        from vclip_jax.datasets import actions

        open_files.raise_limit()
        getattr(actions, options.action)(options)

    return commands.run(run)


def _fit(name: str) -> str:
    """Check the name of a fit; OpenCV, which the check needs, is imported only here."""
    from vclip_jax.data.images.fit import FITS

    if name and name not in FITS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FITS)}")
    return name


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip datasets", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True)

    building = actions.add_parser("build", help="turn a dataset as downloaded into ArrayRecord")
    names = building.add_subparsers(title="datasets", required=True, metavar="NAME")
    synthetic = names.add_parser("synthetic", help=SYNTHETIC)
    synthetic.add_argument(
        "--domain", default="synfundus_like", help="cameras and population to imitate"
    )
    synthetic.add_argument("--size", type=int, default=128, help="pixels (default: 128)")
    synthetic.add_argument("--count", type=int, default=12000, help="records (default: 12000)")
    synthetic.add_argument("--seed", type=int, default=0, help="of all random draws (default: 0)")
    synthetic.add_argument("--workers", type=int, help="processes (default: one a core)")
    synthetic.add_argument("--data-dir", required=True, help="the folder of built datasets")
    synthetic.set_defaults(action="build_synthetic")
    for name, dataset in DATASETS.items():
        _add_dataset(names.add_parser(name, help=dataset.line), name, dataset)

    listing = actions.add_parser("list", help="list datasets that can be built or are built")
    listing.add_argument("--data-dir", help="the folder of built datasets")
    listing.set_defaults(action="list_all")

    show = actions.add_parser("show", help="show a built dataset's counts, classes and examples")
    show.add_argument("name", help="NAME or NAME/CONFIG")
    show.add_argument("--data-dir", required=True, help="the folder of built datasets")
    show.set_defaults(action="show")

    fixture = actions.add_parser("fixture", help="write a miniature of a dataset as distributed")
    fixture.add_argument("name", choices=DATASETS)
    fixture.add_argument("folder", type=Path, help="a new or empty folder")
    fixture.set_defaults(action="fixture")

    export = actions.add_parser(
        "export", help="write a built dataset as WebDataset or Chinese-CLIP's files"
    )
    export.add_argument("name", help="NAME or NAME/CONFIG")
    export.add_argument("--data-dir", required=True, help="the folder of built datasets")
    export.add_argument(
        "--format",
        default="webdataset",
        choices=("webdataset", "chinese-clip"),
        help="tar shards, or a .tsv of images and a .jsonl of texts (default: webdataset)",
    )
    export.add_argument(
        "--split", help="in TFDS's notation (default: train; of chinese-clip, each split)"
    )
    export.add_argument(
        "--out", old=["--target"], required=True, type=Path, help="the folder to write"
    )
    export.add_argument(
        "--shard-size", type=int, default=1000, help="records in a tar shard (default: 1000)"
    )
    export.set_defaults(action="export")
    return parser


def _add_dataset(parser: commands.Parser, name: str, dataset: Dataset) -> None:
    parser.add_argument(
        "--source",
        required=not dataset.source,
        default=dataset.source,
        help="the folder as downloaded" + " (default: that of the package)" * bool(dataset.source),
    )
    parser.add_argument("--data-dir", required=True, help="the folder of built datasets")
    parser.add_argument(
        "--max-side",
        type=int,
        default=512,
        help="longest side in pixels; 0 keeps the original bytes without metadata (default: 512)",
    )
    parser.add_argument("--quality", type=int, default=92, help="quality of JPEGs (default: 92)")
    parser.add_argument("--crop", action="store_true", help="crop to the illuminated field")
    parser.add_argument(
        "--ready",
        type=int,
        default=0,
        metavar="SIDE",
        help="store squares of this side in pixels, which training reads fast; needs --fit",
    )
    parser.add_argument(
        "--fit", type=_fit, default="", help="how squares are made: config.data.fit of later runs"
    )
    parser.add_argument(
        "--raw", action="store_true", help="store squares uncompressed rather than as JPEGs"
    )
    parser.add_argument(
        "--convert",
        action="store_true",
        help="accept greyscale, CMYK, 16-bit, transparent and palette images",
    )
    parser.add_argument(
        "--anonymous", action="store_true", help="use random keys and keep no file name"
    )
    parser.add_argument(
        "--max-rejects",
        type=float,
        default=MAX_REJECTS,
        help=f"fail above this share of rejects if they are more than {FEW_REJECTS} "
        f"(default: {MAX_REJECTS})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order of records (default: 0)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--beam", metavar="ARGS", help="build with an Apache Beam pipeline with these arguments"
    )
    for option, choices in dataset.options.items():
        default = choices[0] if choices else None
        usual = f"(default: {default})" if default else None
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            default=default,
            choices=choices or None,
            help=dataset.helps.get(option, usual),
        )
    parser.set_defaults(action="build", name_of_dataset=name)


if __name__ == "__main__":
    commands.start(main)
