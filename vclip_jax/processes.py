"""Several processes: how they find each other, and how one that fails ends the others."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from vclip_jax.data.progress import StalledError

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


@contextmanager
def ending_together() -> Iterator[None]:
    """End the process with one line where something is wrong, at once if there are others.

    They wait for it in a collective, and it would wait for them if it ended in order.
    """
    try:
        yield
    except StalledError as error:
        _end(f"error: {error}", 1, at_once=True)  # its threads never end
    except (ValueError, OSError) as error:
        _end(f"error: {error}", 1)
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        first = str(error).strip().splitlines()[0]
        _end(
            f"error: another process seems to be gone ({first}): start all of them again, they go "
            "on from the last checkpoint",
            LOST_PEER,
        )
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        _end(traceback.format_exc(), 1)


def _end(message: str, code: int, *, at_once: bool = False) -> None:
    print(message, file=sys.stderr, flush=True)
    if at_once or jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
