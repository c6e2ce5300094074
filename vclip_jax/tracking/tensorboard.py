"""The tracker for TensorBoard: event files and the files of its projector.

The files are written with TensorBoard's own package, but not with its `EventFileWriter`, which
imports TensorFlow if it is installed, and keeps events in a queue that a killed run loses.
"""

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter

from vclip_jax.files.writing import write_bytes
from vclip_jax.tracking.tracker import LoggedImage, LoggedPoints

CONFIG = "projector_config.pbtxt"
"""The file name under which the projector looks for its configuration."""


class TensorBoardTracker:
    """A folder for `tensorboard --logdir`, with one event file for each start of the run.

    Each event is written to disk at once. A resumed run does not need its earlier files.
    """

    def __init__(self, folder: Path):
        """Make `folder` if it does not exist, and a new event file in it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.id = folder.name
        self._folder = folder
        path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._writer = RecordWriter(path.open("xb"))
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """See `tracker.Tracker`."""
        summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self._add(Event(wall_time=seconds, step=step, summary=summary))

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """See `tracker.Tracker`; the captions are the pictures' descriptions."""
        summary = Summary(value=[_image_value(picture) for picture in pictures])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """See `tracker.Tracker`."""
        write_projection(self._folder, embeddings)

    def close(self, ended: bool) -> None:
        """See `tracker.Tracker`."""
        self._writer.close()

    def _add(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def write_projection(folder: Path, embeddings: LoggedPoints) -> None:
    """Write points for the projector into `folder/projector`, and the projector's config."""
    points = folder / "projector" / embeddings.name
    points.mkdir(parents=True, exist_ok=True)
    config = ProjectorConfig()
    entry = config.embeddings.add(tensor_name=embeddings.name)
    lines = ["\t".join(f"{value:.6g}" for value in vector) for vector in embeddings.vectors]
    entry.tensor_path = _put(folder, points / "tensors.tsv", "\n".join(lines) + "\n")
    entry.metadata_path = _put(folder, points / "metadata.tsv", _table(embeddings.columns))
    if embeddings.thumbnails is not None:
        png = _png(_sprite(embeddings.thumbnails))
        entry.sprite.image_path = _put(folder, points / "sprite.png", png)
        entry.sprite.single_image_dim.extend(embeddings.thumbnails.shape[2:0:-1])
    _put(folder, folder / CONFIG, text_format.MessageToString(config))


def _put(folder: Path, path: Path, content: str | bytes) -> str:
    """Replace a file in one step, as TensorBoard may be reading; return its path in `folder`."""
    write_bytes(path, content.encode() if isinstance(content, str) else content)
    return path.relative_to(folder).as_posix()


def _table(columns: Mapping[str, Sequence[str]]) -> str:
    """Return columns as TSV; a single column has no title, which would be read as a value."""
    rows = list(zip(*columns.values(), strict=True))
    if len(columns) > 1:
        rows.insert(0, tuple(columns))
    return "".join("\t".join(" ".join(word.split()) for word in row) + "\n" for row in rows)


def _sprite(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay squares `[n, s, s, 3]` out row by row in one large square, padded with black."""
    n, side = thumbnails.shape[:2]
    across = int(np.ceil(np.sqrt(n)))
    squares = np.zeros((across * across, side, side, 3), np.uint8)
    squares[:n] = thumbnails
    grid = squares.reshape(across, across, side, side, 3).swapaxes(1, 2)
    return grid.reshape(across * side, across * side, 3)


def _image_value(picture: LoggedImage) -> Summary.Value:
    height, width = picture.image.shape[:2]
    return Summary.Value(
        tag=picture.name,
        image=Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=_png(picture.image)
        ),
        metadata=SummaryMetadata(summary_description=picture.caption),
    )


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
