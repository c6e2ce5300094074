"""The datasets that a config trains on, opened: one dataset or a mixture, as it is or balanced."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from vclip_jax import datasets
from vclip_jax.config import checks
from vclip_jax.data.balance import by_finding, by_label
from vclip_jax.data.images.preprocess import check_fitted
from vclip_jax.data.mixture import Joined, Mixture
from vclip_jax.data.shares import Group
from vclip_jax.datasets.ingest.prepare import build_command, check_source
from vclip_jax.datasets.records import has_splits
from vclip_jax.files.errors import few

_LOOKED_AT = 200
"""The number of batches whose shares are counted before training."""

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
    """Open the training pairs: a source, or a `Mixture` of several or of balanced classes.

    Raises:
        ValueError: one line that begins with the key.
    """
    data = config.data
    if not data.mixture and not data.balance:
        train = open_split("data.train_split", data.dataset, data.data_dir, data.train_split)
        check_fitted(data.dataset, train, data.image_size, data.fit, data.augment)
        return train
    parts = parts_of(data) or [Part("data.train_split", data.dataset, Fraction(1))]
    opened = [_open_part(part, data) for part in parts]
    if len({(source.name, source.split) for source in opened}) < len(opened):
        raise ValueError("config.data.mixture names the same split of a dataset twice: leave one")
    joined = Joined(tuple(opened))
    groups, origins = [], []
    for number, (part, source) in enumerate(zip(parts, opened, strict=True)):
        rows = joined.rows_of(number)
        if not data.balance:
            groups.append(Group(part.entry, rows, part.weight))
            origins.append(part.entry)
            continue
        classes = _classes(source, data.balance)
        for name, own in classes.items():
            weight = part.weight / len(classes)
            groups.append(Group(f"{part.entry} {name}", rows.start + own, weight))
            origins.append(part.entry if data.mixture else name)
    mixture = Mixture(joined.sources, tuple(groups), tuple(origins))
    with checks.naming("data.mixture" if data.mixture else "data.balance"):
        mixture.shares.check()
    _check_batches(config, mixture, parts)
    return mixture


def open_held_back(data: ConfigDict, key: str) -> Any:
    """Open the pairs of the "validation_split" or "test_split".

    Of a mixture they are the pairs of all its datasets that have the split, in one row: the weights
    are those of training.
    """
    if not data.mixture:
        source = open_split(f"data.{key}", data.dataset, data.data_dir, data[key])
        _warn_of_trained(data, key, [(data.dataset, data.train_split)])
        return source
    trained = [(part.dataset, part.split or data.train_split) for part in parts_of(data)]
    names = list(dict.fromkeys(name for name, _ in trained))
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
    _warn_of_trained(data, key, trained)
    return Joined(tuple(opened))


def _warn_of_trained(data: ConfigDict, key: str, trained: Sequence[tuple[str, str]]) -> None:
    """Warn of held-back pairs that the run trains on: `trained` has datasets and their splits.

    Two slices of a split, such as `train[:90%]` and `train[90%:]`, count as different.
    """
    both = [f"{name}:{split}" for name, split in trained if _overlap(split, data[key])]
    if both:
        log.warning(
            "warning: config.data.%s=%s: %s is trained on, too, so these pairs are not held back",
            key,
            data[key],
            ", ".join(both),
        )


def _overlap(one: str, other: str) -> bool:
    """Return whether two sums of splits have one in common, or a split and a slice of it."""
    for a in map(str.strip, one.split("+")):
        for b in map(str.strip, other.split("+")):
            is_whole = "[" not in a or "[" not in b
            if a == b or (is_whole and a.partition("[")[0] == b.partition("[")[0]):
                return True
    return False


def _open_part(part: Part, data: ConfigDict) -> datasets.RecordSource:
    """Open the training split of one dataset, and refuse one without records."""
    split = part.split or data.train_split
    source = open_split(part.key, part.dataset, data.data_dir, split)
    with checks.naming(part.key):
        if not len(source):
            raise ValueError(f"{part.dataset}:{split} has no records: name another split")
        check_fitted(part.dataset, source, data.image_size, data.fit, data.augment)
    return source


def _classes(source: datasets.RecordSource, by: str) -> dict[str, npt.NDArray[np.int64]]:
    """Return the groups of `config.data.balance`; all records are read.

    Raises:
        ValueError: there are not two groups.
    """
    where = f"{source.name}:{source.split}"
    groups = by_label(source, source.class_names) if by == "label" else by_finding(source)
    if len(groups) < 2:
        had = few(list(groups)) or ("a label" if by == "label" else "a rated finding")
        raise ValueError(
            f"config.data.balance={by!r} needs two groups of records, and {where} has "
            f"{'only ' if groups else 'no record with '}{had}: set it to '', or use other data"
        )
    used = np.unique(np.concatenate(list(groups.values()))).size
    sizes = [f"{name} ({len(rows):,})" for name, rows in groups.items()]
    log.info("balance: 1 example in %d from each of %s", len(groups), few(sizes, 20))
    if left := len(source) - used:
        why = "have no label" if by == "label" else "have no finding, and not all are rated"
        log.warning(
            "warning: %s of %s records of %s %s: config.data.balance=%s leaves them out",
            f"{left:,}",
            f"{len(source):,}",
            where,
            why,
            by,
        )
    return groups


def _check_batches(config: ConfigDict, mixture: Mixture, parts: Sequence[Part]) -> None:
    """Log the shares, and refuse or warn of batches that have the same record several times.

    Raises:
        ValueError: a dataset has fewer records than a batch takes of it.
    """
    total = sum(part.weight for part in parts)
    for part, source in zip(parts, mixture.sources, strict=True):
        share = part.weight / total
        if config.data.mixture:
            log.info(
                "mixture: %.2f %% of the examples from %s (%s records)",
                100 * share,
                part.entry,
                f"{len(source):,}",
            )
        most = math.ceil(share * config.global_batch_size)
        if config.data.mixture and most > len(source):
            raise ValueError(
                f"config.{part.key}: a batch takes {most} examples of its {len(source)} records, "
                "the same record several times: lower its weight or config.global_batch_size"
            )
    # Where one pass through a group ends and the next begins, a record can come twice.
    scarce = [
        group.name
        for group, most in zip(mixture.groups, _most_in_a_batch(config, mixture), strict=True)
        if 2 * most > len(group.rows)
    ]
    if scarce:
        log.warning(
            "warning: batches can have the same record of %s several times: a smaller "
            "config.global_batch_size avoids it",
            few(scarce),
        )


def _most_in_a_batch(config: ConfigDict, mixture: Mixture) -> npt.NDArray[np.int64]:
    """Return the largest number of examples of each group in one of the first batches."""
    counts = np.zeros((_LOOKED_AT + 1, len(mixture.groups)), np.int64)
    for batch in range(1, _LOOKED_AT + 1):
        counts[batch] = mixture.shares.counts(batch * config.global_batch_size, config.seed)
    return np.diff(counts, axis=0).max(axis=0)


def drawn(source: Any) -> dict[str, Any]:
    """Return the entry of `data.json` that says how a `Mixture` is drawn; {} for other sources."""
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
