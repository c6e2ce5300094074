"""Several processes: finding each other, ending together after a failure, locking a workdir."""

import errno
import fcntl
import logging
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import jax

from vclip_jax.files.errors import first_line, shown
from vclip_jax.files.writing import check_no_link

# Statuses that only services and networks give, and those that count only with such a word.
_LOST = re.compile(r"^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED): ", re.MULTILINE)
_FAILED = re.compile(r"^(UNKNOWN|INTERNAL|CANCELLED|FAILED_PRECONDITION): ", re.MULTILINE)
_OF_PEERS = re.compile(
    r"coordination ?service|heartbeat|barrier|gloo|nccl|megascale|unhealthy|remote process|"
    r"remote task|\bpeer\b|connection (reset|refused|closed)|socket closed|broken pipe|"
    r"network error|preempted",
    re.IGNORECASE,
)
# XLA's messages for CPUs, GPUs and TPUs; a full disk is RESOURCE_EXHAUSTED as well.
_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED.*?(out of memory|failed to allocate|attempting to (allocate|reserve)|"
    r"error allocating|memory space)|CUDA_ERROR_OUT_OF_MEMORY|cuda failure[^\n]*out of memory",
    re.IGNORECASE | re.DOTALL,
)

LOST_PEER = 75
"""Exit code after the loss of another process: "try again" in sysexits.h."""
OUT_OF_MEMORY = 12
"""Exit code if a device or the host has too little memory: ENOMEM.

A supervisor should not restart the run: that does not help.
"""
OTHER_HOST_SECONDS = 120.0
"""Seconds to wait for a workdir that another machine has locked: NFS releases the locks of a lost
machine after 90 seconds.
"""

log = logging.getLogger("vclip_jax")


def join(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    *,
    heartbeat_seconds: int = 60,
) -> None:
    """Join this process to the others of its run, before any code asks for devices.

    Args:
        coordinator: HOST:PORT of process 0; None if the cluster is detected.
        count, index: the number of processes, and the index of this one.
        heartbeat_seconds: after so long without a heartbeat a process counts as lost, and the
            others are ended (with a signal, from outside Python) if they have not noticed before.
    """
    jax.distributed.initialize(
        coordinator, count, index, heartbeat_timeout_seconds=heartbeat_seconds
    )


@contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Keep other runs out of a workdir; the first process of a run holds its `.lock`.

    The kernel releases the lock when the process ends, however it ends. A file server may take
    minutes to notice that another machine is gone, so a lock from another machine is waited for.

    Args:
        workdir: an existing folder.

    Raises:
        ValueError: one line: another run is using the workdir.
        OSError: the workdir cannot be written to.
    """
    if jax.process_index() != 0:
        yield
        return
    path, here = workdir / ".lock", socket.gethostname()
    check_no_link(path)
    with path.open("a+") as file:
        deadline = time.monotonic() + OTHER_HOST_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    log.warning(
                        "warning: %s cannot be locked (%s): make sure that no other run uses it",
                        workdir,
                        error.strerror,
                    )
                    break
            file.seek(0)
            holder = file.read(300).strip() or "another process"
            if holder.endswith(f" on {here}") or time.monotonic() > deadline:
                raise ValueError(
                    f"{workdir} is in use by {holder}: wait until that run has ended, or choose "
                    f"another --workdir (remove {path} if there is no such process)"
                )
            time.sleep(1)
        with suppress(OSError):  # a full disk; the lock works without the holder's name
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {here}".encode())
        yield


def keep_quiet() -> None:
    """Suppress what TensorStore's threads print, once for each array, after a failed save.

    They call an event loop that is already closed; the failure itself is reported elsewhere.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if str(error) != "Event loop is closed":
            before(kind, error, trace)

    sys.excepthook = hook


@contextmanager
def ending_together() -> Iterator[None]:
    """End the process at once with one line if the block raises.

    An orderly exit would wait for other processes that wait for this one in a collective, for
    threads that hang while reading a record, and for the threads of a failed save.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            # The compiler's table of memory use comes first.
            where = "the host" if isinstance(error, MemoryError) else "a device"
            first = first_line(error)
            _end(
                f"{error}\nerror: {where} has too little memory ({first}): make "
                "config.global_batch_size smaller or config.micro_batches larger, set "
                "config.remat.image and config.remat.text, or spread the state with "
                "config.mesh.fsdp; `vclip plan` says what a step needs",
                OUT_OF_MEMORY,
            )
        if is_lost_peer(error):
            first = first_line(error)
            _end(
                f"error: another process seems to be gone ({first}): start all of them again, they "
                "go on from the last checkpoint",
                LOST_PEER,
            )
        if isinstance(error, ValueError | OSError):
            _end(f"error: {shown(error)}", 1)
        if jax.distributed.is_initialized():
            _end(traceback.format_exc(), 1)
        raise


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error of a collective or the coordinator shows the loss of another process.

    Such errors have several types, and a status at the start of a line. An error that a device
    reports about itself (its memory, its compiler) is not one of them.
    """
    if not jax.distributed.is_initialized() or is_out_of_memory(error):
        return False
    text = str(error)
    return bool(_LOST.search(text) or (_FAILED.search(text) and _OF_PEERS.search(text)))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the host has too little memory, by XLA's words or the type."""
    return isinstance(error, MemoryError) or bool(_MEMORY.search(str(error)))


def leave(code: int = 0) -> NoReturn:
    """End the process, together with the others if there are any, without waiting for threads.

    The threads that Orbax started for a failed save would take minutes.
    """
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
    _exit(code)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    _exit(code)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
