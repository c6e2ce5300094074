"""`python -m vclip_jax.datasets`: build, list, show and export datasets."""

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from vclip_jax.console import terminal
from vclip_jax.data.images.decode import FITS, ImageError
from vclip_jax.data.record import Record
from vclip_jax.datasets.catalog import DATASETS, Dataset
from vclip_jax.datasets.formats import webdataset
from vclip_jax.datasets.ingest.build import FEW_REJECTS, MAX_REJECTS, build
from vclip_jax.datasets.ingest.data_card import summary
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.records import (
    DatasetError,
    built_datasets,
    find_dataset,
    open_builder,
    open_source,
    source_of,
)
from vclip_jax.files import open_files
from vclip_jax.files.foreign import read_json, shown

_SYNTHETIC = "made here, no source: synthetic fundus photographs with captions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["audit"]:  # where it was; it uses models, which nothing else here does
        print("note: this command is called `vclip audit` now", file=sys.stderr)
        return int(import_module("vclip_jax.audit.__main__").main(arguments[1:]))
    options = _parser().parse_args(arguments)
    open_files.raise_limit()
    try:
        options.run(options)
    except (DatasetError, ImageError, ValueError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(prog="python -m vclip_jax.datasets", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)

    building = commands.add_parser("build", help="turn a dataset as downloaded into ArrayRecord")
    names = building.add_subparsers(title="datasets", required=True, metavar="NAME")
    synthetic = names.add_parser("synthetic", help=_SYNTHETIC)
    synthetic.add_argument("--domain", default="synfundus_like", help="cameras and people")
    synthetic.add_argument("--size", type=int, default=128, help="pixels (default: 128)")
    synthetic.add_argument("--count", type=int, default=12000, help="records (default: 12000)")
    synthetic.add_argument("--seed", type=int, default=0, help="another seed, another dataset")
    synthetic.add_argument("--workers", type=int, help="processes (default: one a core)")
    synthetic.add_argument("--data_dir", required=True, help="where built datasets are")
    synthetic.set_defaults(run=_build_synthetic)
    for name, dataset in DATASETS.items():
        _add_dataset(names.add_parser(name, help=dataset.line), name, dataset)

    listing = commands.add_parser("list", help="what can be built, and what is built")
    listing.add_argument("--data_dir", help="where built datasets are")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="counts, classes and some records of a built dataset")
    show.add_argument("name", help="NAME or NAME/CONFIG")
    show.add_argument("--data_dir", required=True, help="where built datasets are")
    show.set_defaults(run=_show)

    fixture = commands.add_parser("fixture", help="write a miniature of a dataset as distributed")
    fixture.add_argument("name", choices=[n for n, d in DATASETS.items() if d.fixture is not None])
    fixture.add_argument("folder", type=Path, help="a new or empty folder")
    fixture.set_defaults(run=_fixture)

    export = commands.add_parser("export", help="a built dataset as WebDataset tar shards")
    export.add_argument("name", help="NAME or NAME/CONFIG")
    export.add_argument("--data_dir", required=True, help="where built datasets are")
    export.add_argument("--split", default="train", help="in TFDS's notation (default: train)")
    export.add_argument("--target", required=True, type=Path, help="the folder to write")
    export.add_argument("--shard_size", type=int, default=1000, help="records (default: 1000)")
    export.set_defaults(run=_export)
    return parser


def _add_dataset(parser: argparse.ArgumentParser, name: str, dataset: Dataset) -> None:
    parser.add_argument("--source", required=True, help="the folder as downloaded")
    parser.add_argument("--data_dir", required=True, help="where built datasets are")
    parser.add_argument(
        "--max_side", type=int, default=512,
        help="longest side in pixels; 0 keeps the original bytes without metadata (default: 512)",
    )  # fmt: skip
    parser.add_argument("--quality", type=int, default=92, help="of JPEGs (default: 92)")
    parser.add_argument("--crop", action="store_true", help="cut to the illuminated field")
    parser.add_argument(
        "--ready", type=int, default=0, metavar="SIDE",
        help="store squares of so many pixels, which cost training little; needs --fit",
    )  # fmt: skip
    parser.add_argument(
        "--fit", choices=FITS, default="", help="how: the config.data.fit of the runs to come"
    )
    parser.add_argument(
        "--raw", action="store_true", help="squares as bytes of colours rather than as JPEGs"
    )
    parser.add_argument(
        "--convert", action="store_true",
        help="accept greyscale, CMYK, 16-bit, transparent and palette images",
    )  # fmt: skip
    parser.add_argument(
        "--anonymous", action="store_true", help="random keys, no file name is kept"
    )
    parser.add_argument(
        "--max_rejects", type=float, default=MAX_REJECTS,
        help=f"fail above this share of rejects, and above {FEW_REJECTS} (default: {MAX_REJECTS})",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order in which records are stored (default: 0)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--beam", metavar="ARGS", help="let an Apache Beam pipeline with these arguments do it"
    )
    for option, choices in dataset.options.items():
        default = choices[0] if choices else None
        flags = dict.fromkeys((f"--{option.replace('_', '-')}", f"--{option}"))
        usual = f"(default: {default})" if default else None
        parser.add_argument(
            *flags,
            dest=option,
            default=default,
            choices=choices or None,
            help=dataset.helps.get(option, usual),
        )
    parser.set_defaults(run=_build, name_of_dataset=name)


def _build_synthetic(options: argparse.Namespace) -> None:
    from vclip_jax.datasets.synthetic import builder

    built = builder.build(
        options.domain,
        options.size,
        options.count,
        options.seed,
        options.data_dir,
        workers=options.workers,
    )
    for split, info in sorted(built.info.splits.items()):
        print(f"{split}: {info.num_examples} records")
    print(f"built in {built.data_dir}")


def _build(options: argparse.Namespace) -> None:
    dataset = DATASETS[options.name_of_dataset]
    storage = Storage(
        options.max_side, options.quality, options.crop, options.convert, options.anonymous,
        options.ready, options.fit, options.raw,
    )  # fmt: skip
    given = {name: getattr(options, name) for name in dataset.options}
    listing = dataset.scan(
        options.source, **{name: value for name, value in given.items() if value is not None}
    )
    before = {directory for _, directory in built_datasets(options.data_dir)}
    folder = build(
        listing,
        options.data_dir,
        storage,
        workers=options.workers,
        seed=options.seed,
        max_rejects=options.max_rejects,
        beam=None if options.beam is None else shlex.split(options.beam),
    )
    if folder in before:
        print(f"{folder} was built before and is left as it was: remove it to build it anew")
    card = read_json(folder / "card.json")
    for line in summary(card):
        print(shown(line))
    for guess in listing.guesses:
        if guess not in card["notes"]:
            print(f"note: {shown(guess)}")
    print(f"built in {folder} (card.md tells what is in it)")


def _list(options: argparse.Namespace) -> None:
    print("can be built:")
    print(f"  {'synthetic':10} {_SYNTHETIC}")
    for name, dataset in DATASETS.items():
        print(f"  {name:10} {dataset.line}")
    if options.data_dir is not None:
        print(f"built in {options.data_dir}:")
        for name, directory in built_datasets(options.data_dir):
            print(f"  {name} {directory.name}")


def _show(options: argparse.Namespace) -> None:
    builder = open_builder(options.name, options.data_dir)
    print(f"{options.name}: {find_dataset(options.name, options.data_dir)}")
    names = getattr(builder.info.features["label"], "names", None)
    for split in sorted(builder.info.splits):
        source = source_of(builder, options.name, split)
        labels: Counter[int] = Counter()
        first: dict[int, Record] = {}
        for record in source:
            labels[record["label"]] += 1
            first.setdefault(record["label"], record)
        print(f"{split}: {len(source)} records")
        for label, count in sorted(labels.items()):
            name = "no class" if label < 0 else names[label] if names else "class"
            example = first[label]
            such = f"{name}: {count}, such as {example['key']}: {example['caption']}"
            print(f"  {label:3} {shown(such)}")


def _fixture(options: argparse.Namespace) -> None:
    write = DATASETS[options.name].fixture
    if options.folder.exists() and any(options.folder.iterdir()):
        raise ValueError(f"{options.folder} is not empty: name a new folder")
    assert write is not None  # the parser offers no other names
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder)
    print(f"a miniature of {options.name} in {options.folder}")


def _export(options: argparse.Namespace) -> None:
    source = open_source(options.name, options.data_dir, options.split)
    if len(source) and "fitted" in source[0]:
        raise ValueError(
            f"{options.name} was built with --ready: shards could not say that it holds squares; "
            "export the dataset as built without"
        )
    prefix = re.sub(r"\W+", "-", options.split).strip("-")
    paths = webdataset.write(source, options.target, options.shard_size, prefix, source.class_names)
    print(f"{len(source)} records in {len(paths)} shards in {options.target}")


if __name__ == "__main__":
    terminal.prepare()
    sys.exit(main())
