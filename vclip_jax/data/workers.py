"""Worker processes that make training batches: their number, start and end.

Threads share Python's lock, which each example holds for part of its time, so beyond some number of
cores more threads do not help. Each of Grain's processes makes every n-th batch and passes it on in
shared memory, without a copy.
"""

import logging
import os
import shutil
import signal
import threading
import time
from typing import Final

import cv2

from vclip_jax.data.choices import AUTOMATIC
from vclip_jax.data.progress import Progress

log = logging.getLogger("vclip_jax")

_MANY_CORES: Final = 8
"""Cores from which processes are started: each costs seconds at the start and 140 MB of memory."""
_MOST: Final = 64
_BATCHES: Final = 2
"""Batches of each worker in shared memory at a time: one that waits, one in transfer."""
_SHARED: Final = "/dev/shm"
_WATCH_SECONDS: Final = 2.0


def how_many(wanted: int, cores: int, batch_bytes: int, room: int | None = None) -> int:
    """Return the number of worker processes; 0 leaves the work to threads of this process.

    Args:
        wanted: a number, or `AUTOMATIC`: none on fewer than 8 cores, else one less than the cores,
            limited to the batches that half of the shared memory holds.
        cores: the cores that this process may use.
        batch_bytes: bytes of one host's batch.
        room: free bytes of shared memory; by default as the system reports.

    Raises:
        ValueError: the workers' batches do not fit into shared memory; a worker would die without
            a message.
    """
    room = _room() if room is None else room
    fit = room // (_BATCHES * batch_bytes)
    if wanted == AUTOMATIC:
        if cores < _MANY_CORES:
            return 0
        automatic = min(cores - 1, _MOST, fit // 2)
        if automatic >= _MANY_CORES // 2:
            return automatic
        log.warning(
            "input: only threads are used, though there are %d cores: %s has %d MiB free, and a "
            "worker process takes %d of them",
            cores,
            _SHARED,
            room // 2**20,
            _BATCHES * batch_bytes // 2**20,
        )
        return 0
    if wanted > fit:
        raise ValueError(
            f"config.data.workers={wanted} need {wanted * _BATCHES * batch_bytes / 2**20:.0f} MiB "
            f"of shared memory, and {_SHARED} has {room / 2**20:.0f}: give it more (docker run "
            "--shm-size=8g), or set config.data.workers=0"
        )
    return wanted


def _room() -> int:
    try:
        return shutil.disk_usage(_SHARED).free
    except OSError:  # macOS: shared memory is not a folder, and has no such limit
        return 2**40


def start(index: int, count: int, progress: Progress) -> None:
    """Set up a worker process.

    The worker ends with its parent, and removes the parent's files. It ignores signals: SLURM and
    terminals send SIGTERM and SIGINT to all processes of a job, and the trainer saves before it
    ends its workers.
    """
    cv2.setNumThreads(1)  # pictures are decoded in parallel already
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        progress.close()
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
