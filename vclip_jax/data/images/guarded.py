"""Work on files of strangers in processes of their own: a crash or a hang ends those alone.

A decoder is native code at work on bytes that anybody may have written. `call` runs a function in
another process, which is kept for the next call; within it, `limited` marks the dangerous part,
for which time and memory are limited. Linux enforces all limits; macOS no limit of memory.
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
    """What a picture may take."""

    cpu_seconds: float = 30
    """Of processor time, so that a busy machine changes nothing. A photograph takes under 1."""
    seconds: float = 300
    """Altogether."""
    memory: int = 2 << 30
    """Bytes, in addition to what the process has before."""


LIMITS = Limits()


class Fault(ImageError):
    """A picture took the process that decoded it along, or more than its limits."""


class Killed(OSError):
    """Processes were killed from outside, as the system does when memory runs out."""


def call(function: Callable[..., Any], *arguments: Any, limits: Limits | None = None) -> Any:
    """`function(*arguments)` in another process; several threads may call at a time.

    A process is started where none is idle, which takes about half a second. After a crash the
    call is repeated once, so that it is not blamed for what came before.

    Args:
        function: of a module that can be imported; like its arguments and its result it is
            pickled.
        arguments: for it.
        limits: of the part in `limited`; by default `LIMITS`.

    Raises:
        Fault: one line, without a key: the process crashed twice, or a limit of time was reached.
            (Memory that is refused is a MemoryError in the function.)
        Killed: the process was killed from outside, twice.
        RuntimeError: what else the function raised, with its traceback.
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
            took = limits.cpu_seconds if status == -signal.SIGPROF else limits.seconds
            raise Fault(f"decoding it takes more than {took:g} seconds", "too much time")
    if status == -signal.SIGKILL:
        raise Killed("a worker process was killed, probably as the machine has no memory left")
    raise Fault(f"the decoder crashes at it ({_name(status)})", "crashes the decoder")


@contextmanager
def limited() -> Iterator[None]:
    """The part of a function that `call` runs for which the limits hold; elsewhere nothing."""
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
    """End the processes that wait for a call, but for so many."""
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
    # They answer to the parent.
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
            raise OSError("a worker process does not start; what it says stands above") from None

    def ask(self, question: Any) -> Any:
        self._connection.send(question)
        return self._connection.recv()

    def end(self) -> int:
        """Its exit status: a signal's number, negated, if one ended it."""
        self._connection.close()
        try:
            return self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0


_limits: Limits | None = None
"""In a worker: those of the call in progress."""


def serve(descriptor: int) -> None:
    """What a worker does: answer calls until the other side is gone."""
    global _limits
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    connection = Connection(descriptor)
    connection.send("ready")
    # Decoders print what is wrong with a file.
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
    """What RLIMIT_DATA counts of this process; 0 where the system does not say."""
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
