"""Processes for work on untrusted files: a crash or a hang ends only such a process.

A decoder is native code that reads untrusted bytes. `call` runs a function in another process,
which is kept for the next call; within it, `limited` marks the dangerous part, whose time and
memory are limited. Linux enforces all limits; macOS has no limit of memory.
"""

import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from vclip_jax.data.images.opening import ImageError


@dataclass(frozen=True)
class Limits:
    """Time and memory that a picture may take."""

    cpu_seconds: float = 30
    """Processor time, which does not depend on the machine's load. A photograph takes under 1."""
    seconds: float = 300
    """Elapsed time."""
    memory: int = 2 << 30
    """Bytes in addition to what the process has before."""


LIMITS = Limits()


class Fault(ImageError):
    """A picture crashed the process that decoded it, or exceeded its limits."""


class Killed(OSError):
    """Processes were killed from outside, as the system does when memory runs out."""


def call(function: Callable[..., Any], *arguments: Any, limits: Limits | None = None) -> Any:
    """Return `function(*arguments)`, run in another process; several threads may call at a time.

    If no process is idle, one is started, which takes about half a second. After a crash the call
    is repeated once, so that it is not blamed for an earlier fault.

    Args:
        function: a function of an importable module; the function, its arguments and its result are
            pickled.
        arguments: the function's arguments.
        limits: limits of the part in `limited`, by default `LIMITS`.

    Raises:
        Fault: one line, without a key: the process crashed twice, or reached a limit of time.
            (If memory is refused, the function sees a MemoryError.)
        Killed: the process was killed from outside, twice.
        RuntimeError: the function raised another error; with its traceback.
    """
    if os.name != "posix":
        return function(*arguments)
    limits = limits or LIMITS
    status = 0
    for _ in range(2):
        worker = _take()
        try:
            done, value = worker.ask((function, arguments, limits))
        except (EOFError, OSError):
            status = worker.end()
        except BaseException:
            worker.end()
            raise
        else:
            _idle.append(worker)
            if not done:
                raise RuntimeError(f"in a worker process: {value}")
            return value
        if status in (-signal.SIGPROF, -signal.SIGALRM):
            limit = limits.cpu_seconds if status == -signal.SIGPROF else limits.seconds
            raise Fault(f"decoding it takes more than {limit:g} seconds", "too much time")
    if status == -signal.SIGKILL:
        raise Killed("a worker process was killed, probably as the machine has no memory left")
    raise Fault(f"the decoder crashes at it ({_name(status)})", "crashes the decoder")


@contextmanager
def limited() -> Iterator[None]:
    """Apply the limits to a part of a function that `call` runs; without `call` do nothing."""
    if _limits is None:
        yield
        return
    import resource

    signal.setitimer(signal.ITIMER_PROF, _limits.cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, _limits.seconds)
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    if held := _data_bytes():
        allowed = [held + _limits.memory, *(n for n in usual if n != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(allowed), usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, usual)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_idle(keep: int = 0) -> None:
    """End the idle processes, except `keep` of them."""
    while len(_idle) > keep:
        _idle.pop().end()


def _take() -> "_Worker":
    try:
        return _idle.pop()  # another thread may have taken the last one
    except IndexError:
        return _Worker()


_idle: list["_Worker"] = []
atexit.register(end_idle)
if hasattr(os, "register_at_fork"):
    # The processes belong to the parent.
    os.register_at_fork(after_in_child=_idle.clear)


class _Worker:
    """A process that waits for calls at the other end of a socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; "
                f"from vclip_jax.data.images.guarded import serve; serve({number})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.recv()
        except (EOFError, OSError):
            self.end()
            raise OSError("a worker process does not start: see its message above") from None

    def ask(self, question: Any) -> Any:
        self._connection.send(question)
        return self._connection.recv()

    def end(self) -> int:
        """End the process and return its exit status: minus a signal's number if killed by one."""
        self._connection.close()
        try:
            return self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0


_limits: Limits | None = None
"""The limits of the call in progress, in a worker."""


def serve(descriptor: int) -> None:
    """Answer calls in a worker process until the other side is closed."""
    global _limits
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    connection = Connection(descriptor)
    connection.send("ready")
    # Discard output: decoders print the faults of a file.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while True:
        try:
            question = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, arguments, _limits = pickle.loads(question)
            answer = True, function(*arguments)
        except Exception:
            answer = False, traceback.format_exc()
        connection.send(answer)


def _data_bytes() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts; 0 if they are not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"
