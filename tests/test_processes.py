"""How a process ends: with one line, at once, and with a code that says why."""

import errno
import fcntl
import os
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


HOLDER = """
import sys, time
from pathlib import Path
from vclip_jax import processes
with processes.alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_workdir_is_refused_while_the_first_lives(tmp_path):
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"in use by process {first.pid} on .*--workdir"),
            processes.alone_in(tmp_path),
        ):
            pass
        first.kill()
        first.wait()
        with processes.alone_in(tmp_path):  # the kernel has given it back
            assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_run_on_another_machine_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "OTHER_HOST_SECONDS", 0.5)
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        (tmp_path / ".lock").write_text("process 7 on elsewhere")
        with (
            pytest.raises(ValueError, match="process 7 on elsewhere"),
            processes.alone_in(tmp_path),
        ):
            pass
        first.kill()


def test_where_nothing_can_be_locked_a_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with processes.alone_in(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text


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
