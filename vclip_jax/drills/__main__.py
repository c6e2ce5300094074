"""Faults on purpose: `vclip drills kill|preempt|corrupt|disk-full|peer-death`.

A tiny training is disturbed, started again with the same command, and compared with one that was
left in peace. Prints a table and, as the last line, one JSON object.
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
    """Run a drill; returns the exit status, 0 only if nothing at all was lost."""
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
    # What runs in this process uses the processor, whatever else there is.
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
    parser.add_argument("drill", choices=DEFAULT_TIMES)
    parser.add_argument("--times", type=_count, help="how often (default: 20, 20, 50, 6 and 6)")
    parser.add_argument("--processes", type=_count, help="of the training (default: 1, and 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the damage")
    parser.add_argument(
        "--out", old=["--folder"], help="keep all runs and their logs here (default: thrown away)"
    )
    return parser


if __name__ == "__main__":
    commands.start(main)
