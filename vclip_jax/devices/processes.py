"""Several processes: how they find each other, how one that fails ends the others, and how another
run is kept out of a workdir."""

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

from vclip_jax.files.errors import first_line
from vclip_jax.files.foreign import shown

# Statuses that only services and networks give, and those that need a word about one.
_LOST = re.compile(r"^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED): ", re.MULTILINE)
_FAILED = re.compile(r"^(UNKNOWN|INTERNAL|CANCELLED|FAILED_PRECONDITION): ", re.MULTILINE)
_OF_PEERS = re.compile(
    r"coordination ?service|heartbeat|barrier|gloo|nccl|megascale|unhealthy|remote process|"
    r"remote task|\bpeer\b|connection (reset|refused|closed)|socket closed|broken pipe|"
    r"network error|preempted",
    re.IGNORECASE,
)
# As XLA words it for CPUs, GPUs and TPUs; a full disk is RESOURCE_EXHAUSTED as well.
_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED.*?(out of memory|failed to allocate|attempting to (allocate|reserve)|"
    r"error allocating|memory space)|CUDA_ERROR_OUT_OF_MEMORY|cuda failure[^\n]*out of memory",
    re.IGNORECASE | re.DOTALL,
)

LOST_PEER = 75
"""Exit code where another process is gone: "try again", of sysexits.h."""
OUT_OF_MEMORY = 12
"""Exit code where a device or the host has too little memory: ENOMEM. Starting again does not help,
so nothing that supervises a run should."""
OTHER_HOST_SECONDS = 120.0
"""How long a workdir that another machine has locked is waited for: NFS gives back the locks of a
machine that is gone after 90 seconds."""

log = logging.getLogger("vclip_jax")


def join(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    *,
    heartbeat_seconds: int = 60,
) -> None:
    """Become one of several processes; before anything asks for devices.

    Args:
        coordinator: HOST:PORT of process 0; None where the cluster tells.
        count, index: how many processes there are, and which one this is.
        heartbeat_seconds: a process that is not heard of for so long counts as lost, and the others
            are ended (with a signal, from outside Python) if they have not noticed before.
    """
    jax.distributed.initialize(
        coordinator, count, index, heartbeat_timeout_seconds=heartbeat_seconds
    )


@contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Keep other runs out of a workdir; one process of a run, the first, holds its `.lock`.

    The kernel gives the lock back when the process ends, however it ends. A file server may take
    minutes to learn that another machine is gone, so a lock from there is waited for.

    Args:
        workdir: is there already.

    Raises:
        ValueError: one line: another run is using it.
        OSError: it cannot be written to.
    """
    if jax.process_index() != 0:
        yield
        return
    path, here = workdir / ".lock", socket.gethostname()
    with path.open("a+") as file:
        deadline = time.monotonic() + OTHER_HOST_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    log.warning(
                        "warning: %s cannot be locked (%s): see to it that no other run uses it",
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
        with suppress(OSError):  # a full disk; the lock holds without the name
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {here}".encode())
        yield


def keep_quiet() -> None:
    """Leave out what TensorStore's threads print, once for each array, after a save that failed.

    They tell an event loop that is no more; the failure itself is reported where it belongs.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if str(error) != "Event loop is closed":
            before(kind, error, trace)

    sys.excepthook = hook


@contextmanager
def ending_together() -> Iterator[None]:
    """End the process at once, with one line, where something is wrong.

    In order it would wait for others that wait for it in a collective, for threads that are stuck
    at a record, and for those of a save that failed.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            # The compiler's table of what takes how much comes first.
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
    """Whether an error is a collective's or the coordinator's, as where another process has died.

    They come as errors of several types, with a status at the start of a line. What a device
    reports of itself (its memory, its compiler) is no such error.
    """
    if not jax.distributed.is_initialized() or is_out_of_memory(error):
        return False
    text = str(error)
    return bool(_LOST.search(text) or (_FAILED.search(text) and _OF_PEERS.search(text)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host has too little memory, by the words of XLA or by the type."""
    return isinstance(error, MemoryError) or bool(_MEMORY.search(str(error)))


def leave(code: int = 0) -> NoReturn:
    """End the process, with the others if there are any, without waiting for threads.

    Those that Orbax started for a save that failed would be waited for, for minutes.
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
