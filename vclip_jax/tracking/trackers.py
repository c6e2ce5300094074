"""The trackers that `config.trackers` names: TensorBoard, Weights & Biases, MLflow.

Each tracker needs a package, which is imported only if the tracker is named. Trackers get each row
of `metrics.jsonl`, and pictures and embeddings. A tracker cannot stop a run: if it fails, a
warning says so, and the run continues without it.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ml_collections import ConfigDict

from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_json
from vclip_jax.tracking.metrics_log import NO_VALUES
from vclip_jax.tracking.mlflow_tracker import MlflowTracker
from vclip_jax.tracking.tracker import LoggedImage, LoggedPoints, Tracker
from vclip_jax.tracking.wandb_tracker import WandbTracker

log = logging.getLogger("vclip_jax")

IDS: Final = "trackers.json"
"""The file with each tracker's id of the run, by which a resumed run continues there."""


class Trackers:
    """All trackers of a run as one, which never fails; leaving the context closes them.

    False if there are no trackers, so that nothing need be prepared for them.
    """

    def __init__(self, trackers: Mapping[str, Tracker] | None = None):
        """Take trackers by name."""
        self._trackers = dict(trackers or {})

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.scalars(step, values, seconds))

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """See `Tracker`."""
        if pictures:
            self._each(lambda tracker: tracker.pictures(step, pictures))

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.embeddings(embeddings))

    def close(self, ended: bool) -> None:
        """See `Tracker`; further calls do nothing."""
        self._each(lambda tracker: tracker.close(ended))
        self._trackers.clear()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close(ended=kind is None)

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # a lost server must not end a long run
                del self._trackers[name]
                log.warning(
                    "tracker %s failed and is not used any more: %s", name, one_line(error, 200)
                )


def check_installed(names: Iterable[str]) -> None:
    """Check that the packages of trackers are installed, without importing them.

    Raises:
        ValueError: a package is missing; the error says how to install it.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # A folder called `wandb`, which W&B creates, looks like a package without an origin.
        if spec is None or spec.origin is None:
            raise ValueError(
                f"config.trackers names {name}, which is not installed: pip install {name}, or "
                "remove it from config.trackers"
            )


def open_trackers(
    config: ConfigDict, workdir: Path, rows: Iterable[Mapping[str, Any]], *, enabled: bool = True
) -> Trackers:
    """Open the trackers of `config.trackers`; they continue the run that they know, if any.

    Args:
        config: the run's config.
        workdir: the folder for the run's files and the trackers' files.
        rows: the rows of `metrics.jsonl` so far, for trackers that are new to this run.
        enabled: False on all but one of several processes.

    Raises:
        ValueError: one line: a tracker does not start.
    """
    if not enabled or not config.trackers:
        return Trackers()
    path = workdir / IDS
    ids = read_json(path) if path.exists() else {}
    rows = list(rows)
    trackers: dict[str, Tracker] = {}
    for name in config.trackers:
        try:
            tracker = _OPEN[name](config, workdir, ids.get(name))
            if name not in ids:
                for row in rows:
                    values = {k: v for k, v in row.items() if k not in NO_VALUES}
                    tracker.scalars(row["step"], values, row.get("time", 0.0))
        except Exception as error:
            raise ValueError(
                f"tracker {name} does not start ({one_line(error, 200)}): fix that, or remove it "
                "from config.trackers"
            ) from error
        trackers[name] = tracker
        ids[name] = tracker.id
        write_json(path, ids)
    return Trackers(trackers)


def _open_tensorboard(config: ConfigDict, workdir: Path, known: str | None) -> Tracker:
    from vclip_jax.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(workdir / "tensorboard")


_OPEN: Final[dict[str, Callable[[ConfigDict, Path, str | None], Tracker]]] = {
    "tensorboard": _open_tensorboard,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
