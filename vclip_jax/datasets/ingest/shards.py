"""The shards of a dataset under construction: making one, and making many."""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from tqdm import tqdm

from vclip_jax.console import terminal
from vclip_jax.data.images import guarded
from vclip_jax.data.images.opening import TOO_MUCH_MEMORY
from vclip_jax.datasets.built import DatasetError
from vclip_jax.datasets.formats.blobs import read
from vclip_jax.datasets.ingest.store import Storage, StoreError, store
from vclip_jax.datasets.listing import Blob, Item, Reject, hash_of
from vclip_jax.files.errors import one_line
from vclip_jax.files.open_files import read_record
from vclip_jax.files.writing import replacing, write_text

_AT_A_TIME: Final = 16

# One chunk a record (as in TFDS): random access reads no more than it needs, and a flipped bit
# damages one record. JPEGs cannot be compressed further.
_WRITER: Final = "group_size:1,uncompressed"


class Stored(NamedTuple):
    """A photograph as it is stored."""

    image: bytes
    width: int
    height: int
    digest: str
    """Digest of the original bytes."""


@dataclass(frozen=True)
class Shard:
    """A unit of work: some items of one split, and the paths of their records."""

    split: str
    index: int
    path: str
    note: str
    """Written last: the shard is complete if and only if this file exists."""
    items: tuple[Item, ...]
    columns: tuple[str, ...]
    storage: Storage


def make_shard(shard: Shard, tick: Callable[[bool], None] = lambda kept: None) -> int:
    """Make one shard's file and its note; return the number of items.

    The result is a pure function of the shard: it may be computed again, by several processes, on
    any machine that sees the files. Photographs are decoded in another process, see
    `vclip_jax.data.images.guarded`: one that crashes the decoder, or takes too long, is a reject.

    Args:
        shard: the shard to make.
        tick: called after each photograph, with True if it was kept.
    """
    kept: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    size = 0
    with _replacing_records(Path(shard.path)) as writer:
        for item, outcome in zip(shard.items, _outcomes(shard), strict=True):
            if isinstance(outcome, StoreError):
                # The reason may contain the file's name.
                detail = "" if shard.storage.anonymous else f"{item.image}: {outcome.detail}"
                rejects.append(asdict(Reject(item.key, outcome.reason, detail)))
                tick(False)
            else:
                record = _example(item, outcome.image, shard.columns, shard.storage.fit)
                writer.write(record)
                size += len(record)
                kept.append(
                    {
                        "key": item.key,
                        "width": outcome.width,
                        "height": outcome.height,
                        "digest": outcome.digest,
                    }
                )
                tick(True)
    note = {"kept": kept, "rejects": rejects, "bytes": size}
    write_text(Path(shard.note), json.dumps(note, ensure_ascii=False), sync=True)
    return len(shard.items)


@contextmanager
def _replacing_records(path: Path) -> Iterator[Any]:
    """Yield a writer of records; the file gets its name at the end, once it is on the disk."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with replacing(path, sync=True) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITER)
        yield writer
        writer.close()


def _outcomes(shard: Shard) -> Iterator[Stored | StoreError]:
    """Yield the results for the photographs of a shard, in order.

    Several photographs go to a worker process at a time, which costs less. If one of them crashes
    the process or exceeds the limits, each gets a call and the limits for itself.
    """
    for start in range(0, len(shard.items), _AT_A_TIME):
        blobs = [item.image for item in shard.items[start : start + _AT_A_TIME]]
        try:
            several = guarded.call(read_and_store, blobs, shard.storage)
        except guarded.Fault:
            several = []
        if any(getattr(one, "reason", "") == TOO_MUCH_MEMORY for one in several):
            several = []
        yield from several or (_alone(blob, shard.storage) for blob in blobs)


def _alone(blob: Blob, storage: Storage) -> Stored | StoreError:
    try:
        return guarded.call(read_and_store, [blob], storage)[0]
    except guarded.Fault as error:
        return StoreError(error.reason, str(error))


def read_and_store(blobs: Sequence[Blob], storage: Storage) -> list[Stored | StoreError]:
    """Read and store pictures in a worker process, under the limits of one picture."""
    # The first is read without limits: rows of a Parquet file are read by the gigabyte.
    first = _read(blobs[0])
    with guarded.limited():
        rest = (_read(blob) for blob in blobs[1:])
        return [_store(data, storage) for data in chain([first], rest)]


def _read(blob: Blob) -> bytes | StoreError:
    try:
        return read(blob)
    except MemoryError:
        return StoreError(TOO_MUCH_MEMORY, "to read the file")
    except (OSError, ValueError) as error:
        return StoreError("unreadable file", one_line(error))


def _store(data: bytes | StoreError, storage: Storage) -> Stored | StoreError:
    if isinstance(data, StoreError):
        return data
    try:
        image, width, height = store(data, storage)
    except StoreError as error:
        return error
    return Stored(image, width, height, hashlib.blake2b(data, digest_size=12).hexdigest())


def _example(item: Item, image: bytes, columns: Iterable[str], fitted: str) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    features = example.features.feature
    features["image"].bytes_list.value.append(image)
    features["caption"].bytes_list.value.append(item.caption.encode())
    features["key"].bytes_list.value.append(item.key.encode())
    features["label"].int64_list.value.append(item.label)
    if fitted:
        features["fitted"].bytes_list.value.append(fitted.encode())
    for name, value in zip(columns, item.values, strict=True):
        if isinstance(value, str):
            features[name].bytes_list.value.append(value.encode())
        elif isinstance(value, float):
            features[name].float_list.value.append(value)
        else:
            features[name].int64_list.value.append(value)
    # Protobuf's map order varies from process to process.
    return example.SerializeToString(deterministic=True)


# --- From the order of the source to that of the dataset.


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a record to be reordered."""

    key: str
    path: str
    number: int
    """The record's number in the file, from 0."""


def shuffled(places: Sequence[Place], seed: int) -> list[Place]:
    """Sort in an order that follows from the seed and the keys, whatever the source's order."""
    return sorted(places, key=lambda p: (hash_of(p.key, f"order of seed {seed}"), p.key))


def write_in_order(places: Sequence[Place], folder: Path, name: str, files: int) -> list[int]:
    """Copy records one by one into files with equal numbers of records.

    An existing file is complete and is kept, so that a killed build continues after it.

    Args:
        places: the places of a split's records, in their new order.
        folder: the folder of the files.
        name: start of the files' names.
        files: number of files, at least 1; fewer if there are fewer records.

    Returns:
        The number of records in each.

    Raises:
        DatasetError: a record cannot be read back.
    """
    size = -(-len(places) // files)
    parts = [places[start : start + size] for start in range(0, len(places), size)]
    bar = terminal.bar(
        total=len(places),
        unit=" records",
        desc=f"{name}, in order",
    )
    source = uuid.uuid4().hex
    with bar:
        for index, part in enumerate(parts):
            path = folder / f"{name}.array_record-{index:05d}-of-{len(parts):05d}"
            if not path.exists():
                # Read in the order on the disk: the records of a file fit into memory.
                on_disk = sorted(part, key=lambda place: (place.path, place.number))
                records = {place.key: _read_back(place, source) for place in on_disk}
                with _replacing_records(path) as writer:
                    for place in part:
                        writer.write(records[place.key])
            bar.update(len(part))
    return [len(part) for part in parts]


def _read_back(place: Place, source: str) -> bytes:
    try:
        return read_record(source, place.path, place.number)
    except Exception as error:  # ArrayRecord raises unrelated types
        raise DatasetError(
            f"{place.key} cannot be read back from {place.path} ({one_line(error, 200)}): check "
            f"the disk, then remove {Path(place.path).parents[1]} and build again"
        ) from error


# --- Many shards.


def run(shards: Sequence[Shard], workers: int, bar: tqdm) -> None:
    """Make shards, `workers` at a time.

    Each thread writes the photographs that its own process decodes.

    Raises:
        DatasetError: processes were killed.
    """
    lock, stop = threading.Lock(), threading.Event()
    rejected = 0

    def tick(kept: bool) -> None:
        nonlocal rejected
        if stop.is_set():
            raise InterruptedError("the build was stopped")
        with lock:
            if not kept:
                rejected += 1
                bar.set_postfix(rejects=rejected, refresh=False)
            bar.update()

    running: set[Future[int]] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for shard in shards:
                running.add(pool.submit(make_shard, shard, tick))
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
        except guarded.Killed as error:
            raise DatasetError(
                "a worker process was killed (out of memory?): run the same command again to go "
                "on, with fewer --workers if it happens again"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    guarded.end_idle(keep=1)


def run_beam(shards: Sequence[Shard], arguments: Sequence[str]) -> None:
    """Make shards in an Apache Beam pipeline with these arguments.

    Raises:
        DatasetError: one line: Apache Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DatasetError("Apache Beam is not installed: pip install 'vclip_jax[beam]'") from error
    with apache_beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
        _ = (
            pipeline
            | "Shards" >> apache_beam.Create(shards)
            | "Spread" >> apache_beam.Reshuffle()
            | "Make" >> apache_beam.Map(make_shard)
        )
