"""Build a dataset that a run asks for and that is not there yet."""

import difflib
import json
import os
import re
import sys

from vclip_jax.datasets import card, ingest
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.records import DatasetError, built_datasets


class SourceNeededError(DatasetError):
    """The dataset has to be built from files that nobody has named."""


def prepare(name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> None:
    """Make sure that `open_source(name, data_dir, ...)` finds the dataset.

    Synthetic datasets are made from their name alone (a finished one of the current version is
    found again); others are built once, from `source`, as `python -m vclip_jax.datasets build`
    does without further options, except that every image must be usable.

    Args:
        name: a name of the catalogue, that of a dataset built before (NAME or NAME/CONFIG), or
            "synthetic/DOMAIN-SIZEpx-COUNT-sSEED".
        source: the dataset as downloaded; may be empty where it is built already.
        data_dir: where built datasets live.

    Raises:
        SourceNeededError: it is not built, and `source` is empty.
        DatasetError: there is no such dataset, or its files are not as they should be.
        ValueError: the source has another layout.
    """
    synthetic = re.fullmatch(r"synthetic/(\w+)-(\d+)px-(\d+)-s(\d+)", name)
    if synthetic:
        from vclip_jax.datasets.synthetic import builder

        domain, size, count, seed = synthetic.groups()
        builder.build(domain, int(size), int(count), int(seed), data_dir)
        return
    built = [there for there, _ in built_datasets(data_dir)]
    if any(name in (there, there.split("/")[0]) for there in built):
        return
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        raise DatasetError(
            f"no dataset is called {name!r}{f', did you mean {close[0]}?' if close else ':'} use "
            f"{', '.join(DATASETS)}, or synthetic/DOMAIN-SIZEpx-COUNT-sSEED, for example "
            "synthetic/synfundus_like-128px-12000-s0"
        )
    if not source:
        raise SourceNeededError(
            f"{name} is not built in {data_dir}: set --config.data.source to its folder as "
            f"downloaded ({DATASETS[name].line})"
        )
    folder = ingest.build(DATASETS[name].scan(source), data_dir, strict=True)
    content = json.loads((folder / "card.json").read_text("utf-8"))
    for line in [*card.warnings(content), *(f"note: {note}" for note in content["notes"])]:
        print(f"{name}: {line}", file=sys.stderr)
