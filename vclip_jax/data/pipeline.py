"""Batches for training and evaluation, on the host.

The training order is a function of (seed, step). The whole stream of shuffled, decoded and
augmented examples is cut into global batches at the end, and each host takes the rows that its
devices hold. So the global batch at a step is the same, row by row, for any number and order of
hosts, devices, threads or workers. The data position is therefore the step, and starting at any
step takes constant time.
"""

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import grain
import numpy as np

from vclip_jax.data import workers
from vclip_jax.data.choices import ORDERS
from vclip_jax.data.images.augment import Change, Policy, augment
from vclip_jax.data.images.chinese_clip_augment import SHORTEST_CROP, chinese_clip_augment
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.images.enhance import enhance
from vclip_jax.data.images.fit import FINER, FITS, Fit, check_fit
from vclip_jax.data.images.gate import as_bits
from vclip_jax.data.images.preprocess import check_fitted, judged_record, record_square
from vclip_jax.data.mixture import Mixture
from vclip_jax.data.order import EXAMPLES, Shuffled
from vclip_jax.data.progress import Progress
from vclip_jax.data.record import Record
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import CONTEXT_LENGTH
from vclip_jax.devices import cores
from vclip_jax.files.errors import few, first_line

HostBatch = dict[str, np.ndarray]


class Batches(Iterator[HostBatch]):
    """An iterator of one host's batches that stays ended, or failed.

    After an error Grain's iterator continues without the lost batch; this one raises the same error
    again.
    """

    def __init__(self, batches: grain.DatasetIterator, progress: Progress):
        """Wrap a Grain iterator; `progress` is that of its examples."""
        self._batches = batches
        self._progress = progress
        self._error: BaseException | None = None

    def __next__(self) -> HostBatch:
        if self._error is not None:
            raise self._error
        try:
            return next(self._batches)
        except BaseException as error:
            if isinstance(error, RuntimeError) and (
                keys := self._progress.records_of_dead_workers()
            ):
                self._error = OSError(f"a data worker died at {few(keys)}: {first_line(error)}")
                raise self._error from error
            self._error = error
            raise

    def stalled(self, limit: float) -> str | None:
        """Return the reason if no batch has come for `limit` seconds; None if it is only slow."""
        return self._progress.stalled(limit)

    def close(self) -> None:
        """Stop the threads and processes of the pipeline; afterwards there are no more batches."""
        self._error = self._error or StopIteration()
        self._batches.close()
        self._progress.close()


def train_batches(
    source: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    seed: int,
    global_batch_size: int,
    size: int,
    fit: str = "squash",
    decode: str = "exact",
    augment: Policy | Change | str | None = None,
    enhance: bool = False,
    shuffle: str = "permutation",
    context_length: int = CONTEXT_LENGTH,
    start_step: int = 0,
    rows: Iterable[int] | None = None,
    num_threads: int | None = None,
    num_workers: int = 0,
) -> Batches:
    """Return this host's batches from `start_step` on, without end; every epoch has its own order.

    Args:
        source: the records, see `vclip_jax.datasets.open_source`; a `Mixture` has its own order.
        tokenizer: the tokenizer of the captions.
        seed: seed of order and augmentation, any non-negative integer.
        global_batch_size: examples a step over all hosts.
        size: height and width of the images in pixels.
        fit: see `vclip_jax.data.images.decode`.
        decode: "exact" or "fast", the `mode` there. With "fast", crops are taken from a picture
            that is larger by as much as they may be smaller, so that they lose no resolution.
        augment: a value of `augment.AUGMENTATIONS`; None is no augmentation. "chinese_clip" crops
            the photograph itself, so that `fit` has no effect.
        enhance: show local contrast instead of colours, see `enhance`; after augmentation.
        shuffle: one of `order.ORDERS`; "grain" for runs that began with it.
        context_length: tokens of a row.
        start_step: the step of the first batch, counted from 0.
        rows: this host's rows of the global batch, rising, see `sharding.rows_of_process`; None
            for all of them.
        num_threads: batches that are decoded at a time, by default one a core, at most 16.
        num_workers: processes that decode instead of threads, 0 for none, see `workers`. They are
            spawned, so scripts need `if __name__ == "__main__"`.

    Returns:
        An iterator of batches of b = len(rows) examples: `image` uint8 `[b, size, size, 3]`,
        `tokens` int32 `[b, context_length]`, `key_hash` uint32 `[b]` (CRC-32 of the record's key)
        and `caption_id` int32 `[b]` (CRC-32 of the caption, equal for equal captions).
        The iterator raises `decode.ImageError` at an image that cannot be decoded.

    Raises:
        ValueError: an argument is out of range or the source is empty.
    """
    rows = _check(source, global_batch_size, size, fit, decode, rows)
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed and start_step must not be negative, got {seed} and {start_step}")
    check_fitted(_name(source), source, size, fit, augment)
    progress = Progress()
    example = _TrainExample(
        _name(source),
        tokenizer,
        size,
        fit,
        decode,
        augment or Policy(),
        enhance,
        context_length,
        progress,
    )
    examples = _in_order(source, seed, shuffle).random_map(
        example, seed=_derived_seed(seed, "augmentation")
    )
    steps = grain.MapDataset.range(start_step, EXAMPLES // global_batch_size)
    batches = steps.map(_Rows(examples, global_batch_size, rows))
    return _iterate(batches, num_threads, num_workers, progress)


def record_keys(
    source: Sequence[Record],
    *,
    seed: int,
    global_batch_size: int,
    step: int,
    shuffle: str = "permutation",
) -> list[str]:
    """List the keys of the records of `train_batches` at a step, in the global batch's order."""
    records = step_records(
        source,
        seed=seed,
        global_batch_size=global_batch_size,
        step=step,
        rows=range(global_batch_size),
        shuffle=shuffle,
    )
    return [record["key"] for record in records]


def step_records(
    source: Sequence[Record],
    *,
    seed: int,
    global_batch_size: int,
    step: int,
    rows: Iterable[int],
    shuffle: str = "permutation",
) -> list[Record]:
    """List the records of `train_batches` at a step in these rows of the global batch."""
    in_order = _in_order(source, seed, shuffle)
    first = step * global_batch_size
    return [in_order[first + row] for row in rows]


def _in_order(source: Sequence[Record], seed: int, shuffle: str) -> grain.MapDataset:
    if shuffle not in ORDERS:
        raise ValueError(f"shuffle must be one of {', '.join(ORDERS)}, got {shuffle!r}")
    if isinstance(source, Mixture):
        if shuffle != "permutation":
            raise ValueError(f"shuffle={shuffle!r} is for one dataset as it is: use 'permutation'")
        return grain.MapDataset.source(source.in_order(seed))
    if shuffle == "permutation":
        return grain.MapDataset.source(Shuffled(source, seed))
    # Seeds are derived by hashing: Grain shuffles epoch e of seed s like epoch e - 1 of seed s + 1,
    # and its own default seeds depend on the number of transformations.
    shuffled = grain.MapDataset.source(source).shuffle(seed=_derived_seed(seed, "order"))
    return shuffled.repeat(EXAMPLES // len(source) + 1)


def eval_batches(
    source: Sequence[Record],
    *,
    global_batch_size: int,
    size: int,
    fit: str = "squash",
    decode: str = "exact",
    enhance: bool = False,
    gate: bool = False,
    rows: Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Batches:
    """Return this host's batches of all records, once, in stored order; zeros fill the last batch.

    Every host gets the same number of batches. With `gate` the photographs are judged. The other
    arguments are those of `train_batches`.

    Returns:
        An iterator of batches of b = len(rows) examples: `image` uint8 `[b, size, size, 3]`,
        `label` int32 `[b]`, `index` int32 `[b]` (the record's number; -1 for a row of filling,
        whose other values are 0) and, with `gate`, `gate` int32 `[b]`: the reasons to refuse a
        photograph, see `gate.as_bits`.

    Raises:
        ValueError: an argument is out of range or the source is empty.
    """
    rows = _check(source, global_batch_size, size, fit, decode, rows)
    check_fitted(_name(source), source, size, fit)
    progress = Progress()
    example = _EvalExample(source, _name(source), size, fit, decode, enhance, gate, progress)
    steps = -(-len(source) // global_batch_size)
    examples = grain.MapDataset.range(steps * global_batch_size).map(example)
    batches = grain.MapDataset.range(steps).map(_Rows(examples, global_batch_size, rows))
    return _iterate(batches, num_threads, 0, progress)


@dataclass(frozen=True)
class _Rows(grain.transforms.Map):
    """Map a step to some rows of its global batch."""

    examples: grain.MapDataset
    global_batch_size: int
    rows: Sequence[int]

    def map(self, element: int) -> HostBatch:
        first = element * self.global_batch_size
        examples = [self.examples[first + row] for row in self.rows]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


@dataclass(frozen=True)
class _TrainExample(grain.transforms.RandomMap):
    """Map a record to arrays, with random augmentation."""

    name: str
    tokenizer: Tokenizer
    size: int
    fit: str
    mode: str
    policy: Policy | Change | str
    enhance: bool
    context_length: int
    progress: Progress

    def random_map(self, element: Record, rng: np.random.Generator) -> HostBatch:
        with self.progress.at(f"{self.name} {element['key']}"):
            return self._arrays(element, rng)

    def _arrays(self, element: Record, rng: np.random.Generator) -> HostBatch:
        fast = self.mode == "fast"
        if isinstance(self.policy, str):
            least = math.ceil(FINER * self.size / SHORTEST_CROP) if fast else 0
            whole = read_rgb(element["image"], least, key=f"{self.name} {element['key']}")
            image = chinese_clip_augment(whole, self.size, rng, fast=fast)
        elif callable(self.policy):
            image = _decode(element, self.name, self.size, self.fit, self.mode)
            image = self.policy(image, rng)
        else:
            room = 1.0 / self.policy.min_crop
            image = _decode(element, self.name, self.size, self.fit, self.mode, room)
            image = augment(image, rng, self.policy, self.size)
        return {
            "image": enhance(image) if self.enhance else image,
            "tokens": self.tokenizer.encode([element["caption"]], self.context_length)[0],
            "key_hash": np.array(zlib.crc32(element["key"].encode()), np.uint32),
            "caption_id": np.array(zlib.crc32(element["caption"].encode()), np.uint32).view("i4"),
        }


@dataclass(frozen=True)
class _EvalExample(grain.transforms.Map):
    """Map a record's number to arrays; numbers past the last record are filling."""

    source: Sequence[Record]
    name: str
    size: int
    fit: str
    mode: str
    enhance: bool
    gate: bool
    progress: Progress

    def map(self, element: int) -> HostBatch:
        # The record is read in this block: its key is not known before.
        with self.progress.at(f"{self.name} record {element}"):
            return self._arrays(element)

    def _arrays(self, element: int) -> HostBatch:
        real = element < len(self.source)
        record = self.source[element] if real else None
        image = np.zeros((self.size, self.size, 3), np.uint8)
        refused: tuple[str, ...] = ()
        if record is not None:
            key = f"{self.name} {record['key']}"
            # Decoded in full, as in prediction: the same photograph gives the same answer.
            if self.gate:
                image, refused = judged_record(
                    record, self.size, self.fit, self.mode, self.enhance, key=key
                )
            else:
                image = record_square(record, self.size, self.fit, self.mode, whole=True, key=key)
                image = enhance(image) if self.enhance else image
        batch: HostBatch = {
            "image": image,
            "label": np.array(record["label"] if record is not None else 0, np.int32),
            "index": np.array(element if real else -1, np.int32),
        }
        if self.gate:
            batch["gate"] = np.array(as_bits(refused), np.int32)
        return batch


def _decode(
    record: Record, name: str, size: int, fit: str, mode: str, room: float = 1.0
) -> np.ndarray:
    return record_square(record, size, fit, mode, room=room, key=f"{name} {record['key']}")


def _iterate(
    dataset: grain.MapDataset, num_threads: int | None, num_workers: int, progress: Progress
) -> Batches:
    threads = min(16, cores.usable()) if num_threads is None else num_threads
    if threads < 1 or num_workers < 0:
        raise ValueError(
            f"num_threads must be at least 1 and num_workers not negative, "
            f"got {threads} and {num_workers}"
        )
    cv2.setNumThreads(1)  # pictures are decoded in parallel already
    if num_workers == 0:
        # An element is a whole batch here: each thread makes one, and one is in reserve.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
        return Batches(iter(dataset.to_iter_dataset(options)), progress)
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain passes the flags on to its workers
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    processes = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1)
    prefetched = dataset.to_iter_dataset(options).mp_prefetch(
        processes, worker_init_fn=partial(_start_worker, dict(FITS), progress)
    )
    return Batches(iter(prefetched), progress)


def _start_worker(fits: Mapping[str, Fit], progress: Progress, index: int, count: int) -> None:
    """Start a worker, with the fits that a recipe registered in the parent process."""
    FITS.update(fits)
    workers.start(index, count, progress)


def _derived_seed(seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _name(source: Sequence[Record]) -> str:
    return f"{getattr(source, 'name', 'source')}:{getattr(source, 'split', 'all')}"


def _check(
    source: Sequence[Record],
    global_batch_size: int,
    size: int,
    fit: str,
    mode: str,
    rows: Iterable[int] | None,
) -> tuple[int, ...]:
    """Check the arguments and return the requested rows of the global batch."""
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size must be at least 1, got {global_batch_size}")
    wanted = tuple(map(int, range(global_batch_size) if rows is None else rows))
    if not wanted or not all(0 <= row < global_batch_size for row in wanted):
        raise ValueError(
            f"rows must be some of the {global_batch_size} rows of the global batch, counted from "
            f"0, got {', '.join(map(str, wanted[:5])) or 'none'}"
        )
    check_fit(size, fit, mode)
    if not len(source):
        raise ValueError(f"{_name(source)} has no records")
    return wanted
