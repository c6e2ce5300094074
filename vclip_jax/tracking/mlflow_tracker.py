"""The tracker for MLflow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ml_collections import ConfigDict
from PIL import Image

from vclip_jax.tracking.tracker import PROJECT, LoggedImage, LoggedPoints, parameters

_PARAMETERS_A_BATCH: Final = 100  # MLflow's own limit


class MlflowTracker:
    """A run in MLflow, at MLFLOW_TRACKING_URI or, if that is not set, in WORKDIR/mlflow."""

    def __init__(self, config: ConfigDict, workdir: Path, known: str | None):
        """Resume the run with the id `known`, or start a new run if it is None."""
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

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """See `Tracker`; captions go to a text file, because MLflow's images have none."""
        for picture in pictures:
            image = Image.fromarray(picture.image)
            self._client.log_image(self.id, image, key=picture.name, step=step)
        lines = [f"{picture.name}\t{picture.caption}\n" for picture in pictures]
        group = pictures[0].name.partition("/")[0]
        self._client.log_text(self.id, "".join(lines), f"captions/{group}_{step}.tsv")

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """Do nothing: MLflow has no projector."""

    def close(self, ended: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self.id, "FINISHED" if ended else "KILLED")
