"""The use of a run's time: the speed of steps, and the time spent on everything else.

`Goodput` keeps a ledger in `goodput.json` to which each start of the run adds: seconds by account,
the number of starts, and the steps that were done twice because the run ended after its last
checkpoint.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_json
from vclip_jax.models.flops import utilisation
from vclip_jax.train.build import flops_of_step
from vclip_jax.train.state import Metrics

ACCOUNTS = ("start", "compile", "step", "data_wait", "checkpoint", "evaluation")


class Goodput:
    """The ledger of a run, and the speed since the last reading.

    Args:
        path: the path of `goodput.json`.
        step: steps done so far.
        batch_size: pairs in a step, over all devices.
        flops: operations of a step, over all devices, see `flops.step_flops`.
        devices: all devices of the mesh.
        enabled: False on all but one of several processes.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        *,
        batch_size: int,
        flops: float | None,
        devices: Sequence[jax.Device],
        enabled: bool = True,
    ):
        self._path, self._enabled, self._devices = path, enabled, devices
        self._batch_size, self._flops = batch_size, flops
        before: dict[str, Any] = read_json(path, constants=True) if path.exists() else {}
        self.seconds = {name: before.get("seconds", {}).get(name, 0.0) for name in ACCOUNTS}
        self._starts = before.get("starts", 0) + 1
        self._repeated = before.get("repeated_steps", 0) + max(before.get("step", 0) - step, 0)
        self._step = step
        self._compiling = False
        self._recent: list[float] = []
        self._waits: list[float] = []

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Book the time of a `with` block on one of `ACCOUNTS`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def step_done(self, seconds: float, waited: float, *, compiled: bool = False) -> None:
        """Book the wall time of a step, `waited` of it for data; the first step is `compiled`."""
        self._step += 1
        self.seconds["data_wait"] += waited
        self.seconds["compile" if compiled else "step"] += seconds - waited
        if self._compiling:  # the time to compile says nothing about later steps
            self._recent, self._waits = [], []
        self._compiling = compiled
        self._recent.append(seconds)
        self._waits.append(waited)

    def read(self) -> dict[str, float]:
        """Write the ledger, and return figures of the steps (at least one) since the last reading.

        The figures: `examples_per_second` of all devices and `..._per_device`,
        `data_wait_fraction`, the 50th and 95th percentile of `step_seconds` and, if they are
        known, `mfu` (`flops.utilisation`) and `hbm_bytes`, the highest of this process's devices.
        """
        self.write()
        mean = float(np.mean(self._recent))
        p50, p95 = np.percentile(self._recent, (50, 95))
        values = {
            "examples_per_second": self._batch_size / mean,
            "examples_per_second_per_device": self._batch_size / mean / len(self._devices),
            "data_wait_fraction": float(np.sum(self._waits) / np.sum(self._recent)),
            "step_seconds_p50": float(p50),
            "step_seconds_p95": float(p95),
        }
        if (mfu := utilisation(self._flops, mean, self._devices)) is not None:
            values["mfu"] = mfu
        used = [d.memory_stats() for d in self._devices if d.process_index == jax.process_index()]
        if all(used):
            values["hbm_bytes"] = float(max(stats["bytes_in_use"] for stats in used if stats))
        self._recent, self._waits = [], []
        return values

    def write(self) -> None:
        """Write the ledger."""
        if not self._enabled:
            return
        total = sum(self.seconds.values())
        content = {
            "step": self._step,
            "starts": self._starts,
            "repeated_steps": self._repeated,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "step_fraction": round(self.seconds["step"] / total, 4) if total else None,
        }
        write_json(self._path, content)


def open_goodput(
    config: ConfigDict, workdir: Path, mesh: Mesh, step: int, *, began: float
) -> Goodput:
    """Open the ledger of a run at `step`, and book the time since `began` as the start.

    `began` is a time of `time.perf_counter`.
    """
    flops = flops_of_step(config)
    goodput = Goodput(
        workdir / "goodput.json",
        step,
        batch_size=config.global_batch_size,
        flops=flops,
        devices=list(mesh.devices.flat),
        enabled=jax.process_index() == 0,
    )
    goodput.seconds["start"] += time.perf_counter() - began
    return goodput


class Pace:
    """The pace of the host: it stays close to the devices, and books each step once it is done.

    Args:
        goodput: the ledger.
        waited: returns the seconds spent waiting for data so far.
    """

    def __init__(self, goodput: Goodput, waited: Callable[[], float]):
        self._goodput, self._waited = goodput, waited
        self._running: list[Metrics] = []
        self._compiled = False
        self._booked_wait = waited()
        self._since = time.perf_counter()

    def resume(self) -> None:
        """Start the clock of the next step now; the time before belongs to no step."""
        self._since = time.perf_counter()

    def follow(self, metrics: Metrics, *, catch_up: bool) -> None:
        """Record a step that was dispatched, and wait until the devices finish the step before it.

        With `catch_up`, wait until they finish this step too.

        The host is never more than a step ahead of the devices, and not ahead at all when it
        reads metrics, so that time is booked on the right account. The host also waits for the
        first step, which is compiled.
        """
        self._running.append(metrics)
        ahead = 0 if catch_up or not self._compiled else 1
        while len(self._running) > ahead:
            jax.block_until_ready(self._running.pop(0))
            now, waited = time.perf_counter(), self._waited()
            self._goodput.step_done(
                now - self._since, waited - self._booked_wait, compiled=not self._compiled
            )
            self._since, self._booked_wait, self._compiled = now, waited, True


class Trace:
    """A `jax.profiler` trace of some steps, for TensorBoard or XProf.

    Args:
        folder: the folder for the trace.
        first: steps before the trace, counted from this start of the run.
        steps: steps in the trace; 0 for no trace.
    """

    def __init__(self, folder: Path, first: int, steps: int):
        self._folder, self._first, self._left = folder, first, steps
        self._running = False

    def before_step(self) -> None:
        """Start the trace if it is due."""
        if self._left and self._first == 0:
            jax.profiler.start_trace(self._folder)
            self._running = True
        self._first -= 1

    def after_step(self, result: jax.Array) -> None:
        """Stop the trace after its last step, once `result`, of any shape, is computed."""
        if self._running:
            self._left -= 1
            if not self._left:
                jax.block_until_ready(result)
                self.close()

    def close(self) -> None:
        """Stop the trace if it is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
