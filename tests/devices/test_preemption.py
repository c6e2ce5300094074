"""A request to end: heard once, obeyed at a step, and forced if need be."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vclip_jax.devices.preemption import FORCED, Preempted, Preemption

SCRIPT = """
import os, signal, time
from vclip_jax.devices.preemption import Preemption
with Preemption(deadline={deadline}) as preemption, preemption.deferred():
    for _ in range({signals}):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    print("heard", preemption.reached(1), flush=True)
    {then}
{after}
print("ended", flush=True)
"""
# Compiled code that the interpreter does not get back from, so that no handler of its runs.
STUCK = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


def run(deadline: float = 60, signals: int = 1, then: str = "pass", after: str = ""):
    script = SCRIPT.format(deadline=deadline, signals=signals, then=then, after=after)
    started = time.monotonic()
    completed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    return completed, time.monotonic() - started


def wait_for(preemption: Preemption) -> bool:
    for _ in range(500):
        if preemption.reached(1):
            return True
        time.sleep(0.01)
    return False


def test_a_request_is_heard_at_a_step_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption(60) as preemption, preemption.deferred():
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_for(preemption)
    assert signal.getsignal(signal.SIGTERM) == before
    with Preemption(60) as preemption:
        assert not preemption.reached(1)


def test_work_that_is_not_deferred_is_cut_off():
    with pytest.raises(Preempted), Preemption(60):
        _ask_and_sleep()
    with Preemption(60) as preemption, preemption.deferred():
        with pytest.raises(Preempted), preemption.interrupting():
            _ask_and_sleep()
        assert wait_for(preemption)


def test_work_that_may_be_cut_off_does_not_start_after_a_request():
    with Preemption(60) as preemption, preemption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_for(preemption)
        started = []
        with pytest.raises(Preempted), preemption.interrupting():
            started.append(1)
        assert not started


def test_nothing_of_it_is_left_afterwards():
    completed, _ = run(deadline=0.5, then="pass", after="time.sleep(2)")
    assert (completed.returncode, completed.stdout) == (0, "heard True\nended\n")


def _ask_and_sleep():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    pytest.fail("it was not cut off")


def test_a_second_signal_ends_at_once():
    completed, _ = run(signals=2)
    assert completed.returncode == FORCED == 143
    assert completed.stderr.strip().endswith("the same command goes on from the last checkpoint")
    assert "heard" not in completed.stdout


@pytest.mark.parametrize("then", ["time.sleep(90)", STUCK])
def test_a_run_that_hangs_is_ended_at_the_deadline(then):
    completed, seconds = run(deadline=1, then=then)
    assert (completed.returncode, completed.stdout) == (FORCED, "heard True\n")
    assert "not saved 1 s after the request" in completed.stderr
    assert seconds < 60


def test_a_run_that_ends_in_time_ends_well():
    completed, _ = run(deadline=1)
    assert (completed.returncode, completed.stdout) == (0, "heard True\nended\n")
