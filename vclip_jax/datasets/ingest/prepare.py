"""Build a dataset that a run needs and that is not built yet."""

import difflib
import os
import re
import shlex
import sys
from typing import Final

from vclip_jax.datasets.built import DatasetError, built_datasets
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.ingest import build, data_card
from vclip_jax.datasets.ingest.store import DEFAULT_STORAGE, Storage, ready_storage
from vclip_jax.files.errors import few, shown
from vclip_jax.files.foreign import read_json

_SYNTHETIC: Final = re.compile(r"synthetic/(\w+)-(\d+)px-(\d+)-s(\d+)")


class SourceNeededError(DatasetError):
    """The dataset must be built from files, and their folder is not given."""


def build_command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """Return the command that builds a dataset of the catalogue; DIR is the downloaded folder."""
    target = shlex.quote(os.fspath(data_dir))
    return f"vclip datasets build {name} --source DIR --data-dir {target}"


def prepare(name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> None:
    """Build a dataset unless `open_source(name, data_dir, ...)` finds it.

    A synthetic dataset is made from its name alone (a finished one of the current version is
    reused); others are built once, from `source`, as by `vclip datasets build` without further
    options, except that every image must be usable. A dataset that comes with the package needs no
    `source`.

    Args:
        name: a name of the catalogue, that of a dataset built before (NAME or NAME/CONFIG), one
            of squares that are stored ready (NAME/ready256px-fundus-q92), or
            "synthetic/DOMAIN-SIZEpx-COUNT-sSEED".
        source: the dataset as downloaded; may be empty if the dataset is built already, or comes
            with the package.
        data_dir: the folder of built datasets.

    Raises:
        SourceNeededError: the dataset is not built, and `source` is empty.
        DatasetError: there is no such dataset, or its files have faults.
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
    known = _known(name, data_dir)
    if known is None:
        return
    check_source(name, source, data_dir)
    base, storage = known
    listing = DATASETS[base].scan(source or DATASETS[base].source)
    folder = build.build(listing, data_dir, storage, strict=True)
    content = read_json(folder / "card.json")
    for line in [*data_card.warnings(content), *(f"note: {note}" for note in content["notes"])]:
        print(f"{name}: {shown(line)}", file=sys.stderr)


def check_source(
    name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str]
) -> None:
    """Check that `prepare` would find or make a dataset; the arguments are those of `prepare`.

    Raises:
        SourceNeededError: the dataset is not built, and `source` is empty.
        DatasetError: there is no such dataset.
    """
    if not needs_source(name, data_dir):
        return
    of_catalogue = DATASETS[name.partition("/")[0]]
    if not (source or of_catalogue.source):
        raise SourceNeededError(
            f"{name} is not built in {data_dir}: set --config.data.source to its folder as "
            f"downloaded ({of_catalogue.line}), or build it: {build_command(name, data_dir)}"
        )


def needs_source(name: str, data_dir: str | os.PathLike[str]) -> bool:
    """Return whether `prepare` would build a dataset from files; nothing is built.

    Raises:
        DatasetError: there is no such dataset.
    """
    return not _SYNTHETIC.fullmatch(name) and _known(name, data_dir) is not None


def _known(name: str, data_dir: str | os.PathLike[str]) -> tuple[str, Storage] | None:
    """Return a dataset's name in the catalogue and its storage; None if it is built.

    Raises:
        DatasetError: there is no such dataset.
    """
    built = [built_name for built_name, _ in built_datasets(data_dir)]
    if any(name in (built_name, built_name.split("/")[0]) for built_name in built):
        return None
    base, _, config = name.partition("/")
    storage = ready_storage(config) if config else DEFAULT_STORAGE
    if base not in DATASETS or storage is None:
        plain = [one if one.startswith("synthetic/") else one.split("/")[0] for one in built]
        usable = list(dict.fromkeys(plain))
        close = difflib.get_close_matches(name, [*usable, *DATASETS], n=1)
        here = f"one built in {data_dir} ({few(usable)}), " if usable else ""
        empty = "" if usable else f" (none is built in {data_dir}: --config.data.data_dir)"
        raise DatasetError(
            f"no dataset is called {name!r}{f', did you mean {close[0]}?' if close else ':'} use "
            f"{here}{', '.join(DATASETS)}, or synthetic/DOMAIN-SIZEpx-COUNT-sSEED, for example "
            f"synthetic/synfundus_like-128px-12000-s0{empty}"
        )
    return base, storage
