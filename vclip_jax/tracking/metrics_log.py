"""The metrics of a run, `metrics.jsonl`, and its environment, `environment.json`."""

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.writing import check_no_link

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "tensorflow-datasets",
    "tokenizers",
    "opencv-python-headless",
    "pillow",
)


_MOST: Final = 1 << 30
"""The largest accepted file in bytes; a million steps take about 300 million."""
LESS_IS_BETTER = ("loss", "ece", "nll", "brier")
NO_VALUES = ("step", "time", "evaluation")
"""Keys of a row that are not metrics."""
Listener = Callable[[int, Mapping[str, float], float], None]
"""A function that takes a row: step, values, and time of writing in seconds since 1970."""


class MetricsLog:
    """The file `metrics.jsonl`; rows are only appended, and the last value of a step counts.

    A resumed run repeats the steps since its checkpoint. Their values are the same again, so
    values that exist are not written twice. Rows of an evaluation name its questions
    (`evaluation`); a value is written again if the questions differ and, if the log `renews`, if
    the value has changed. A last line that a crash cut off is removed.

    Raises:
        ValueError: one line: another line is damaged, or the file to write is a link.
        OSError: the file cannot be read, or is not a regular file.
    """

    def __init__(self, path: Path, *, enabled: bool = True, track: str = "", renews: bool = False):
        """Read the rows so far.

        Args:
            path: the file, which need not exist.
            enabled: False only reads.
            track: the metric by which `best` chooses.
            renews: True also writes values that have changed.
        """
        self._path, self._enabled, self._track, self._renews = path, enabled, track, renews
        # Step -> key -> the newest value and its evaluation.
        self._written: dict[int, dict[str, tuple[float, str]]] = {}
        self._tracked: dict[int, float] = {}
        self._listeners: list[Listener] = []
        if enabled:
            check_no_link(path)
        if not path.exists():
            return
        content = read_bytes(path, _MOST)
        complete = content[: content.rfind(b"\n") + 1]
        if enabled and len(complete) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(complete))
        for number, line in enumerate(complete.splitlines(), 1):
            row = self._parse(line, number)
            self._note(row["step"], row, row.get("evaluation", ""))

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row["step"], int):
                return row
            reason = "no step"
        except (ValueError, KeyError, RecursionError) as error:
            reason = one_line(error)
        raise ValueError(f"{self._path}, line {number}, is damaged ({reason}): repair or remove it")

    def has(self, step: int, keys: Iterable[str], evaluation: str = "") -> bool:
        """Return whether the step has all these values, from `evaluation` if that is not ""."""
        row = self._written.get(step, {})
        return all(key in row and (not evaluation or row[key][1] == evaluation) for key in keys)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows so far, in the order in which they were written."""
        if self._path.exists():
            for number, line in enumerate(read_bytes(self._path, _MOST).splitlines(), 1):
                yield self._parse(line, number)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every later row, once the row is written."""
        self._listeners.append(listener)

    def write(
        self, step: int, values: Mapping[str, float], evaluation: str = ""
    ) -> dict[str, float]:
        """Append one row with the values that are new for this step, and return these values.

        `evaluation` identifies the questions, see `measurement.Measurement.evaluation`.
        """
        written = self._written.get(step, {})
        new = {
            key: value
            for key, value in values.items()
            if key not in written
            or written[key][1] != evaluation
            or (self._renews and written[key][0] != value)
        }
        self._note(step, new, evaluation)
        if not self._enabled or not new:
            return new
        now = round(time.time(), 3)
        about = {"evaluation": evaluation} if evaluation else {}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "time": now, **about, **new}) + "\n")
        for listener in self._listeners:
            listener(step, new, now)
        return new

    def best(self, steps: Sequence[int]) -> int | None:
        """Return the one of `steps` with the best tracked metric, the earliest of equals, or None.

        Lower is better for losses and errors, higher for everything else.
        """
        known = [step for step in sorted(steps) if step in self._tracked]
        sign = 1 if self._track.endswith(LESS_IS_BETTER) else -1
        return min(known, key=lambda step: sign * self._tracked[step], default=None)

    def _note(self, step: int, values: Mapping[str, float], evaluation: str) -> None:
        written = self._written.setdefault(step, {})
        for key, value in values.items():
            if key not in NO_VALUES:
                written[sys.intern(key)] = value, evaluation
        tracked = values.get(self._track)
        if tracked is not None and math.isfinite(tracked):
            self._tracked[step] = tracked


def environment() -> dict[str, Any]:
    """Return versions, devices and the git commit of the package (None outside a checkout)."""
    import jax  # imported only here: reports and datasets do not need JAX

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
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
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
