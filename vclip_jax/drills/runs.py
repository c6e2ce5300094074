"""Runs of the tiny training in separate processes, and comparisons of their results."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vclip_jax.drills import tiny

DEVICES = 2
REFERENCE: Final = "undisturbed"
"""The name of the undisturbed run."""
IDENTICAL: Final = "identical"
# Values that depend on the speed of the machine.
TIMES = (
    "time",
    "examples_per_second",
    "examples_per_second_per_device",
    "data_wait_fraction",
    "step_seconds_p50",
    "step_seconds_p95",
    "mfu",
    "hbm_bytes",
    "failed_saves",
)
PATIENCE = 1800.0


class DrillError(ValueError):
    """An undisturbed run failed; one line."""


@dataclass(frozen=True)
class Drill:
    """A drill: the folder of its runs, and the number of processes of each run."""

    folder: Path
    processes: int = 1
    heartbeat_seconds: int = 30

    def workdir(self, name: str) -> Path:
        """Return the workdir of a run."""
        return self.folder / name

    @contextmanager
    def running(self, name: str, *extra: str) -> Iterator[list[subprocess.Popen]]:
        """Start or resume a run; at the end of the context, kill the processes that still run.

        `extra` are more arguments of `vclip_jax.main`. All output goes to NAME.log.
        """
        arguments = [
            sys.executable,
            "-m",
            "vclip_jax.main",
            "--config",
            str(Path(tiny.__file__)),
            "--workdir",
            str(self.workdir(name)),
            f"--config.data.data_dir={self.folder / 'data'}",
            *extra,
        ]
        if self.processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            arguments += [
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={self.processes}",
                f"--heartbeat_seconds={self.heartbeat_seconds}",
            ]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // self.processes} "
            "--xla_backend_optimization_level=0",
        }
        with self.log(name).open("ab") as log:
            started = [
                subprocess.Popen(
                    [*arguments, *([f"--process_id={index}"] if self.processes > 1 else [])],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
                for index in range(self.processes)
            ]
        try:
            yield started
        finally:
            for process in started:
                process.kill()
                process.wait()

    def log(self, name: str) -> Path:
        """Return the path of a run's output."""
        return self.folder / f"{name}.log"

    def finish(self, name: str, *extra: str) -> None:
        """Run to the end.

        Raises:
            DrillError: the run failed.
        """
        with self.running(name, *extra) as processes:
            codes = exit_codes(processes)
        if any(codes):
            last = self.log(name).read_text(errors="replace").strip().splitlines()[-1:]
            raise DrillError(f"{name} ended with {codes}: {''.join(last)} (see {self.log(name)})")

    def outcome(self, name: str) -> str:
        """Run to the end; return `IDENTICAL`, or what differs from the undisturbed run.

        Raises:
            DrillError: it did not end well.
        """
        self.finish(name)
        differing = differences(self.workdir(REFERENCE), self.workdir(name))
        return f"{', '.join(differing)} differ" if differing else IDENTICAL


def exit_codes(processes: Sequence[subprocess.Popen], patience: float = PATIENCE) -> list[int]:
    """Wait for all processes and return their exit codes, -1000 if one has not ended in time."""
    end = time.monotonic() + patience
    codes = []
    for process in processes:
        try:
            codes.append(process.wait(max(0.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            codes.append(-1000)
    return codes


def send(processes: Sequence[subprocess.Popen], number: signal.Signals) -> None:
    """Send a signal to the processes that still run."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def rows(workdir: Path) -> list[dict[str, Any]]:
    """Read the complete lines of `metrics.jsonl`, without the values in `TIMES`."""
    path = workdir / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    parsed = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in parsed]


def trained(workdir: Path) -> int:
    """Return the last step whose loss is in `metrics.jsonl`, 0 if there is none."""
    return max((row["step"] for row in rows(workdir) if "loss" in row), default=0)


def wait_for_step(workdir: Path, step: int, processes: Sequence[subprocess.Popen]) -> None:
    """Wait until the loss of that step is in `metrics.jsonl`, or a process has ended."""
    end = time.monotonic() + PATIENCE
    while trained(workdir) < step and time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.01)


def saved_steps(workdir: Path) -> list[int]:
    """Return the steps of all complete checkpoints, in rising order."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of the results in which two finished runs differ, compared bit by bit."""
    differing = [
        name
        for name in ("zero_shot.json", "retrieval.json", "examples.json")
        if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    by_step = [_by_step(rows(workdir)) for workdir in (one, other)]
    if by_step[0] != by_step[1]:
        differing.append("metrics.jsonl")
    last = [saved_steps(workdir)[-1] for workdir in (one, other)]
    arrays = [
        json.loads((workdir / f"checkpoints/{step}/position/metadata").read_text())["arrays"]
        for workdir, step in zip((one, other), last, strict=True)
    ]
    if last[0] != last[1] or arrays[0] != arrays[1]:
        differing.append("the last checkpoint")
    return differing


def _by_step(written: list[dict[str, Any]]) -> dict[tuple[int, str], Any]:
    values: dict[tuple[int, str], Any] = {}
    for row in written:
        for key, value in row.items():
            if key == "step":
                continue
            if (row["step"], key) in values:
                values[row["step"], f"{key} twice"] = value
            values[row["step"], key] = value
    return values
