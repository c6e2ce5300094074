"""The actions of `vclip datasets`: build, list, show, write miniatures, export.

Each function takes the parsed options of its command, see `__main__`.
"""

import re
import shlex
import sys
from argparse import Namespace
from collections import Counter

from vclip_jax.data.record import Record
from vclip_jax.datasets.built import DatasetError, built_datasets, find_dataset, open_builder
from vclip_jax.datasets.catalog import DATASETS, SYNTHETIC
from vclip_jax.datasets.formats import chinese_clip, webdataset
from vclip_jax.datasets.ingest.build import build as build_listing
from vclip_jax.datasets.ingest.data_card import summary
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.records import RecordSource, open_source, source_of
from vclip_jax.datasets.synthetic import builder
from vclip_jax.files.errors import shown
from vclip_jax.files.foreign import read_json


def build_synthetic(options: Namespace) -> None:
    """Render a synthetic dataset, and print its splits."""
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


def build(options: Namespace) -> None:
    """Build a dataset from its files, and print a summary."""
    dataset = DATASETS[options.name_of_dataset]
    storage = Storage(
        options.max_side,
        options.quality,
        options.crop,
        options.convert,
        options.anonymous,
        options.ready,
        options.fit,
        options.raw,
    )
    arguments = {name: getattr(options, name) for name in dataset.options}
    listing = dataset.scan(
        options.source, **{name: value for name, value in arguments.items() if value is not None}
    )
    before = {directory for _, directory in built_datasets(options.data_dir)}
    try:
        folder = build_listing(
            listing,
            options.data_dir,
            storage,
            workers=options.workers,
            seed=options.seed,
            max_rejects=options.max_rejects,
            beam=None if options.beam is None else shlex.split(options.beam),
        )
    except DatasetError:  # the notes tell what was read, and often the remedy
        for note in [*listing.notes, *listing.guesses]:
            print(f"note: {shown(note)}", file=sys.stderr)
        raise
    if folder in before:
        unknown = " (an anonymous one cannot tell if its source has)" if options.anonymous else ""
        print(f"{folder} was built before and is not changed{unknown}: remove it to build it again")
    card = read_json(folder / "card.json")
    for line in summary(card):
        print(shown(line))
    for guess in listing.guesses:
        if guess not in card["notes"]:
            print(f"note: {shown(guess)}")
    print(f"built in {folder} (card.md describes it)")


def list_all(options: Namespace) -> None:
    """Print the datasets that can be built, and those in the data directory."""
    print("can be built:")
    print(f"  {'synthetic':10} {SYNTHETIC}")
    for name, dataset in DATASETS.items():
        print(f"  {name:10} {dataset.line}")
    if options.data_dir is not None:
        print(f"built in {options.data_dir}:")
        for name, directory in built_datasets(options.data_dir):
            print(f"  {name} {directory.name}")


def show(options: Namespace) -> None:
    """Print the splits of a built dataset, its classes with an example each, and its findings."""
    builder = open_builder(options.name, options.data_dir)
    print(f"{options.name}: {find_dataset(options.name, options.data_dir)}")
    names = getattr(builder.info.features["label"], "names", None)
    for split in sorted(builder.info.splits):
        source = source_of(builder, options.name, split)
        labels: Counter[int] = Counter()
        first: dict[int, Record] = {}
        present: Counter[str] = Counter()
        for record in source:
            labels[record["label"]] += 1
            first.setdefault(record["label"], record)
            present.update(name for name, flag in record.get("findings", {}).items() if flag == 1)
        print(f"{split}: {len(source)} records")
        for label, count in sorted(labels.items()):
            name = "no class" if label < 0 else names[label] if names else "class"
            example = first[label]
            line = f"{name}: {count}, such as {example['key']}: {example['caption']}"
            print(f"  {label:3} {shown(line)}")
        for name in source.finding_names:
            print(shown(f"      finding {name}: {present[name]}"))


def fixture(options: Namespace) -> None:
    """Write a miniature of a published dataset.

    Raises:
        ValueError: one line: the folder is not empty.
    """
    write = DATASETS[options.name].fixture
    if options.folder.exists() and any(options.folder.iterdir()):
        raise ValueError(f"{options.folder} is not empty: name a new folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder)
    print(f"a miniature of {options.name} in {options.folder}")


def export(options: Namespace) -> None:
    """Write a built dataset as WebDataset, or as Chinese-CLIP's files.

    Raises:
        ValueError: one line: the dataset holds fitted squares, which the files cannot record.
    """
    write = {"webdataset": _export_shards, "chinese-clip": _export_pairs}[options.format]
    if options.split or options.format == "webdataset":
        splits = [options.split or "train"]
    else:
        splits = sorted(open_builder(options.name, options.data_dir).info.splits)
    if options.format == "chinese-clip":
        chinese_clip.check_free(options.out, map(chinese_clip.name_of, splits))
    for split in splits:
        source = open_source(options.name, options.data_dir, split)
        if len(source) and "fitted" in source[0]:
            raise ValueError(
                f"{options.name} was built with --ready: {options.format} cannot record that it "
                "holds squares; export the dataset as built without --ready"
            )
        write(source, options)


def _export_shards(source: RecordSource, options: Namespace) -> None:
    prefix = re.sub(r"\W+", "-", source.split).strip("-")
    paths = webdataset.write(source, options.out, options.shard_size, prefix, source.class_names)
    print(f"{len(source)} records in {len(paths)} shards in {options.out}")


def _export_pairs(source: RecordSource, options: Namespace) -> None:
    name = chinese_clip.name_of(source.split)
    is_anonymous = "anonymous" in source.card.get("config", "").split("-")
    written = chinese_clip.write(source, options.out, name, keys=not is_anonymous)
    print(
        f"{name}: {written.records} records as {written.images} images, {written.texts} texts and "
        f"{written.pairs} pairs in {options.out}"
    )
    if written.silent:
        print(f"note: {written.silent} records have no caption: no text names their images")
    if repeated := written.records - written.silent - written.pairs:
        print(f"note: {repeated} records repeat the image and the caption of another one")
    held = set(source[0]) if len(source) else set()
    lost = ["classes"] if source.class_names else []
    lost += [what for what in ("patient", "facts", "findings") if what in held]
    if lost:
        print(f"note: {', '.join(lost)} have no place in this format and are not written")
