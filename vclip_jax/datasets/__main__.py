"""`python -m vclip_jax.datasets`: build, list and show datasets."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vclip_jax.data.decode import ImageError
from vclip_jax.datasets.records import (
    DatasetError,
    Record,
    built_datasets,
    find_dataset,
    open_builder,
    source_of,
)

_SOURCES = {
    "synthetic": "made here, no source: synthetic fundus photographs with captions",
    "idrid": "Indian Diabetic Retinopathy Image Dataset, disease grading (CC BY 4.0)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is one line on stderr."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (DatasetError, ImageError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vclip_jax.datasets", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)

    build = commands.add_parser("build", help="turn a dataset as downloaded into ArrayRecord")
    datasets = build.add_subparsers(title="datasets", required=True)

    synthetic = datasets.add_parser("synthetic", help=_SOURCES["synthetic"])
    synthetic.add_argument("--domain", default="synfundus_like", help="cameras and people")
    synthetic.add_argument("--size", type=int, default=128, help="pixels (default: 128)")
    synthetic.add_argument("--count", type=int, default=12000, help="records (default: 12000)")
    synthetic.add_argument("--seed", type=int, default=0, help="another seed, another dataset")
    synthetic.add_argument("--workers", type=int, help="processes (default: one a core)")
    synthetic.set_defaults(run=_build_synthetic)

    idrid = datasets.add_parser("idrid", help=_SOURCES["idrid"])
    idrid.add_argument("--source", required=True, help="the folder 'B. Disease Grading'")
    idrid.add_argument("--max_side", type=int, default=1024, help="pixels (default: 1024)")
    idrid.add_argument("--quality", type=int, default=95, help="of JPEGs (default: 95)")
    idrid.add_argument("--skip_bad", action="store_true", help="leave out unusable images")
    idrid.set_defaults(run=_build_idrid)

    listing = commands.add_parser("list", help="what can be built, and what is built")
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", help="counts, classes and some records of a built dataset")
    show.add_argument("name", help="NAME or NAME/CONFIG")
    show.set_defaults(run=_show)

    for command in (synthetic, idrid, show):
        command.add_argument("--data_dir", required=True, help="where built datasets are")
    listing.add_argument("--data_dir", help="where built datasets are")
    return parser


def _build_synthetic(options: argparse.Namespace) -> None:
    from vclip_jax.datasets.synthetic.builder import build

    builder = build(
        options.domain,
        options.size,
        options.count,
        options.seed,
        options.data_dir,
        workers=options.workers,
    )
    _print_built(builder)


def _build_idrid(options: argparse.Namespace) -> None:
    from vclip_jax.datasets.idrid.builder import build

    before = {directory for _, directory in built_datasets(options.data_dir)}
    builder, rejects = build(
        options.source,
        options.data_dir,
        max_side=options.max_side,
        quality=options.quality,
        skip_bad=options.skip_bad,
    )
    _print_built(builder)
    if builder.data_path in before:
        print("it was built before and is left as it was: remove the folder to build it anew")
    for problem, keys in sorted(rejects.items()):
        print(f"left out, {problem}: {len(keys)} ({', '.join(keys[:5])}{' ...' * (len(keys) > 5)})")


def _print_built(builder: Any) -> None:
    for split, info in sorted(builder.info.splits.items()):
        print(f"{split}: {info.num_examples} records")
    print(f"built in {builder.data_dir}")


def _list(options: argparse.Namespace) -> None:
    print("can be built:")
    for name, what in _SOURCES.items():
        print(f"  {name:10} {what}")
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
            print(f"  {label:3} {name}: {count}, such as {example['key']}: {example['caption']}")


if __name__ == "__main__":
    sys.exit(main())
