"""Where a run can be watched beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow.

`config.trackers` names them; each is a package of its own, which nothing imports unless it is
named. They hear what `metrics.jsonl` gets, row by row, and are shown pictures and embeddings. None
of them can stop a run: one that fails is left out, with a word.
"""

import importlib.util
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict
from PIL import Image

from vclip_jax import config as config_lib
from vclip_jax.logs import NO_VALUES, write_json

log = logging.getLogger("vclip_jax")

IDS: Final = "trackers.json"
"""Tracker -> what it calls the run: with it a resume goes on in the same one."""
PROJECT: Final = "vclip_jax"
# Keys whose values are paths of this machine; their names may tell more than they should.
_PATHS: Final = ("data_dir", "source", "restore_from", "vocab", "prompts", "weights", "where")
_PARAMETERS_A_BATCH: Final = 100  # MLflow's own limit


@dataclass(frozen=True)
class Picture:
    """An image to show, uint8 `[h, w, 3]`; the slashes in its `name` group it."""

    name: str
    image: npt.NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Embeddings:
    """Points to project."""

    name: str
    vectors: npt.NDArray[np.floating]
    """`[n, d]`."""
    columns: Mapping[str, Sequence[str]]
    """What is known of each point: title -> `n` words."""
    thumbnails: npt.NDArray[np.uint8] | None
    """`[n, s, s, 3]`, if the points are to be shown as pictures."""


class Tracker(Protocol):
    """Something that shows a run to people. Steps come in any order; a value of a step comes once,
    and again where it was measured again, which then counts."""

    id: str
    """What it calls the run."""

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """The values of a row of `metrics.jsonl`, written at `seconds` since 1970."""

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Pictures of a step."""

    def embeddings(self, embeddings: Embeddings) -> None:
        """Points that replace earlier ones of that name."""

    def close(self, ended: bool) -> None:
        """No more will come; the run has `ended`, or broke off."""


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

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """See `Tracker`."""
        if pictures:
            self._each(lambda tracker: tracker.pictures(step, pictures))

    def embeddings(self, embeddings: Embeddings) -> None:
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
                log.warning("tracker %s is left out from now on, it failed: %s", name, _line(error))


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
                f"tracker {name} does not start ({_line(error)}): mend that, or take it out of "
                "config.trackers"
            ) from error
        trackers[name] = tracker
        ids[name] = tracker.id
        write_json(path, ids)
    return Trackers(trackers)


def parameters(config: ConfigDict) -> dict[str, Any]:
    """The config as trackers show it: dotted keys, without those that hold paths."""
    flat = config_lib.flatten(config)
    return {key: value for key, value in flat.items() if key.split(".")[-1] not in _PATHS}


class WandbTracker:
    """Weights & Biases: in WORKDIR/wandb, offline unless WANDB_MODE says otherwise.

    What W&B would collect by itself (console, code, git, command line, packages) is left out.
    """

    def __init__(self, config: ConfigDict, workdir: Path, known: str | None):
        """Go on with the run that is `known`, or start one."""
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.id = known or secrets.token_hex(4)
        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", workdir.absolute().name),
            id=self.id,
            resume="allow" if mode == "online" else None,  # offline, `wandb sync` joins the parts
            dir=workdir,
            mode=mode,
            config=parameters(config),
            settings=wandb.Settings(
                console="off", disable_git=True, save_code=False, silent=True,
                x_disable_meta=True, x_save_requirements=False,
            ),
        )  # fmt: skip
        # W&B's own step only counts up, and an evaluation may be made up for.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """See `Tracker`."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """See `Tracker`."""
        images = {p.name: self._image(p.image, caption=p.caption) for p in pictures}
        self._run.log({"step": step, **images})

    def embeddings(self, embeddings: Embeddings) -> None:
        """Nothing: W&B would need a table of them at every step."""

    def close(self, ended: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if ended else 1)


class MlflowTracker:
    """MLflow: at MLFLOW_TRACKING_URI, or in WORKDIR/mlflow without it."""

    def __init__(self, config: ConfigDict, workdir: Path, known: str | None):
        """Go on with the run that is `known`, or start one."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.entities import Metric, Param

        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            folder = workdir.absolute() / "mlflow"
            folder.mkdir(exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._metric = Metric
        if known is not None:
            self.id = known
            self._client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        run = self._client.create_run(number, run_name=workdir.absolute().name)
        self.id = run.info.run_id
        listed = [Param(key, str(value)) for key, value in parameters(config).items()]
        for start in range(0, len(listed), _PARAMETERS_A_BATCH):
            self._client.log_batch(self.id, params=listed[start : start + _PARAMETERS_A_BATCH])

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """See `Tracker`."""
        at = round(1000 * seconds)
        metrics = [self._metric(key, float(value), at, step) for key, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """See `Tracker`; captions go to a text file, as MLflow's images have none."""
        for picture in pictures:
            image = Image.fromarray(picture.image)
            self._client.log_image(self.id, image, key=picture.name, step=step)
        lines = [f"{picture.name}\t{picture.caption}\n" for picture in pictures]
        group = pictures[0].name.partition("/")[0]
        self._client.log_text(self.id, "".join(lines), f"captions/{group}_{step}.tsv")

    def embeddings(self, embeddings: Embeddings) -> None:
        """Nothing: MLflow has no projector."""

    def close(self, ended: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self.id, "FINISHED" if ended else "KILLED")


def _open_tensorboard(config: ConfigDict, workdir: Path, known: str | None) -> Tracker:
    from vclip_jax.event_files import TensorBoardTracker

    return TensorBoardTracker(workdir / "tensorboard")


_OPEN: Final[dict[str, Callable[[ConfigDict, Path, str | None], Tracker]]] = {
    "tensorboard": _open_tensorboard,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
