"""Runs of the tiny training in processes of their own, and what is left of them."""

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
from typing import Any

from vclip_jax.drills import tiny

DEVICES = 2
# They say how fast the machine was.
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
    """A run that nobody disturbed did not end well; one line."""


@dataclass(frozen=True)
class Drill:
    """Where a drill's runs are, and how many processes each has."""

    folder: Path
    processes: int = 1
    heartbeat_seconds: int = 30

    def workdir(self, name: str) -> Path:
        """Of the run called so."""
        return self.folder / name

    @contextmanager
    def running(self, name: str, *extra: str) -> Iterator[list[subprocess.Popen]]:
        """Start or continue a run; whatever of it is left in the end is killed.

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
        """What a run has said."""
        return self.folder / f"{name}.log"

    def finish(self, name: str, *extra: str) -> None:
        """Run to the end.

        Raises:
            DrillError: it did not end well.
        """
        with self.running(name, *extra) as processes:
            codes = exit_codes(processes)
        if any(codes):
            last = self.log(name).read_text(errors="replace").strip().splitlines()[-1:]
            raise DrillError(f"{name} ended with {codes}: {''.join(last)} (see {self.log(name)})")


def exit_codes(processes: Sequence[subprocess.Popen], patience: float = PATIENCE) -> list[int]:
    """Wait for all; -1000 for one that has not ended in time."""
    end = time.monotonic() + patience
    codes = []
    for process in processes:
        try:
            codes.append(process.wait(max(0.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            codes.append(-1000)
    return codes


def send(processes: Sequence[subprocess.Popen], number: signal.Signals) -> None:
    """A signal to those that still run."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The complete lines of `metrics.jsonl`, as far as they do not tell the time."""
    path = workdir / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    parsed = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in parsed]


def trained(workdir: Path) -> int:
    """The last step whose loss is written down, 0 if none is."""
    return max((row["step"] for row in rows(workdir) if "loss" in row), default=0)


def wait_for_step(workdir: Path, step: int, processes: Sequence[subprocess.Popen]) -> None:
    """Until the loss of that step is written down, or a process has ended."""
    end = time.monotonic() + PATIENCE
    while trained(workdir) < step and time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.01)


def saved_steps(workdir: Path) -> list[int]:
    """The steps of all complete checkpoints, rising."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def differences(one: Path, other: Path) -> list[str]:
    """In what the results of two finished runs differ, to the last bit; nothing if in nothing."""
    found = [
        name
        for name in ("zero_shot.json", "retrieval.json", "examples.json")
        if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    by_step = [_by_step(rows(workdir)) for workdir in (one, other)]
    if by_step[0] != by_step[1]:
        found.append("metrics.jsonl")
    last = [saved_steps(workdir)[-1] for workdir in (one, other)]
    arrays = [
        json.loads((workdir / f"checkpoints/{step}/position/metadata").read_text())["arrays"]
        for workdir, step in zip((one, other), last, strict=True)
    ]
    if last[0] != last[1] or arrays[0] != arrays[1]:
        found.append("the last checkpoint")
    return found


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
