"""Disturb training runs on purpose, and count how often something is lost.

A tiny training is disturbed, started again with the same command, and compared with an undisturbed
run. The drills:

    kill        SIGKILL to one process or to all
    preempt     SIGTERM to one process
    corrupt     damage to the newest checkpoint
    disk-full   a full or read-only disk during a save
    peer-death  the death or hanging of one of several processes

Prints a table and, as the last line, one JSON object.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vclip_jax.console import commands

DEFAULT_TIMES = {"kill": 20, "preempt": 20, "corrupt": 50, "disk-full": 6, "peer-death": 6}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a drill and return the exit status, which is 0 only if nothing was lost."""
    return commands.run(partial(_drill, _parser().parse_args(arguments)))


def _drill(options: argparse.Namespace) -> int:
    from vclip_jax.drills.runs import Drill

    times = options.times or DEFAULT_TIMES[options.drill]
    with tempfile.TemporaryDirectory(prefix="vclip-drill-") as temporary:
        folder = Path(options.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"--out={folder} is not empty: choose a new one")
        processes = options.processes or (2 if options.drill == "peer-death" else 1)
        drill = Drill(folder.absolute(), processes)
        started = time.monotonic()
        result = _run(options.drill)(drill, times, random.Random(options.seed))
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"drill": options.drill, **result, "seed": options.seed, "seconds": seconds}))
    counts = ("identical", "recognised", "ended", "intact", "saved_and_exit_0")
    wanted = {
        key: result.get("trained_on", times) if key == "identical" else times for key in counts
    }
    return int(any(result[key] != wanted[key] for key in counts if key in result))


def _run(name: str):
    # This process computes on the CPU, also on machines with accelerators.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from vclip_jax.drills import corrupt, disk_full, interrupt, peer_death

    return {
        "kill": interrupt.kill,
        "preempt": interrupt.preempt,
        "corrupt": corrupt.corrupt,
        "disk-full": disk_full.disk_full,
        "peer-death": peer_death.peer_death,
    }[name]


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip drills", description=__doc__)
    defaults = ", ".join(f"{name} {times}" for name, times in DEFAULT_TIMES.items())
    parser.add_argument("drill", choices=DEFAULT_TIMES, help="the drill, see above")
    parser.add_argument(
        "--times", type=_count, help=f"how often to disturb a run (default: {defaults})"
    )
    parser.add_argument(
        "--processes",
        type=_count,
        help="number of processes of the training (default: 1; peer-death 2)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the random times and damages (default: 0)",
    )
    parser.add_argument(
        "--out",
        old=["--folder"],
        help="an empty folder in which to keep all runs and logs (default: delete them)",
    )
    return parser


if __name__ == "__main__":
    commands.start(main)
