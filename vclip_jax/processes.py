"""Several processes: how they find each other, and how one that fails ends the others."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax

from vclip_jax.data.foreign import shown

_STATUS = re.compile(r"^(UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL): ", re.MULTILINE)

LOST_PEER = 75
"""Exit code where another process is gone: "try again", of sysexits.h."""


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
        if is_lost_peer(error):
            first = str(error).strip().splitlines()[0]
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

    They come as errors of several types, with a status at the start of a line.
    """
    if not jax.distributed.is_initialized():
        return False
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(_STATUS.search(str(error)))


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
