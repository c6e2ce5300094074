"""The synthetic datasets as TFDS builders: ArrayRecord files for training runs.

`build` makes a dataset, or finds it made. Records are rendered in parallel and written in order
with constant memory, and the files are byte for byte the same on every build with one version of
this package, NumPy and libjpeg-turbo (NumPy may change a distribution's stream between releases).

The pictures change whenever the renderer, the grammar or a domain does. Then raise
`RENDER_VERSION`: it is the dataset's version, so stale files are left alone and new ones are made.
"""

import contextlib
import fcntl
import functools
import itertools
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from vclip_jax.console import terminal
from vclip_jax.datasets.ingest.workers import start_worker
from vclip_jax.datasets.synthetic.annotation import ANNOTATION_COLUMNS
from vclip_jax.datasets.synthetic.domains import DOMAINS, TRAINING_DOMAIN
from vclip_jax.datasets.synthetic.record import key_of, record, records, split_of
from vclip_jax.devices import cores
from vclip_jax.devices.ahead import ahead

RENDER_VERSION: Final = 4

_RECORDS_PER_SHARD: Final = 1024
_RECORDS_PER_CALL: Final = 8
_FEWEST_FOR_PROCESSES: Final = 64
"""Records below which starting processes takes longer than rendering."""

_TEXT_COLUMNS: Final = ("file_md5", "file_name", "eyes_side", "diagnosticAdvice")

Example = dict[str, Any]


@dataclass
class SyntheticConfig(tfds.core.BuilderConfig):
    """The dataset to make; `synthetic_config` fills in the name."""

    domain: str = TRAINING_DOMAIN
    size: int = 224
    """Height and width in pixels."""
    count: int = 0
    """Number of records over all splits."""
    seed: int = 0


def synthetic_config(domain: str, size: int, count: int, seed: int) -> SyntheticConfig:
    """Return a config named after its contents, such as "synfundus_like-128px-12000-s0".

    Raises:
        ValueError: unknown domain, a size below 16, a negative seed or fewer than one record.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown synthetic domain {domain!r}: use one of {', '.join(DOMAINS)}")
    if size < 16 or count < 1 or seed < 0:
        raise ValueError(
            f"a synthetic dataset needs size >= 16, count >= 1 and seed >= 0, "
            f"got size={size}, count={count}, seed={seed}"
        )
    name = f"{domain}-{size}px-{count}-s{seed}"
    return SyntheticConfig(name=name, domain=domain, size=size, count=count, seed=seed)


class Synthetic(tfds.core.ShardBasedBuilder):
    """Synthetic fundus photographs with SynFundus-1M's annotations and Chinese captions.

    A `ShardBasedBuilder`: TFDS's shuffling builder needs TensorFlow for a split past 1000 MiB.
    """

    VERSION = tfds.core.Version(f"{RENDER_VERSION}.0.0")
    builder_config: SyntheticConfig

    def __init__(self, *, workers: int | None = None, **kwargs: Any):
        """Take the number of rendering processes, by default one a core; pass the rest to TFDS."""
        self._workers = workers
        super().__init__(**kwargs)

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> SyntheticConfig | None:
        """Return the config of a name, for TFDS: each well-formed name is one, there is no list."""
        parts = re.fullmatch(r"(\w+)-(\d+)px-(\d+)-s(\d+)", name)
        if parts is None or parts[1] not in DOMAINS:
            return None
        return synthetic_config(parts[1], int(parts[2]), int(parts[3]), int(parts[4]))

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        columns = {
            column: tfds.features.Text()
            if column in _TEXT_COLUMNS
            else tfds.features.Scalar(dtype=np.int64)
            for column in ANNOTATION_COLUMNS
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(config.size, config.size, 3), encoding_format="jpeg"
                    ),
                    "caption": tfds.features.Text(),
                    "key": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=DOMAINS[config.domain].classes),
                    **columns,
                }
            ),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[str, Example]]]]]:
        del dl_manager
        config = self.builder_config
        splits: dict[str, list[int]] = {}
        for index in range(config.count):
            key = key_of(config.domain, config.seed, index)
            split = split_of(key) if config.domain == TRAINING_DOMAIN else "test"
            splits.setdefault(split, []).append(index)
        shards = {
            split: [
                indices[start : start + _RECORDS_PER_SHARD]
                for start in range(0, len(indices), _RECORDS_PER_SHARD)
            ]
            for split, indices in splits.items()
        }
        # TFDS writes shards in this order, one after another, so one stream can feed them all.
        order = [index for indices in splits.values() for index in indices]
        stream = _rendered(config, order, self._workers)

        def examples(shard: Sequence[int]) -> Iterator[tuple[str, Example]]:
            for example in itertools.islice(stream, len(shard)):
                yield example["key"], example
            if shard[-1] == order[-1]:
                stream.close()  # ends the workers now, before the garbage collector would

        return {
            split: [functools.partial(examples, shard) for shard in parts]
            for split, parts in shards.items()
        }

    def _example_writer(self) -> tfds_writer.ExampleWriter:
        return _DeterministicWriter(file_format=self.info.file_format)


class _DeterministicWriter(tfds_writer.ExampleWriter):
    """Sorts the features of each example, because protobuf's map order varies between processes."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, _sorted(example)) for key, example in examples))


def build(
    domain: str,
    size: int,
    count: int,
    seed: int,
    data_dir: str | os.PathLike[str],
    workers: int | None = None,
) -> Synthetic:
    """Make a synthetic dataset under `data_dir`, unless it exists.

    A build that was cut off starts again; two processes that want the same dataset on one machine
    wait for each other. With more than one worker, a script must call this function under `if
    __name__ == "__main__"`: the workers are spawned and import the script.

    Args:
        domain: a key of `domains.DOMAINS`; the training domain has the splits train, validation
            and test (in a very small dataset an empty split is left out), the others have only
            test.
        size: height and width of the pictures in pixels.
        count: number of records over all splits.
        seed: seed of all draws; another seed gives another dataset.
        data_dir: a local folder; the files go to data_dir/synthetic/CONFIG/VERSION.
        workers: processes that render, by default one a core.

    Returns:
        The builder, ready for `as_data_source`.

    Raises:
        ValueError: see `synthetic_config`.
    """
    config = synthetic_config(domain, size, count, seed)
    folder = Path(data_dir) / "synthetic" / config.name
    finished = folder / str(Synthetic.VERSION)
    if (finished / "dataset_info.json").exists():  # the folder is whole: no write access is needed
        return Synthetic(
            config=config.name, data_dir=data_dir, file_format="array_record", workers=workers
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Under the lock no other process builds here, so unfinished folders are leftovers.
        for leftover in folder.glob("incomplete.*"):
            shutil.rmtree(leftover)
        if finished.exists() and not (finished / "dataset_info.json").exists():
            shutil.rmtree(finished)
        builder = Synthetic(
            config=config.name, data_dir=data_dir, file_format="array_record", workers=workers
        )
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints that it "downloads"
            builder.download_and_prepare()
    return builder


def _sorted(example: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def _rendered(
    config: SyntheticConfig, indices: Sequence[int], workers: int | None
) -> Generator[Example, None, None]:
    """Yield the records of `indices`, in order; a bounded number of them is rendered ahead."""
    if workers is None:
        workers = cores.usable() if len(indices) >= _FEWEST_FOR_PROCESSES else 1
    progress = terminal.bar(total=len(indices), desc=config.name, unit=" images")
    with progress:
        for example in _in_order(config, indices, workers):
            progress.update()
            yield example


def _in_order(config: SyntheticConfig, indices: Sequence[int], workers: int) -> Iterator[Example]:
    what = (config.domain, config.size, config.seed)
    if workers <= 1:
        yield from (record(*what, index) for index in indices)
        return
    # Spawned, not forked: JAX and OpenCV may have running threads here.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
    )
    try:
        starts = range(0, len(indices), _RECORDS_PER_CALL)
        calls = (indices[start : start + _RECORDS_PER_CALL] for start in starts)
        for made in ahead(pool, functools.partial(records, *what), calls, 4 * workers):
            yield from made
    finally:
        pool.shutdown(cancel_futures=True)
