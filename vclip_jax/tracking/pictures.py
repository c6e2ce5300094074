"""Pictures of a run for its trackers: pairs as the model sees them, and confusion matrices."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from vclip_jax.data import pipeline
from vclip_jax.data.images.preprocess import preprocess_record
from vclip_jax.data.record import Record
from vclip_jax.tracking.tracker import LoggedImage, LoggedPoints
from vclip_jax.tracking.trackers import Trackers

POINTS = 1000
"""The number of points in the projector; more would slow it down and enlarge its files."""
THUMBNAIL = 48
_CELL, _MARGIN = 48, 28
_INK = np.array((31, 78, 121))


def show_samples(
    trackers: Trackers,
    config: ConfigDict,
    train: Sequence[Record],
    validation: Sequence[Record] | None,
    batch: Mapping[str, jax.Array],
    step: int,
) -> None:
    """Show the first `config.tracker_samples` pairs of a training batch and of validation.

    Args:
        trackers: the trackers; without any, nothing is read.
        config: the run's config.
        train, validation: the sources of the pairs.
        batch: the batch of the training step after `step`, augmented; of it, `image` uint8
            `[b, s, s, 3]`.
        step: steps done so far.
    """
    n = min(config.tracker_samples, config.global_batch_size)
    if not trackers or not n:
        return
    rows, images = first_rows(batch["image"], n)
    records = pipeline.step_records(
        train,
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        step=step,
        rows=rows,
        shuffle=config.data.shuffle,
    )
    pairs = [("train", image, r) for image, r in zip(images, records, strict=True)]
    held_back = [validation[i] for i in range(min(n, len(validation)))] if validation else []
    pairs += [
        ("validation", preprocess_record(record, config.data), record) for record in held_back
    ]
    counts: dict[str, int] = {}
    pictures = []
    for kind, image, record in pairs:
        counts[kind] = counts.get(kind, 0) + 1
        pictures.append(LoggedImage(f"{kind}/pair_{counts[kind]}", image, record["caption"]))
    trackers.pictures(step + 1, pictures)


def first_rows(array: jax.Array, n: int) -> tuple[list[int], npt.NDArray[Any]]:
    """Return numbers and content of the first `n` rows of `[b, ...]` on this process's devices."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    rows: list[int] = []
    parts: list[npt.NDArray[Any]] = []
    for start in sorted(shards):
        if len(rows) < n:
            rows += range(start, start + len(shards[start]))
            parts.append(np.asarray(shards[start]))
    return rows[:n], np.concatenate(parts)[:n]


def project(
    name: str, vectors: npt.NDArray[np.floating], source: Sequence[Record], config: ConfigDict
) -> LoggedPoints:
    """Prepare image embeddings `[n, d]` of the first `POINTS` pairs of `source` for the projector.

    Without `config.tracker_samples`, captions are shown as numbers (equal captions have the same
    number), and there are no pictures.
    """
    records = [source[index] for index in range(min(len(source), POINTS))]
    captions = [record["caption"] for record in records]
    numbers = {caption: str(number) for number, caption in enumerate(dict.fromkeys(captions))}
    columns = {
        "pair": [str(index) for index in range(len(records))],
        "caption": [numbers[caption] for caption in captions],
    }
    if any(record["label"] >= 0 for record in records):
        classes = dict(enumerate(getattr(source, "class_names", ())))
        labels = [record["label"] for record in records]
        columns["class"] = [classes.get(label, str(label)) for label in labels]
    thumbnails = None
    if config.tracker_samples:
        columns["text"] = captions
        thumbnails = np.stack(
            [preprocess_record(record, config.data, THUMBNAIL) for record in records]
        )
    return LoggedPoints(name, vectors[: len(records)], columns, thumbnails)


def confusion_picture(
    name: str, confusion: Sequence[Sequence[int]], classes: Sequence[str]
) -> LoggedImage:
    """Draw a confusion matrix; rows are the truth, and a cell's shade is its share of the row."""
    counts = np.asarray(confusion)
    n = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = 255 + (_INK - 255) * shares[..., None]
    squares = np.kron(cells, np.ones((_CELL, _CELL, 1))).astype(np.uint8)
    side = _MARGIN + n * _CELL
    canvas = np.full((side, side, 3), 255, np.uint8)
    canvas[_MARGIN:, _MARGIN:] = squares
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    middle = _MARGIN + _CELL // 2
    for row in range(n):
        at = middle + row * _CELL
        _write(draw, (_MARGIN // 2, at), str(row), "black")
        _write(draw, (at, _MARGIN // 2), str(row), "black")
        for column in range(n):
            ink = "white" if shares[row, column] > 0.5 else "black"
            _write(draw, (middle + column * _CELL, at), str(counts[row, column]), ink)
    words = ", ".join(f"{number} {word}" for number, word in enumerate(classes))
    caption = f"rows: true classes, columns: predicted classes; {words}"
    return LoggedImage(f"confusion/{name}", np.asarray(image), caption)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: str) -> None:
    draw.text(at, text, fill=ink, anchor="mm", font=_font())


@lru_cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
