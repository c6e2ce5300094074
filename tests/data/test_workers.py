"""How many processes, what they survive, and that nothing else changes."""

import gc
import multiprocessing
import os
import signal
import time

import cv2
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.data.images.augment import AUGMENTATIONS
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.prefetch import prefetch_to_device
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.data.workers import AUTOMATIC, how_many

MIB = 2**20


@pytest.mark.parametrize(
    ("cores", "batch", "room", "count"),
    [
        (2, 10 * MIB, 2**40, 0),
        (7, 10 * MIB, 2**40, 0),
        (8, 10 * MIB, 2**40, 7),
        (224, 10 * MIB, 2**40, 64),
        (32, 10 * MIB, 400 * MIB, 10),  # half of the room, two batches each
        (32, 300 * MIB, 64 * MIB, 0),  # a container's 64 MiB
    ],
)
def test_the_number_of_processes_follows_cores_and_shared_memory(cores, batch, room, count):
    assert how_many(AUTOMATIC, cores, batch, room) == count


def test_cores_that_lie_idle_because_shared_memory_is_small_are_reported(caplog):
    assert how_many(AUTOMATIC, 32, 300 * MIB, 64 * MIB) == 0
    assert "32 cores: /dev/shm has 64 MiB free" in caplog.text
    caplog.clear()
    how_many(AUTOMATIC, 4, 300 * MIB, 64 * MIB)
    assert not caplog.text


def test_processes_whose_batches_do_not_fit_are_refused_with_the_remedy():
    assert how_many(3, 2, 10 * MIB, 64 * MIB) == 3
    with pytest.raises(ValueError, match=r"workers=4 need 80 MiB .* has 64: .*--shm-size"):
        how_many(4, 2, 10 * MIB, 64 * MIB)


def batches(**changes):
    records = []
    for index in range(11):
        image = np.full((20, 24, 3), 40 + index, np.uint8)
        png = cv2.imencode(".png", image)[1].tobytes()
        records.append({"image": png, "caption": "未见异常。", "key": f"k{index}", "label": 0})
    options = {"seed": 7, "global_batch_size": 4, "size": 16, "augment": AUGMENTATIONS["fundus"]}
    tokenizer = WordPiece.from_captions(["未见异常。"])
    return train_batches(records, tokenizer, context_length=16, **options, **changes)


@pytest.mark.slow
def test_batches_from_processes_reach_the_device_unchanged():
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    before = set(os.listdir("/dev/shm"))
    threads = batches(num_threads=2)
    expected = [next(threads) for _ in range(12)]
    threads.close()
    with prefetch_to_device(batches(num_workers=2), sharding) as device:
        taken = [next(device) for _ in range(12)]  # kept while their shared memory is handed back
    for want, got in zip(expected, taken, strict=True):
        for name in want:
            np.testing.assert_array_equal(want[name], np.asarray(got[name]))
    del taken, got, device
    gc.collect()
    deadline = time.monotonic() + 20
    while (left := set(os.listdir("/dev/shm")) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
def test_processes_outlive_the_signals_that_end_a_job():
    stream = batches(num_workers=2)
    undisturbed = batches(num_threads=1)
    for step in range(8):
        if step == 2:  # each has made a batch, so each has started
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGTERM)
                os.kill(child.pid, signal.SIGINT)
        np.testing.assert_array_equal(next(stream)["image"], next(undisturbed)["image"])
    children = multiprocessing.active_children()
    assert len(children) == 2
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 20
    assert not any(child.is_alive() for child in children)
    undisturbed.close()
