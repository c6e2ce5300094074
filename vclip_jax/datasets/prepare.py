"""Build a dataset that a run asks for and that is not there yet."""

import os
import re

from vclip_jax.datasets.records import DatasetError, built_datasets


class SourceNeededError(DatasetError):
    """The dataset has to be built from files that nobody has named."""


def prepare(name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> None:
    """Make sure that `open_source(name, data_dir, ...)` finds the dataset.

    Synthetic datasets are made from their name alone (a finished one of the current version is
    found again); others are built once, from `source`.

    Args:
        name: "idrid" or "synthetic/DOMAIN-SIZEpx-COUNT-sSEED".
        source: the dataset as downloaded; may be empty where it is built already.
        data_dir: where built datasets live.

    Raises:
        SourceNeededError: it is not built, and `source` is empty.
        DatasetError: there is no such dataset, or its files are not as they should be.
    """
    synthetic = re.fullmatch(r"synthetic/(\w+)-(\d+)px-(\d+)-s(\d+)", name)
    if synthetic:
        from vclip_jax.datasets.synthetic import builder

        domain, size, count, seed = synthetic.groups()
        builder.build(domain, int(size), int(count), int(seed), data_dir)
        return
    if name.split("/")[0] != "idrid":
        raise DatasetError(
            f"no dataset is called {name!r}: use idrid or synthetic/DOMAIN-SIZEpx-COUNT-sSEED, "
            "for example synthetic/synfundus_like-128px-12000-s0"
        )
    if any(built.split("/")[0] == "idrid" for built, _ in built_datasets(data_dir)):
        return
    if not source:
        raise SourceNeededError(
            f"{name} is not built in {data_dir}: set --config.data.source to the folder with "
            "IDRiD's 'B. Disease Grading'"
        )
    from vclip_jax.datasets.idrid import builder as idrid

    idrid.build(source, data_dir)
