"""The drill `peer-death`: if one of several processes dies or hangs, the others end too."""

import random
import signal
import time
from typing import Any

from vclip_jax.drills import tiny
from vclip_jax.drills.runs import IDENTICAL, REFERENCE, Drill, exit_codes, send, wait_for_step

FAULTS = {
    "worker killed": (1, signal.SIGKILL),
    "first process killed": (0, signal.SIGKILL),
    "worker stopped": (1, signal.SIGSTOP),
}
"""Name -> the number of the process, and the signal."""


def peer_death(drill: Drill, times: int, rng: random.Random) -> dict[str, Any]:
    """Kill or stop one process, wait for the others to end, then start all again."""
    drill.finish(REFERENCE)
    allowed = 2 * drill.heartbeat_seconds
    print("time  fault                 others ended after  with  then")
    ended = identical = 0
    slowest = dict.fromkeys(FAULTS, 0.0)
    for index in range(times):
        name = f"peer-{index}"
        fault = list(FAULTS)[index % len(FAULTS)]
        victim, number = FAULTS[fault]
        with drill.running(name) as processes:
            step = rng.randrange(tiny.get_config().total_steps - 1)
            wait_for_step(drill.workdir(name), step, processes)
            time.sleep(rng.uniform(0, 0.2))
            send([processes[victim]], number)
            start = time.monotonic()
            others = [process for process in processes if process is not processes[victim]]
            codes = exit_codes(others, patience=allowed)
            seconds = time.monotonic() - start
        ended += -1000 not in codes
        slowest[fault] = max(slowest[fault], seconds)
        then = drill.outcome(name)
        identical += then == IDENTICAL
        print(f"{index:4}  {fault:20}  {seconds:16.1f} s  {codes}  {then}")
    return {
        "times": times,
        "ended": ended,
        "identical": identical,
        "processes": drill.processes,
        "heartbeat_seconds": drill.heartbeat_seconds,
        "slowest_seconds": {fault: round(seconds, 2) for fault, seconds in slowest.items()},
    }
