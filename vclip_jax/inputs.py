"""What a config names, opened: data, batches, evaluations, vocabulary.

What is wrong with them is said here, before anything is compiled.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vclip_jax import datasets, prompts, sharding
from vclip_jax.data import pipeline, prefetch
from vclip_jax.data.augment import named_policy
from vclip_jax.data.json_tokenizer import AnyTokenizer, file_name, in_folder
from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.datasets.records import Record
from vclip_jax.evaluate import ZeroShotTask

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
    datasets.prepare(data.dataset, data.source, data.data_dir)
    train = datasets.open_source(data.dataset, data.data_dir, data.train_split)
    if len(train) < config.global_batch_size:
        raise ValueError(f"{data.dataset} has {len(train)} records in {data.train_split}, fewer "
                         f"than config.global_batch_size={config.global_batch_size}")  # fmt: skip
    if not data.validation_split or not config.validation_batches:
        return train, None
    validation = datasets.open_source(data.dataset, data.data_dir, data.validation_split)
    pairs = draw_pairs(validation, config.validation_batches * config.global_batch_size)
    log.info("validation: %d of %d pairs, drawn with seed %d",
             len(pairs), len(validation), PAIRS_SEED)  # fmt: skip
    return train, pairs


def open_test_pairs(config: ConfigDict) -> Any:
    """The pairs that are looked at in the end alone; the dataset must be built. None without."""
    if not config.data.test_split:
        return None
    data = config.data
    return draw_pairs(datasets.open_source(data.dataset, data.data_dir, data.test_split))


def open_train_batches(
    config: ConfigDict,
    mesh: Mesh,
    train: Any,
    tokenizer: AnyTokenizer,
    size: int,
    start_step: int = 0,
) -> prefetch.DevicePrefetcher:
    """Global training batches of `size` pairs on the devices, from `start_step` on."""
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
        context_length=config.tokenizer.context_length,
        start_step=start_step,
        rows=sharding.rows_of_process(mesh, size),
    )
    return prefetch.prefetch_to_device(batches, NamedSharding(mesh, sharding.BATCH))


def open_zero_shot_tasks(config: ConfigDict) -> list[ZeroShotTask]:
    """The evaluations of the config whose data is there or can be built; the others are named."""
    tasks = []
    for name, entry in config.evals.items():
        try:
            datasets.prepare(entry.dataset, entry.source, config.data.data_dir)
        except datasets.SourceNeededError:
            log.info("evaluation %s is skipped: set --config.evals.%s.source=DIR", name, name)
            continue
        source = datasets.open_source(entry.dataset, config.data.data_dir, entry.split)
        prompt_set = prompts.for_classes(
            entry.prompts, source.class_names, source.name, groups=True
        )
        tasks.append(ZeroShotTask(name, source, prompt_set))
    return tasks


def check_words(config: ConfigDict) -> None:
    """Load vocabulary and prompts once: a wrong name should not cost the building of a dataset."""
    if config.tokenizer.vocab != "captions":
        Tokenizer.load(config.tokenizer.vocab)
    for entry in config.evals.values():
        if entry.prompts != "labels":
            prompts.load(entry.prompts)


def load_tokenizer(config: ConfigDict, train: Any, workdir: Path) -> AnyTokenizer:
    """The run's own vocabulary if it has one, else what the config says, kept in the workdir."""
    if (own := in_folder(workdir)) is not None:
        return own
    restored = in_folder(config.restore_from) if config.restore_from else None
    tokenizer: AnyTokenizer
    if restored is not None:
        tokenizer = restored
    elif config.tokenizer.vocab == "captions":
        tokenizer = Tokenizer.from_captions(record["caption"] for record in train)
    else:
        tokenizer = Tokenizer.load(config.tokenizer.vocab)
    if jax.process_index() == 0:
        tokenizer.save(workdir / file_name(tokenizer))
    return tokenizer
