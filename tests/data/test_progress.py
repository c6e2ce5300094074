"""A worker that hangs or dies is noticed and named; one that is slow is left alone."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from vclip_jax.data import progress as progress_module
from vclip_jax.data.pipeline import eval_batches, record_keys, train_batches
from vclip_jax.data.prefetch import DevicePrefetcher
from vclip_jax.data.progress import Progress, StalledError
from vclip_jax.data.text.wordpiece import WordPiece

CAPTION = "未见异常。"
TOKENIZER = WordPiece.from_captions([CAPTION])
PICTURE = np.zeros((20, 24, 3), np.uint8)


def png() -> bytes:
    import cv2

    return cv2.imencode(".png", PICTURE)[1].tobytes()


RECORDS = [
    {"image": png(), "caption": CAPTION, "key": f"k{index}", "label": 0} for index in range(12)
]


class SlowTokenizer:
    """Takes a while, or for ever at one of the captions."""

    def __init__(self, seconds: float, only: str = ""):
        self.seconds, self.only, self.released = seconds, only, threading.Event()

    def encode(self, texts, length):
        if not self.only or texts[0] == self.only:
            self.released.wait(self.seconds)
        return TOKENIZER.encode(texts, length)


def prefetched(tokenizer, records=RECORDS, patience=1.0, **changes):
    import jax

    batches = train_batches(
        records,
        tokenizer,
        seed=0,
        global_batch_size=4,
        size=16,
        context_length=16,
        num_threads=2,
        **changes,
    )
    return DevicePrefetcher(
        batches, jax.sharding.SingleDeviceSharding(jax.devices()[0]), 1, patience
    )


def test_a_record_that_hangs_is_named():
    stuck = [*RECORDS[:5], RECORDS[5] | {"caption": "等待", "key": "the-culprit"}, *RECORDS[6:]]
    tokenizer = SlowTokenizer(60, only="等待")
    started = time.monotonic()
    said = r"data does not come: source:all the-culprit has been worked on for \d"
    with prefetched(tokenizer, stuck) as batches, pytest.raises(StalledError, match=said):
        list(zip(range(4), batches, strict=False))
    assert time.monotonic() - started < 20  # leaving does not wait for it
    tokenizer.released.set()


def test_storage_that_does_not_answer_is_said():
    released = threading.Event()

    class Dead(list):
        """Answers while the pipeline is built, and no more."""

        def __getitem__(self, index):
            if threading.current_thread() is not threading.main_thread():
                released.wait(60)
            return super().__getitem__(index)

    with prefetched(TOKENIZER, Dead(RECORDS)) as batches:
        with pytest.raises(StalledError, match="no record was read for 1 s"):
            next(batches)
        released.set()


def test_what_is_slow_is_waited_for():
    with prefetched(SlowTokenizer(0.5), patience=0.9) as batches:  # 2 s a batch
        assert next(batches)["image"].shape == (4, 16, 16, 3)


def test_a_worker_that_dies_is_named_with_its_record():
    records = [record | {"key": "x" * 30} for record in RECORDS]

    class Deadly:  # here, lest the worker has to import this file
        def encode(self, texts, length):
            os.kill(os.getpid(), signal.SIGKILL)

    batches = train_batches(
        records, Deadly(), seed=0, global_batch_size=4, size=16, context_length=16, num_workers=1
    )
    with pytest.raises(OSError, match=r"a data worker died at source:all x{30}"):
        next(batches)
    folder = batches._progress.folder
    assert folder.is_dir()
    batches.close()
    assert not folder.exists()


def test_the_keys_of_a_step_are_known_without_reading_images():
    import zlib

    batches = train_batches(RECORDS, TOKENIZER, seed=3, global_batch_size=4, size=16)
    for step in range(5):
        keys = record_keys(RECORDS, seed=3, global_batch_size=4, step=step)
        hashes = [zlib.crc32(key.encode()) for key in keys]
        assert hashes == next(batches)["key_hash"].tolist()
    batches.close()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of this process and of those that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_threads_alone_leave_no_files(temporary):
    batches = eval_batches(RECORDS, global_batch_size=4, size=16, num_threads=2)
    next(batches)
    assert [entry.key for entry in batches._progress.entries() if not entry.key]
    assert not list(temporary.glob("vclip-*"))
    batches.close()


def test_the_files_of_processes_go_when_nobody_asks_any_more(temporary):
    for end in ("close", "del"):
        progress = Progress()
        with pickle.loads(pickle.dumps(progress)).at("a"):
            assert len(list(temporary.iterdir())) == 1
        if end == "close":
            progress.close()
            progress.close()
        del progress
        gc.collect()
        assert not list(temporary.iterdir())


def test_a_fork_that_ends_leaves_the_files(temporary):
    progress = Progress()
    pickle.dumps(progress)
    progress_module._remove(progress.folder, os.getpid() + 1)
    assert list(temporary.iterdir())


SCRIPT = """
import multiprocessing, os, pickle, signal, sys, time
from vclip_jax.data import workers
from vclip_jax.data.progress import Progress


def work(progress):
    workers.start(0, 1, progress)
    with progress.at("a record"):
        os.kill(os.getppid(), getattr(signal, sys.argv[1]))
        time.sleep(60)


if __name__ == "__main__":
    progress = Progress()
    if sys.argv[1] in ("SIGTERM", "SIGKILL"):
        process = multiprocessing.get_context("spawn").Process(target=work, args=(progress,))
        process.start()
        process.join()
    assert os.path.isdir(pickle.loads(pickle.dumps(progress)).folder)
    if sys.argv[1] == "error":
        raise ValueError
    if sys.argv[1] == "exit":
        sys.exit(3)
"""


@pytest.mark.parametrize("way", ["end", "error", "exit", "SIGTERM", "SIGKILL"])
def test_whichever_way_a_process_ends_its_files_go(temporary, way):
    script = temporary / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run([sys.executable, script, way], capture_output=True, check=False)
    codes = {"end": 0, "error": 1, "exit": 3, "SIGTERM": -15, "SIGKILL": -9}
    assert result.returncode == codes[way], result.stderr
    until = time.monotonic() + 60
    while list(temporary.glob("vclip-*")) and time.monotonic() < until:
        time.sleep(0.1)
    assert not list(temporary.glob("vclip-*"))


def test_no_descriptor_is_left_open():
    def read() -> None:
        batches = eval_batches(RECORDS, global_batch_size=4, size=16, num_threads=4)
        list(batches)
        batches.close()

    read()  # what stays open for all of them
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read()
    deadline = time.monotonic() + 20
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_it_can_be_pickled_and_long_keys_are_cut():
    progress = Progress()
    with pickle.loads(pickle.dumps(progress)).at("界" * 1000):
        (entry,) = progress.entries()
    assert entry.key.startswith("界" * 100)
    assert progress.records_of_dead_workers() == []
    progress.close()
