"""The shards of a dataset that is being built: how one is made, and how many are."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vclip_jax.datasets.blobs import read
from vclip_jax.datasets.listing import Item, Reject
from vclip_jax.datasets.records import DatasetError
from vclip_jax.datasets.store import Storage, StoreError, store
from vclip_jax.datasets.workers import start_worker

_progress: Any = None
"""In a worker: two shared counters, photographs done and rejected."""


@dataclass(frozen=True)
class Shard:
    """A unit of work: some items of one split, and where their records go."""

    split: str
    index: int
    path: str
    note: str
    """Written last: the shard is complete if and only if this file is there."""
    items: tuple[Item, ...]
    columns: tuple[str, ...]
    storage: Storage


def make_shard(shard: Shard, tick: Callable[[bool], None] = lambda kept: None) -> int:
    """Make one shard's file and its note; returns the number of items. A pure function of the
    shard, so it may be run again, by several, on any machine that sees the files.

    Args:
        shard: what to make.
        tick: called after each photograph, with whether it was kept.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    kept: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    # One chunk a record (TFDS has it so): random access reads no more than it needs, and a flipped
    # bit costs one record.
    temporary = f"{shard.path}.{os.getpid()}.tmp"
    writer = ArrayRecordWriter(temporary, "group_size:1")
    size = 0
    for item in shard.items:
        try:
            data = _read(item)
            image, width, height = store(data, shard.storage)
        except StoreError as error:
            where = "" if shard.storage.anonymous else f"{item.image}: "
            rejects.append(asdict(Reject(item.key, error.reason, f"{where}{error.detail}")))
            tick(False)
        else:
            record = _example(item, image, shard.columns)
            writer.write(record)
            size += len(record)
            kept.append(
                {"key": item.key, "width": width, "height": height,
                 "digest": hashlib.blake2b(data, digest_size=12).hexdigest()}
            )  # fmt: skip
            tick(True)
    writer.close()
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note = {"kept": kept, "rejects": rejects, "bytes": size, "sha256": digest}
    _replace(Path(temporary), Path(shard.path))
    _write(Path(shard.note), json.dumps(note, ensure_ascii=False))
    return len(shard.items)


def _read(item: Item) -> bytes:
    try:
        return read(item.image)
    except (OSError, ValueError) as error:
        raise StoreError("unreadable file", " ".join(str(error).split())) from error


def _example(item: Item, image: bytes, columns: Iterable[str]) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    features = example.features.feature
    features["image"].bytes_list.value.append(image)
    features["caption"].bytes_list.value.append(item.caption.encode())
    features["key"].bytes_list.value.append(item.key.encode())
    features["label"].int64_list.value.append(item.label)
    for name, value in zip(columns, item.values, strict=True):
        if isinstance(value, str):
            features[name].bytes_list.value.append(value.encode())
        elif isinstance(value, float):
            features[name].float_list.value.append(value)
        else:
            features[name].int64_list.value.append(value)
    # Protobuf's map order varies from process to process.
    return example.SerializeToString(deterministic=True)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    _replace(temporary, path)


def _replace(temporary: Path, path: Path) -> None:
    """Give a complete file its name, and not before its content is on the disk."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


# --- Many shards.


def run_here(shards: Sequence[Shard], bar: tqdm) -> None:
    rejected = 0

    def tick(kept: bool) -> None:
        nonlocal rejected
        rejected += not kept
        bar.update()
        bar.set_postfix(rejects=rejected, refresh=False)

    for shard in shards:
        make_shard(shard, tick)


def run_processes(shards: Sequence[Shard], workers: int, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")  # threads of JAX or OpenCV may be running here
    done, rejected = context.Value("q", 0), context.Value("q", 0)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(done, rejected)
    )
    start = bar.n
    running: set[Future[int]] = set()
    remaining = iter(shards)
    try:
        while True:
            for shard in remaining:
                running.add(pool.submit(_make_in_worker, shard))
                if len(running) == 2 * workers:
                    break
            finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            bar.set_postfix(rejects=rejected.value, refresh=False)
            bar.update(start + done.value - bar.n)
            for future in finished:
                future.result()
            if not running and not finished:
                break
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process died (out of memory?): run the same command again to go on, with "
            "fewer --workers if it happens again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_in_worker(shard: Shard) -> int:
    done, rejected = _progress

    def tick(kept: bool) -> None:
        with done.get_lock():
            done.value += 1
        if not kept:
            with rejected.get_lock():
                rejected.value += 1

    return make_shard(shard, tick)


def _start_worker(done: Any, rejected: Any) -> None:
    global _progress
    _progress = done, rejected
    start_worker()


def run_beam(shards: Sequence[Shard], arguments: Sequence[str]) -> None:
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
