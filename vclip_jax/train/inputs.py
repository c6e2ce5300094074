"""The data, batches and vocabulary that a config names, opened and checked.

Errors in them are reported here, before anything is compiled.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.data import pipeline, prefetch, workers
from vclip_jax.data.images.augment import named_policy
from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.tokenizer_json import TOKENIZER, VOCAB, saved_tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.devices import cores, sharding
from vclip_jax.files import packaged
from vclip_jax.files.writing import write_json
from vclip_jax.train import sources

DATA = "data.json"

PAIRS_SEED = 0
"""The seed of the order of held-back pairs; not `config.seed`, so that runs can be compared."""

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class DrawnPairs(Sequence[Record]):
    """Some records of a source in an order that depends on `PAIRS_SEED` and the source's length.

    A dataset with a folder for each class is stored class by class. In stored order, a validation
    batch would hold a single class, and the first records only the first classes.
    """

    source: Any
    """A source from `datasets.open_source`."""
    rows: Sequence[int]
    """Row numbers in the source."""

    @property
    def name(self) -> str:
        """Return the source's name."""
        return str(self.source.name)

    @property
    def split(self) -> str:
        """Return the source's split."""
        return str(self.source.split)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the source's class names."""
        return tuple(self.source.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the source's splits."""
        return tuple(self.source.splits)

    def digest(self) -> str:
        """Return the source's digest."""
        return str(self.source.digest())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]
        return self.source[self.rows[index.__index__()]]

    def __iter__(self) -> Iterator[Record]:
        return (self.source[row] for row in self.rows)


def draw_pairs(source: Any, most: int | None = None) -> DrawnPairs:
    """Draw at most `most` pairs of a source, see `DrawnPairs`; the same pairs on any machine."""
    # NumPy keeps only raw numbers the same in all of its versions.
    order = np.argsort(np.random.Philox(PAIRS_SEED).random_raw(len(source)), kind="stable")
    return DrawnPairs(source, order[:most].tolist())


def open_training_data(config: ConfigDict) -> tuple[Any, Any]:
    """Open the training and (or None) the validation pairs; build the dataset if necessary."""
    data = config.data
    sources.prepare_training(data)
    train = sources.open_train(config)
    if len(train) < config.global_batch_size:
        raise ValueError(
            f"{train.name} has {len(train)} records in {'+'.join(train.splits)}, fewer "
            f"than config.global_batch_size={config.global_batch_size}"
        )
    if not data.validation_split or not config.validation_batches:
        return train, None
    validation = sources.open_held_back(data, "validation_split")
    pairs = draw_pairs(validation, config.validation_batches * config.global_batch_size)
    log.info(
        "validation: %d of %d pairs, drawn with seed %d", len(pairs), len(validation), PAIRS_SEED
    )
    return train, pairs


def open_test_pairs(config: ConfigDict) -> Any:
    """Open the pairs that are measured only when a run ends, or None; the dataset must be built."""
    if not config.data.test_split:
        return None
    return draw_pairs(sources.open_held_back(config.data, "test_split"))


def name_of(source: Any) -> str:
    """Return the name of opened records, DATASET:SPLIT+SPLIT; several with commas between them."""
    each = getattr(source, "sources", (source,))
    return ", ".join(f"{one.name}:{'+'.join(one.splits)}" for one in each)


def training_data_of(workdir: Path) -> str:
    """Return the name of a run's training data; "" if the folder does not tell it."""
    path = workdir / DATA
    known = config_lib.read(path) if path.is_file() else {}
    train = known.get("train")
    return str(train.get("data", "")) if isinstance(train, dict) else ""


def check_data(
    workdir: Path, opened: Mapping[str, Any], *, resumes: bool = False, save: bool = True
) -> None:
    """Write the digests of a run's data, or compare the data with the digests of its start.

    Args:
        workdir: the run's workdir; the digests are in its `data.json`.
        opened: "train", "validation", "test" or "evals.NAME" -> the opened source, or None.
        resumes: True if the run has metrics already, measured on the data of its start.
        save: False on all but one of several processes.

    Raises:
        ValueError: the training data is not that of the run's start. Other data that differs only
            gives a warning. Both name everything that differs.
    """
    path = workdir / DATA
    kept = config_lib.read(path) if path.exists() else {}
    known = dict(kept)
    if resumes and "train" in opened and "train" not in known:
        log.info("%s has no record of its data: written now to %s", workdir, DATA)
    differ: dict[str, str] = {}
    for role, source in opened.items():
        if source is None or not (digest := source.digest()):
            continue
        name = name_of(source)
        now = {"data": name, "records": len(source), "digest": digest, **sources.drawn(source)}
        before = known.get(role)
        if not resumes or before is None or before["data"] != name:
            known[role] = now
        elif before["digest"] != digest:
            differ[role] = (
                f"{name} had {before['records']:,} records (digest {before['digest'][:12]}), now "
                f"{len(source):,} ({digest[:12]})"
            )
    # Two roles may have the same split.
    line = f"{workdir} began with other data: {'; '.join(dict.fromkeys(differ.values()))}"
    if "train" in differ:
        raise ValueError(f"{line}: build it again from the same files, or choose another --workdir")
    if differ:
        log.warning("warning: %s; figures from before and after are not comparable", line)
    if save and known != kept:
        write_json(path, known)


def open_train_batches(
    config: ConfigDict,
    mesh: Mesh,
    train: Any,
    tokenizer: Tokenizer,
    size: int,
    start_step: int = 0,
    *,
    few: bool = False,
) -> prefetch.DevicePrefetcher:
    """Open training batches of `size` pairs over all devices, from `start_step` on.

    `few` starts no worker processes, which are not worth their start for a few batches.
    """
    side, length = config.data.image_size, config.tokenizer.context_length
    batch_bytes = size // jax.process_count() * (3 * side**2 + 4 * length + 8)
    processes = 0 if few else workers.how_many(config.data.workers, cores.usable(), batch_bytes)
    if processes:
        log.info("input: %d processes", processes)
    batches = pipeline.train_batches(
        train,
        tokenizer,
        seed=config.seed,
        global_batch_size=size,
        size=config.data.image_size,
        fit=config.data.fit,
        decode=config.data.decode,
        augment=named_policy(config.data.augment),
        enhance=config.data.enhance,
        shuffle=config.data.shuffle,
        context_length=config.tokenizer.context_length,
        start_step=start_step,
        rows=sharding.rows_of_process(mesh, size),
        num_threads=config.data.threads or None,
        num_workers=processes,
    )
    return prefetch.prefetch_to_device(batches, NamedSharding(mesh, sharding.BATCH))


def load_tokenizer(config: ConfigDict, train: Any, workdir: Path) -> Tokenizer:
    """Load the run's own vocabulary, else the one that the config names, saved in the workdir."""
    if config_lib.has_begun(workdir) and (saved := saved_tokenizer(workdir)) is not None:
        return saved
    source = packaged.path_of(config.restore_from) if config.restore_from else None
    restored = saved_tokenizer(source) if source else None
    tokenizer: Tokenizer
    if restored is not None:
        tokenizer = restored
    elif config.tokenizer.vocab == "captions":
        tokenizer = WordPiece.from_captions(record["caption"] for record in train)
    else:
        tokenizer = WordPiece.load(config.tokenizer.vocab)
    if jax.process_index() == 0:
        for leftover in (TOKENIZER, VOCAB):  # from a start that was refused
            (workdir / leftover).unlink(missing_ok=True)
        tokenizer.save(workdir / tokenizer.file_name)
    return tokenizer
