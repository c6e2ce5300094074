"""Calls in other processes: what a crash, a hang and hunger do to them, and to nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vclip_jax.data.images import guarded
from vclip_jax.data.images.guarded import Fault, Limits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes of their own need POSIX")

MODULE = """
import os, pathlib, signal, time
from vclip_jax.data.images import guarded

def spin():
    with guarded.limited():
        while True:
            pass

def sleep(seconds):
    with guarded.limited():
        time.sleep(seconds)

def eat(size):
    try:
        with guarded.limited():
            return len(bytearray(size))
    except MemoryError:
        return "no memory"

def crash_once(path):
    if not pathlib.Path(path).exists():
        pathlib.Path(path).touch()
        os.abort()
    return "done"

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def shout():
    os.write(1, b"noise")
    os.write(2, b"noise")
    return "said"
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that workers can import, too."""
    (tmp_path / "guarded_work.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    guarded.end_idle()
    import guarded_work

    yield guarded_work
    guarded.end_idle()
    del sys.modules["guarded_work"]


def test_a_call_runs_in_another_process_that_is_kept():
    first, second = guarded.call(os.getpid), guarded.call(os.getpid)
    assert first == second != os.getpid()


def test_a_crash_is_a_fault_of_one_line_and_the_next_call_is_answered():
    with pytest.raises(Fault, match=r"^the decoder crashes at it \(SIGABRT\)$") as caught:
        guarded.call(os.abort)
    assert caught.value.reason == "crashes the decoder"
    assert guarded.call(abs, -3) == 3


def test_a_crash_that_does_not_come_again_is_not_blamed_on_the_picture(work, tmp_path):
    assert guarded.call(work.crash_once, str(tmp_path / "crashed")) == "done"


def test_processor_time_is_limited(work):
    with pytest.raises(Fault, match=r"takes more than 0\.2 seconds") as caught:
        guarded.call(work.spin, limits=Limits(cpu_seconds=0.2))
    assert caught.value.reason == "too much time"


def test_time_is_limited_for_what_waits(work):
    start = time.monotonic()
    with pytest.raises(Fault, match=r"takes more than 0\.2 seconds"):
        guarded.call(work.sleep, 600, limits=Limits(seconds=0.2))
    assert time.monotonic() - start < 300
    assert guarded.call(work.sleep, 0.001) is None


def test_limits_end_with_the_part_that_they_are_for(work):
    for _ in range(2):
        guarded.call(work.sleep, 0.01, limits=Limits(seconds=0.3))
        time.sleep(0.4)
    assert guarded.call(work.eat, 1000, limits=Limits(memory=1 << 20)) == 1000
    assert guarded.call(bytes, 1 << 26) == bytes(1 << 26)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_memory_is_limited(work):
    assert guarded.call(work.eat, 1 << 28, limits=Limits(memory=1 << 27)) == "no memory"
    assert guarded.call(work.eat, 1 << 26, limits=Limits(memory=1 << 27)) == 1 << 26


def test_a_process_that_is_killed_is_not_the_pictures_fault(work):
    with pytest.raises(guarded.Killed, match="killed"):
        guarded.call(work.die)


def test_an_idle_process_that_was_killed_is_replaced():
    os.kill(guarded.call(os.getpid), signal.SIGKILL)
    assert guarded.call(abs, -1) == 1


def test_what_the_function_raises_is_shown():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        guarded.call(divmod, 1, 0)


def test_decoders_that_print_are_not_heard(work, capfd):
    assert guarded.call(work.shout) == "said"
    assert capfd.readouterr() == ("", "")


def test_threads_have_a_process_each():
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)

        def ask(number: int) -> int:
            barrier.wait()
            return guarded.call(pow, number, 2)

        assert list(pool.map(ask, range(3))) == [0, 1, 4]
    guarded.end_idle(keep=1)
    assert len(guarded._idle) == 1


def test_the_processes_of_a_parent_that_was_killed_end():
    code = (
        "import os, time; from vclip_jax.data.images import guarded; "
        "print(guarded.call(os.getpid), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        try:
            with open(f"/proc/{worker}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


def test_where_there_is_no_posix_the_call_is_a_call(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    assert guarded.call(os.getpid) == os.getpid()
