"""The drill `disk-full`: a failed save is reported, and earlier checkpoints stay intact.

The checkpoints are on a file system in memory that is too small, in a mount namespace, which Linux
also allows users other than root.
"""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from vclip_jax.drills import tiny
from vclip_jax.drills.runs import (
    IDENTICAL,
    REFERENCE,
    Drill,
    exit_codes,
    saved_steps,
    trained,
    wait_for_step,
)

INSIDE = "VCLIP_DRILL_INSIDE"
ENTER = ("unshare", "--map-root-user", "--mount")


def disk_full(drill: Drill, times: int, rng: random.Random) -> dict[str, Any]:
    """Fill the disk of the checkpoints, or make it read-only; then make room and resume the run.

    Raises:
        OSError: the system has no user namespaces.
    """
    if INSIDE not in os.environ:
        _enter()
    drill.finish(REFERENCE)
    size = max(
        _size(drill.workdir(REFERENCE) / "checkpoints" / str(step))
        for step in saved_steps(drill.workdir(REFERENCE))
    )
    print("time  fault                    exit code  kept        said        then")
    recognised = intact = identical = 0
    for index in range(times):
        name = f"disk-{index}"
        folder = drill.workdir(name) / "checkpoints"
        folder.mkdir(parents=True)
        kind = ("full", "read-only", "full, trained on")[index % 3]
        _mount(folder, int(size * rng.uniform(1.2, 3.5)))
        options = ["--config.keep_checkpoints=9"]
        if kind == "read-only":
            _mount(folder, size * 64, remount=True)
            with drill.running(name, *options) as processes:
                wait_for_step(drill.workdir(name), 5, processes)
            _mount(folder, size * 64, remount=True, read_only=True)
        elif kind == "full, trained on":
            options.append("--config.checkpoint_errors=continue")
        said_before = len(drill.log(name).read_bytes()) if drill.log(name).exists() else 0
        before = saved_steps(drill.workdir(name))
        with drill.running(name, *options) as processes:
            [code] = exit_codes(processes)
        said = drill.log(name).read_bytes()[said_before:].decode(errors="replace")
        kept = saved_steps(drill.workdir(name))
        if kind == "full, trained on":
            finished = trained(drill.workdir(name)) == tiny.get_config().total_steps
            reported = code == 0 and finished and "could not be written" in said
        else:
            last = said.strip().splitlines()[-1]
            reported = code == 1 and last.startswith("error: ") and str(folder) in last
        whole = bool(kept) and set(before) <= set(kept)
        _mount(folder, size * 64, remount=True)
        then = drill.outcome(name)
        subprocess.run(["umount", str(folder)], check=True)
        recognised += reported
        intact += whole
        identical += then == IDENTICAL
        print(
            f"{index:4}  {kind:23}  {code:9}  {kept!s:10}  "
            f"{'an error' if reported else 'NOTHING':10}  {then}"
        )
    return {"times": times, "recognised": recognised, "intact": intact, "identical": identical}


def _size(folder: Path) -> int:
    """Return the size of a folder on a file system with pages of 4 KiB, in bytes."""
    return sum(4096 + -(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def _mount(folder: Path, size: int, *, remount: bool = False, read_only: bool = False) -> None:
    options = f"size={size},{'ro' if read_only else 'rw'}{',remount' if remount else ''}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _enter() -> None:
    probe = subprocess.run([*ENTER, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise OSError(f"this drill needs Linux with user namespaces: {probe.stderr.strip()}")
    arguments = [*ENTER, sys.executable, "-m", "vclip_jax.drills", *sys.argv[1:]]
    sys.stdout.flush()
    os.execvpe(arguments[0], arguments, os.environ | {INSIDE: "1"})
