"""How a process ends: with one line, at once, and with a code that says why."""

import subprocess
import sys
import time

import jax
import pytest

from vclip_jax import processes

SCRIPT = """
import threading, time
from vclip_jax import processes
threading.Thread(target=time.sleep, args=[60]).start()  # what a failed save leaves behind
with processes.ending_together():
    {body}
print("done", end="")
processes.leave(3)
"""


def run(body: str) -> tuple[int, str, str]:
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return completed.returncode, completed.stdout, completed.stderr


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", (3, "done", "")),
        ("raise ValueError('a is wrong')", (1, "", "error: a is wrong\n")),
        ("raise OSError(28, 'No space', 'f')", (1, "", "error: [Errno 28] No space: 'f'\n")),
    ],
)
def test_a_process_ends_at_once_whatever_its_threads_do(body, expected):
    started = time.monotonic()
    assert run(body) == expected
    assert time.monotonic() - started < 40


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), True),
        (RuntimeError("while saving\nDEADLINE_EXCEEDED: Barrier timed out"), True),
        (jax.errors.JaxRuntimeError("anything"), True),
        (OSError(28, "No space left on device"), False),
        (ValueError("RESOURCE_EXHAUSTED: No space left on device"), False),
    ],
)
def test_a_lost_process_is_told_from_other_trouble(monkeypatch, error, lost):
    assert not processes.is_lost_peer(error)  # there is no other process
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert processes.is_lost_peer(error) == lost
