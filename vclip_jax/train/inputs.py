"""What a config names, opened: data, batches, evaluations, vocabulary.

What is wrong with them is said here, before anything is compiled.
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
from vclip_jax import datasets
from vclip_jax.config import checks
from vclip_jax.data import pipeline, prefetch, workers
from vclip_jax.data.images.augment import named_policy
from vclip_jax.data.images.preprocess import check_fitted
from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.tokenizer_json import TOKENIZER, VOCAB, saved_tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.devices import cores, sharding
from vclip_jax.files.writing import write_json

DATA = "data.json"

PAIRS_SEED = 0
"""Of the order of held-back pairs, whatever `config.seed` is, so that runs can be compared."""

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class DrawnPairs(Sequence[Record]):
    """Some records of a source in an order of its own, a function of `PAIRS_SEED` and its length.

    A dataset of a folder for each class is stored class by class. In stored order the batches of a
    validation loss would hold one class each, and the first so many records the first classes.
    """

    source: Any
    """From `datasets.open_source`."""
    rows: Sequence[int]
    """Of the source."""

    @property
    def name(self) -> str:
        """As the source's."""
        return str(self.source.name)

    @property
    def split(self) -> str:
        """As the source's."""
        return str(self.source.split)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As the source's."""
        return tuple(self.source.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """As the source's."""
        return tuple(self.source.splits)

    def digest(self) -> str:
        """As the source's."""
        return str(self.source.digest())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]
        return self.source[self.rows[index.__index__()]]

    def __iter__(self) -> Iterator[Record]:
        return (self.source[row] for row in self.rows)


def draw_pairs(source: Any, most: int | None = None) -> DrawnPairs:
    """At most so many pairs of a source, see `DrawnPairs`; the same ones on any machine."""
    # Raw numbers, as NumPy promises only that these are the same in all of its versions.
    order = np.argsort(np.random.Philox(PAIRS_SEED).random_raw(len(source)), kind="stable")
    return DrawnPairs(source, order[:most].tolist())


def open_training_data(config: ConfigDict) -> tuple[Any, Any]:
    """The training and (if the dataset has one) the validation pairs, built if need be."""
    data = config.data
    prepare_dataset("data", data, data.data_dir)
    train = open_split("data.train_split", data.dataset, data.data_dir, data.train_split)
    if len(train) < config.global_batch_size:
        raise ValueError(
            f"{data.dataset} has {len(train)} records in {data.train_split}, fewer "
            f"than config.global_batch_size={config.global_batch_size}"
        )
    check_fitted(data.dataset, train, data.image_size, data.fit, data.augment)
    if not data.validation_split or not config.validation_batches:
        return train, None
    validation = open_split(
        "data.validation_split", data.dataset, data.data_dir, data.validation_split
    )
    pairs = draw_pairs(validation, config.validation_batches * config.global_batch_size)
    log.info(
        "validation: %d of %d pairs, drawn with seed %d", len(pairs), len(validation), PAIRS_SEED
    )
    return train, pairs


def open_test_pairs(config: ConfigDict) -> Any:
    """The pairs that are looked at in the end alone; the dataset must be built. None without."""
    if not config.data.test_split:
        return None
    data = config.data
    return draw_pairs(open_split("data.test_split", data.dataset, data.data_dir, data.test_split))


def prepare_dataset(section: str, entry: ConfigDict, data_dir: str) -> None:
    """`datasets.prepare`, whose errors name the key."""
    try:
        datasets.prepare(entry.dataset, entry.source, data_dir)
    except datasets.SourceNeededError:
        raise
    except (ValueError, OSError) as error:
        key = f"{section}.{'source' if entry.source else 'dataset'}"
        raise checks.of_key(key, error) from error


def open_split(key: str, name: str, data_dir: str, split: str) -> datasets.RecordSource:
    """The split that a key names; errors name the key."""
    with checks.naming(key):
        return datasets.open_source(name, data_dir, split)


def check_data(
    workdir: Path, sources: Mapping[str, Any], *, resumes: bool = False, save: bool = True
) -> None:
    """Write down what a run's data is, or hold it against what the run began with.

    Args:
        workdir: of the run; the digests are in its `data.json`.
        sources: "train", "validation", "test" or "evals.NAME" -> what was opened, or None.
        resumes: whether the run has figures already, which are of the data that it began with.
        save: of several processes one is to.

    Raises:
        ValueError: the training data is not what the run began with. Of other data that is said;
            either names all that differs.
    """
    path = workdir / DATA
    kept = config_lib.read(path) if path.exists() else {}
    known = dict(kept)
    if resumes and "train" in sources and "train" not in known:
        log.info("%s does not say what its data was: from now on it does, in %s", workdir, DATA)
    differ: dict[str, str] = {}
    for role, source in sources.items():
        if source is None or not (digest := source.digest()):
            continue
        name = f"{source.name}:{'+'.join(source.splits)}"
        now = {"data": name, "records": len(source), "digest": digest}
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
        log.warning("warning: %s; figures of before and after do not compare", line)
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
    """Global training batches of `size` pairs on the devices, from `start_step` on.

    For a `few` of them no processes are started.
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
    """The run's own vocabulary if it has one, else what the config says, kept in the workdir."""
    if config_lib.has_begun(workdir) and (own := saved_tokenizer(workdir)) is not None:
        return own
    restored = saved_tokenizer(config.restore_from) if config.restore_from else None
    tokenizer: Tokenizer
    if restored is not None:
        tokenizer = restored
    elif config.tokenizer.vocab == "captions":
        tokenizer = WordPiece.from_captions(record["caption"] for record in train)
    else:
        tokenizer = WordPiece.load(config.tokenizer.vocab)
    if jax.process_index() == 0:
        for left in (TOKENIZER, VOCAB):  # by a start that was refused
            (workdir / left).unlink(missing_ok=True)
        tokenizer.save(workdir / tokenizer.file_name)
    return tokenizer
