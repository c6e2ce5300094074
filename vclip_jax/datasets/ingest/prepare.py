"""Build a dataset that a run asks for and that is not there yet."""

import difflib
import os
import re
import shlex
import sys
from typing import Final

from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.ingest import build, data_card
from vclip_jax.datasets.ingest.store import DEFAULT_STORAGE, Storage, ready_storage
from vclip_jax.datasets.records import DatasetError, built_datasets
from vclip_jax.files.foreign import read_json, shown

_SYNTHETIC: Final = re.compile(r"synthetic/(\w+)-(\d+)px-(\d+)-s(\d+)")


class SourceNeededError(DatasetError):
    """The dataset has to be built from files that nobody has named."""


def build_command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """The command that builds a dataset of the catalogue; DIR is its folder as downloaded."""
    target = shlex.quote(os.fspath(data_dir))
    return f"vclip datasets build {name} --source DIR --data-dir {target}"


def prepare(name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> None:
    """Make sure that `open_source(name, data_dir, ...)` finds the dataset.

    Synthetic datasets are made from their name alone (a finished one of the current version is
    found again); others are built once, from `source`, as `vclip datasets build`
    does without further options, except that every image must be usable.

    Args:
        name: a name of the catalogue, that of a dataset built before (NAME or NAME/CONFIG), one
            of squares that are stored ready (NAME/ready256px-fundus-q92), or
            "synthetic/DOMAIN-SIZEpx-COUNT-sSEED".
        source: the dataset as downloaded; may be empty where it is built already.
        data_dir: where built datasets live.

    Raises:
        SourceNeededError: it is not built, and `source` is empty.
        DatasetError: there is no such dataset, or its files are not as they should be.
        ValueError: the source has another layout.

    Examples:
        >>> from vclip_jax.datasets import open_source, prepare
        >>> name = "synthetic/messidor_like-32px-8-s1"
        >>> prepare(name, "", data_dir)
        >>> len(open_source(name, data_dir, "test"))
        8
    """
    synthetic = _SYNTHETIC.fullmatch(name)
    if synthetic:
        from vclip_jax.datasets.synthetic import builder

        domain, size, count, seed = synthetic.groups()
        builder.build(domain, int(size), int(count), int(seed), data_dir)
        return
    found = _known(name, data_dir)
    if found is None:
        return
    base, storage = found
    if not source:
        raise SourceNeededError(
            f"{name} is not built in {data_dir}: set --config.data.source to its folder as "
            f"downloaded ({DATASETS[base].line}), or build it: {build_command(name, data_dir)}"
        )
    folder = build.build(DATASETS[base].scan(source), data_dir, storage, strict=True)
    content = read_json(folder / "card.json")
    for line in [*data_card.warnings(content), *(f"note: {note}" for note in content["notes"])]:
        print(f"{name}: {shown(line)}", file=sys.stderr)


def needs_source(name: str, data_dir: str | os.PathLike[str]) -> bool:
    """Whether `prepare` builds a dataset from files; nothing is made.

    Raises:
        DatasetError: there is no such dataset.
    """
    return not _SYNTHETIC.fullmatch(name) and _known(name, data_dir) is not None


def _known(name: str, data_dir: str | os.PathLike[str]) -> tuple[str, Storage] | None:
    """How a dataset of the catalogue is built: its name there, and how images are stored; None
    where it is built.

    Raises:
        DatasetError: there is no such dataset.
    """
    built = [there for there, _ in built_datasets(data_dir)]
    if any(name in (there, there.split("/")[0]) for there in built):
        return None
    base, _, config = name.partition("/")
    storage = ready_storage(config) if config else DEFAULT_STORAGE
    if base not in DATASETS or storage is None:
        plain = [one if one.startswith("synthetic/") else one.split("/")[0] for one in built]
        own = list(dict.fromkeys(plain))
        close = difflib.get_close_matches(name, [*own, *DATASETS], n=1)
        there = f"what is built in {data_dir} ({', '.join(own)}), " if own else ""
        raise DatasetError(
            f"no dataset is called {name!r}{f', did you mean {close[0]}?' if close else ':'} use "
            f"{there}{', '.join(DATASETS)}, or synthetic/DOMAIN-SIZEpx-COUNT-sSEED, for example "
            "synthetic/synfundus_like-128px-12000-s0"
        )
    return base, storage
