"""The drills `kill` and `preempt`: a run that is interrupted at random and resumed ends with the
same result as an undisturbed run."""

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from vclip_jax.drills import tiny
from vclip_jax.drills.runs import (
    IDENTICAL,
    REFERENCE,
    Drill,
    differences,
    exit_codes,
    saved_steps,
    send,
    trained,
    wait_for_step,
)

UNDISTURBED_SHARE = 0.25
"""The share of trials that are interrupted at a random time, start included, not after a step."""


def kill(drill: Drill, times: int, rng: random.Random) -> dict[str, Any]:
    """Send SIGKILL to one process or to all, then run the same command again."""
    seconds = _reference(drill)
    print("time  killed at                    left (checkpoints)  processes  then")
    identical = 0
    for index in range(times):
        name = f"kill-{index}"
        with drill.running(name) as processes:
            when = _wait(drill, name, processes, seconds, rng)
            killed = processes if rng.random() < 0.5 else [rng.choice(processes)]
            send(killed, signal.SIGKILL)
            exit_codes(processes)
        left = saved_steps(drill.workdir(name))
        then = drill.outcome(name)
        identical += then == IDENTICAL
        print(f"{index:4}  {when:27}  {left!s:18}  {len(killed)} of {drill.processes}     {then}")
    return {"times": times, "identical": identical, "processes": drill.processes}


def preempt(drill: Drill, times: int, rng: random.Random) -> dict[str, Any]:
    """Send SIGTERM to one process, then run the same command again."""
    seconds = _reference(drill)
    print("time  asked at                     exit codes  after     then")
    identical = well = 0
    slowest = 0.0
    for index in range(times):
        name = f"preempt-{index}"
        with drill.running(name) as processes:
            when = _wait(drill, name, processes, seconds, rng, started=True)
            asked = time.monotonic()
            send([rng.choice(processes)], signal.SIGTERM)
            codes = exit_codes(processes)
            took = time.monotonic() - asked
        # Every step in metrics.jsonl must be in a checkpoint.
        done = trained(drill.workdir(name))
        kept = not any(codes) and done <= max(saved_steps(drill.workdir(name)), default=0)
        then = drill.outcome(name)
        identical += then == IDENTICAL
        well += kept
        slowest = max(slowest, took)
        print(
            f"{index:4}  {when:27}  {codes!s:10}  {took:5.1f} s   "
            f"{'' if kept else 'not all was saved, '}{then}"
        )
    return {
        "times": times,
        "identical": identical,
        "saved_and_exit_0": well,
        "slowest_seconds": round(slowest, 2),
        "processes": drill.processes,
    }


def _reference(drill: Drill) -> float:
    """Run twice undisturbed, and return the seconds of the second run, which compiles nothing."""
    drill.finish(REFERENCE)
    started = time.monotonic()
    drill.finish("warm")
    seconds = time.monotonic() - started
    if differing := differences(drill.workdir(REFERENCE), drill.workdir("warm")):
        raise AssertionError(f"two undisturbed runs differ: {', '.join(differing)}")
    return seconds


def _wait(
    drill: Drill,
    name: str,
    processes: Sequence[subprocess.Popen],
    seconds: float,
    rng: random.Random,
    started: bool = False,
) -> str:
    """Wait until a random moment, and return its description."""
    if rng.random() < UNDISTURBED_SHARE:
        if started:  # earlier, Python's default handler would end the process
            wait_for_log(drill, name, processes)
        moment = rng.uniform(0, seconds)
        time.sleep(moment)
        return f"{moment:5.1f} s, step {trained(drill.workdir(name))}"
    step = rng.randrange(tiny.get_config().total_steps)
    wait_for_step(drill.workdir(name), step, processes)
    moment = rng.uniform(0, 0.5)
    time.sleep(moment)
    return f"{moment:.2f} s after step {step}"


def wait_for_log(drill: Drill, name: str, processes: Sequence[subprocess.Popen]) -> None:
    """Wait until the run has written to its log, or a process has ended."""
    while "data:" not in drill.log(name).read_text(errors="replace"):
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.05)
