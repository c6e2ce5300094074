"""What a run writes down beside its checkpoints: `metrics.jsonl` and `environment.json`."""

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
            "tensorflow-datasets", "tokenizers", "opencv-python-headless", "pillow")  # fmt: skip


LESS_IS_BETTER = ("loss", "ece", "brier")
Listener = Callable[[int, Mapping[str, float], float], None]
"""Hears of a row: its step, its values, and when it was written in seconds since 1970."""


class MetricsLog:
    """Appends to `metrics.jsonl`; never rewrites or repeats what an earlier run has written.

    A resumed run repeats the steps since its checkpoint. Their numbers are the same again, so
    values that are already there are left alone. A last line that a crash cut off is removed.

    Raises:
        ValueError: another line is damaged; names it.
    """

    def __init__(self, path: Path, *, enabled: bool = True, track: str = ""):
        """`track` is the metric by which `best` chooses; a log that is not `enabled` only reads."""
        self._path, self._enabled, self._track = path, enabled, track
        self._written: dict[int, set[str]] = {}
        self._tracked: dict[int, float] = {}
        self._listeners: list[Listener] = []
        if not path.exists():
            return
        content = path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if enabled and len(complete) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(complete))
        for number, line in enumerate(complete.splitlines(), 1):
            row = self._parse(line, number)
            self._written.setdefault(row["step"], set()).update(map(sys.intern, row))
            self._follow(row["step"], row)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row["step"], int):
                return row
            reason = "no step"
        except (ValueError, KeyError, RecursionError) as error:
            reason = " ".join(str(error).split())
        raise ValueError(f"{self._path}, line {number}, is damaged ({reason}): repair or remove it")

    def has(self, step: int, keys: Iterable[str]) -> bool:
        """Whether all of these values of this step are there."""
        return self._written.get(step, set()).issuperset(keys)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows so far, in the order in which they were written."""
        if self._path.exists():
            for number, line in enumerate(self._path.read_bytes().splitlines(), 1):
                yield self._parse(line, number)

    def tell(self, listener: Listener) -> None:
        """Have `listener` called with every row from now on, once it is written."""
        self._listeners.append(listener)

    def write(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Append one row with those of the values that are not there for this step: the result."""
        written = self._written.setdefault(step, set())
        new = {key: value for key, value in values.items() if key not in written}
        self._follow(step, new)
        if not self._enabled or not new:
            return new
        written.update(new)
        now = round(time.time(), 3)
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "time": now, **new}) + "\n")
        for listener in self._listeners:
            listener(step, new, now)
        return new

    def best(self, steps: Sequence[int]) -> int | None:
        """Which of `steps` has the best tracked metric so far, the earliest of equals; or None.

        Less is better of losses and errors, more of everything else.
        """
        known = [step for step in sorted(steps) if step in self._tracked]
        sign = 1 if self._track.endswith(LESS_IS_BETTER) else -1
        return min(known, key=lambda step: sign * self._tracked[step], default=None)

    def _follow(self, step: int, values: dict[str, float]) -> None:
        value = values.get(self._track)
        if value is not None and math.isfinite(value):
            self._tracked[step] = value


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Versions, devices and the git commit of the working directory (None outside a checkout)."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    commit: str | None
    try:
        commit = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [{"kind": device.device_kind, "id": device.id} for device in jax.devices()],
        "process_count": jax.process_count(),
        "git_commit": commit,
        "versions": versions,
    }
