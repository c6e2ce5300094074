"""The datasets that a config trains on, opened: one dataset, or a mixture of several."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ml_collections import ConfigDict

from vclip_jax import datasets
from vclip_jax.config import checks
from vclip_jax.data.images.preprocess import check_fitted
from vclip_jax.data.mixture import Joined, Mixture
from vclip_jax.data.shares import Group
from vclip_jax.datasets.ingest.prepare import build_command, check_source
from vclip_jax.datasets.records import has_splits

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture, as `config.data.mixture` names it."""

    key: str
    """The key of errors."""
    entry: str
    """NAME or NAME:SPLIT."""
    weight: Fraction

    @property
    def dataset(self) -> str:
        """Return the dataset, NAME or NAME/CONFIG."""
        return self.entry.partition(":")[0]

    @property
    def split(self) -> str:
        """Return the part's own training split; "" for `config.data.train_split`."""
        return self.entry.partition(":")[2]


def parts_of(data: ConfigDict) -> list[Part]:
    """Return the parts of the mixture, sorted, so that their order in a recipe does not count."""
    return [
        # The decimal as it is written: 0.1 is a tenth.
        Part(f"data.mixture.{entry}", entry, Fraction(str(weight)))
        for entry, weight in sorted(data.mixture.items())
    ]


def check_training(data: ConfigDict) -> None:
    """Check that the training data is there or can be built; errors name the key."""
    if data.mixture:
        for part in parts_of(data):
            with _naming(part, data.data_dir):
                check_source(part.dataset, "", data.data_dir)
        return
    try:
        check_source(data.dataset, data.source, data.data_dir)
    except datasets.SourceNeededError:
        raise
    except ValueError as error:
        raise checks.of_key("data.dataset", error) from error


def prepare_training(data: ConfigDict) -> None:
    """Build the training data if necessary, see `prepare_dataset`."""
    if not data.mixture:
        prepare_dataset("data", data, data.data_dir)
    for part in parts_of(data):
        with _naming(part, data.data_dir):
            datasets.prepare(part.dataset, "", data.data_dir)


def prepare_dataset(section: str, entry: ConfigDict, data_dir: str) -> None:
    """Build a dataset if necessary, see `datasets.prepare`; errors name the key."""
    try:
        datasets.prepare(entry.dataset, entry.source, data_dir)
    except datasets.SourceNeededError:
        raise
    except (ValueError, OSError) as error:
        key = f"{section}.{'source' if entry.source else 'dataset'}"
        raise checks.of_key(key, error) from error


def open_split(key: str, name: str, data_dir: str, split: str) -> datasets.RecordSource:
    """Open the split that a key names; errors name the key."""
    with checks.naming(key):
        return datasets.open_source(name, data_dir, split)


def open_train(config: ConfigDict) -> Any:
    """Open the training pairs: a source, or a `Mixture`; errors name the key."""
    data = config.data
    if not data.mixture:
        train = open_split("data.train_split", data.dataset, data.data_dir, data.train_split)
        check_fitted(data.dataset, train, data.image_size, data.fit, data.augment)
        return train
    return _open_mixture(config)


def open_held_back(data: ConfigDict, key: str) -> Any:
    """Open the pairs of the "validation_split" or "test_split".

    Of a mixture they are the pairs of all its datasets that have the split, in one row: the weights
    are those of training.
    """
    if not data.mixture:
        return open_split(f"data.{key}", data.dataset, data.data_dir, data[key])
    names = list(dict.fromkeys(part.dataset for part in parts_of(data)))
    having = [name for name in names if has_splits(name, data.data_dir, data[key])]
    if not having:
        raise ValueError(
            f"config.data.{key}={data[key]!r}: no dataset of config.data.mixture has it: name "
            "another split, or '' for none"
        )
    if lacking := [name for name in names if name not in having]:
        log.info("no pairs of %s are held back: no split %s", ", ".join(lacking), data[key])
    opened = [open_split(f"data.{key}", name, data.data_dir, data[key]) for name in having]
    for source in opened:
        check_fitted(source.name, source, data.image_size, data.fit)
    return Joined(tuple(opened))


def _open_mixture(config: ConfigDict) -> Mixture:
    data = config.data
    parts = parts_of(data)
    opened = []
    for part in parts:
        split = part.split or data.train_split
        source = open_split(part.key, part.dataset, data.data_dir, split)
        if not len(source):
            raise ValueError(f"config.{part.key}: {part.dataset}:{split} has no records")
        with checks.naming(part.key):
            check_fitted(part.dataset, source, data.image_size, data.fit, data.augment)
        opened.append(source)
    if len({(source.name, source.split) for source in opened}) < len(opened):
        raise ValueError("config.data.mixture names the same split of a dataset twice: leave one")
    joined = Joined(tuple(opened))
    groups = [
        Group(part.entry, joined.rows_of(number), part.weight) for number, part in enumerate(parts)
    ]
    mixture = Mixture(joined.sources, tuple(groups), tuple(part.entry for part in parts))
    with checks.naming("data.mixture"):
        length = len(mixture.shares.cycle)
    total = sum(part.weight for part in parts)
    for part, source in zip(parts, opened, strict=True):
        share = part.weight / total
        log.info(
            "mixture: %.2f %% of the examples from %s (%s records)",
            100 * share,
            part.entry,
            f"{len(source):,}",
        )
        if (most := math.ceil(share * config.global_batch_size)) > len(source):
            raise ValueError(
                f"config.{part.key}: a batch takes {most} examples of its {len(source)} records, "
                "the same record several times: lower its weight or config.global_batch_size"
            )
    log.debug("mixture: a cycle of %d examples", length)
    return mixture


def drawn(source: Any) -> dict[str, Any]:
    """Return the entry of `data.json` that says how a mixture is drawn; nothing for a dataset."""
    if not isinstance(source, Mixture):
        return {}
    pairs = zip(source.origins, source.shares.weights, strict=True)
    return {"drawn": [[name, str(weight)] for name, weight in pairs]}


@contextmanager
def _naming(part: Part, data_dir: str) -> Iterator[None]:
    """Put the part's key before an error that its dataset is not there."""
    try:
        yield
    except datasets.SourceNeededError as error:
        raise datasets.SourceNeededError(
            f"config.{part.key}: {part.dataset} is not built in {data_dir}: build it: "
            f"{build_command(part.dataset, data_dir)}"
        ) from error
    except (ValueError, OSError) as error:
        raise checks.of_key(part.key, error) from error
