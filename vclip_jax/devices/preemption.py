"""Early end of a run on SIGTERM or the cloud's notice: save at one agreed step, then exit.

Several processes agree through JAX's preemption service, which passes one process's notice to all.
A single process listens for the signal itself. A second signal, or a deadline, ends a run that
hangs.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

FORCED = 128 + signal.SIGTERM
"""Exit code of a run that did not save in time."""

log = logging.getLogger("vclip_jax")


NOTHING_LOST = "nothing is lost"


class Preempted(BaseException):
    """The run was asked to end, and nothing is lost: the same command continues it.

    Like `KeyboardInterrupt` this is no `Exception`, so that code that catches those does not
    continue.
    """


class Preemption:
    """The state of a request to end the run; a context manager, for the main thread.

    Inside the block a request raises `Preempted`, unless the work is `deferred`. Several processes
    must stop at the same place: they end only at the step where `reached` returns True.
    """

    def __init__(self, deadline: float):
        """Set the time limit.

        Args:
            deadline: seconds from the request until the process ends, saved or not.
        """
        self._deadline = deadline
        self._together = jax.distributed.is_initialized()
        self._asked = threading.Event()
        self._signals = 0
        self._lock = threading.Lock()
        self._over = False
        self._interruptible = True
        self._channel: socket.socket | None = None
        self._before: tuple[Any, int] | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Preemption":
        if not self._together and threading.current_thread() is threading.main_thread():
            self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
        if self._before is not None:
            handler, descriptor = self._before
            os.close(signal.set_wakeup_fd(descriptor))
            signal.signal(signal.SIGTERM, handler)
        if self._channel is not None:
            self._channel.close()  # ends the thread

    def reached(self, step: int) -> bool:
        """Return whether to save and end after this step; the same on all processes.

        All must call it after every step.
        """
        agreed = self._together and multihost_utils.reached_preemption_sync_point(step)
        if agreed and not self._asked.is_set():
            self._listen()  # JAX's own listener has done its work
            self._ask()
        return self._asked.is_set()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Run work that must not be cut off and ends only at a step that `reached` names."""
        yield from self._while(False)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Run work inside `deferred` that may be cut off anywhere: a request raises `Preempted`."""
        yield from self._while(True)

    def _while(self, interruptible: bool) -> Iterator[None]:
        before, self._interruptible = self._interruptible, interruptible
        try:
            if interruptible and self._asked.is_set() and not self._together:
                raise Preempted(NOTHING_LOST)
            yield
        finally:
            self._interruptible = before

    def _listen(self) -> None:
        # A handler in Python runs only when the main thread returns from compiled code, perhaps
        # never. The interpreter writes the signal's number at once, for a thread to read.
        self._channel, sender = socket.socketpair()
        sender.setblocking(False)
        self._before = (
            signal.signal(signal.SIGTERM, self._handle) or signal.SIG_DFL,
            signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False),
        )
        threading.Thread(
            target=self._watch, args=[self._channel], name="preemption", daemon=True
        ).start()

    def _watch(self, channel: socket.socket) -> None:
        while True:
            try:
                received = channel.recv(1)
            except OSError:  # closed
                return
            if not received:
                return
            if received[0] == signal.SIGTERM:
                self._signals += 1
                if self._signals > 1:
                    _force("a second SIGTERM")
                self._ask()

    def _handle(self, *_: object) -> None:
        if self._interruptible and not self._together:
            raise Preempted(NOTHING_LOST)

    def _ask(self) -> None:
        with self._lock:  # a request may come while the run ends by itself
            if self._over or self._asked.is_set():
                return
            why = f"not saved {self._deadline:g} s after the request to end"
            self._timer = threading.Timer(self._deadline, _force, [why])
            self._timer.daemon = True
            self._timer.start()
            self._asked.set()
        log.warning("asked to end: saving (a second SIGTERM ends at once)")


def _force(why: str) -> None:
    line = f"error: {why}: ended at once; the same command goes on from the last checkpoint\n"
    os.write(2, line.encode())
    os._exit(FORCED)
