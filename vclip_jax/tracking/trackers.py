"""Where a run can be watched beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow.

`config.trackers` names them; each is a package of its own, which nothing imports unless it is
named. They hear what `metrics.jsonl` gets, row by row, and are shown pictures and embeddings. None
of them can stop a run: one that fails is left out, with a word.
"""

import importlib.util
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ml_collections import ConfigDict

from vclip_jax.files.errors import one_line
from vclip_jax.files.writing import write_json
from vclip_jax.tracking.metrics_log import NO_VALUES
from vclip_jax.tracking.mlflow_tracker import MlflowTracker
from vclip_jax.tracking.tracker import LoggedImage, LoggedPoints, Tracker
from vclip_jax.tracking.wandb_tracker import WandbTracker

log = logging.getLogger("vclip_jax")

IDS: Final = "trackers.json"
"""Tracker -> what it calls the run: with it a resume goes on in the same one."""


class Trackers:
    """All trackers of a run as one, which never fails; as a context manager it closes them.

    It is false if there are none: nothing needs to be prepared for them then.
    """

    def __init__(self, trackers: Mapping[str, Tracker] | None = None):
        """Name -> tracker."""
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
        """See `Tracker`; closed once, however often it is called."""
        self._each(lambda tracker: tracker.close(ended))
        self._trackers.clear()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close(ended=kind is None)

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # a server that is gone is no reason to lose a night
                del self._trackers[name]
                log.warning(
                    "tracker %s is left out from now on, it failed: %s", name, one_line(error, 200)
                )


def check_installed(names: Iterable[str]) -> None:
    """Look for the packages of trackers, without importing them.

    Raises:
        ValueError: one is missing; says how to install it.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # A folder called `wandb`, as W&B leaves them, passes for a package without an origin.
        if spec is None or spec.origin is None:
            raise ValueError(
                f"config.trackers names {name}, which is not installed: pip install {name}, or "
                "take it out of config.trackers"
            )


def open_trackers(
    config: ConfigDict, workdir: Path, rows: Iterable[Mapping[str, Any]], *, enabled: bool = True
) -> Trackers:
    """The trackers of `config.trackers`, in the run that they know from before if there is one.

    Args:
        config: of the run.
        workdir: where it keeps its files, and they theirs.
        rows: those of `metrics.jsonl` so far, for trackers that are new to this run.
        enabled: of several processes one is to write.

    Raises:
        ValueError: one line: a tracker does not start.
    """
    if not enabled or not config.trackers:
        return Trackers()
    path = workdir / IDS
    ids = json.loads(path.read_text("utf-8")) if path.exists() else {}
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
                f"tracker {name} does not start ({one_line(error, 200)}): mend that, or take it "
                "out of config.trackers"
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
