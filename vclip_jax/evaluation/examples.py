"""Examples of an evaluation: photographs with the most certain predictions, and heat maps."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict
from PIL import Image

from vclip_jax.data.images.preprocess import preprocess_record, record_square
from vclip_jax.predict.heat_maps import class_directions, make_heat_function, overlay
from vclip_jax.predict.scorer import Scorer, Variables

EXAMPLES = 8
THUMBNAIL = 160


def choose_examples(
    labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
) -> list[int]:
    """Return the rows of the most certain right and wrong predictions, half of `EXAMPLES` each.

    Args:
        labels: int `[n]`; images with -1 are not shown.
        probabilities: `[n, classes]`.
    """
    certainty = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    chosen: list[int] = []
    for kind in (right, ~right & (labels >= 0)):
        rows = np.flatnonzero(kind)
        order = rows[np.argsort(-certainty[rows], kind="stable")]
        # Take one of each true class before a second of any, so that frequent classes do not
        # dominate.
        turn = np.array([(labels[order[:i]] == labels[row]).sum() for i, row in enumerate(order)])
        chosen += order[np.argsort(turn, kind="stable")][: EXAMPLES // 2].tolist()
    return chosen


def describe_examples(
    source: Any,
    labels: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
    config: ConfigDict,
    heat: npt.NDArray[np.floating] | None = None,
) -> list[dict[str, Any]]:
    """Make an entry of `examples.json` for each record of `source`.

    Args:
        source: the records to show.
        labels, probabilities: int `[n]` and `[n, classes]`.
        config: a config; `data.fit` makes photographs square.
        heat: `[n, s, s]` from `heat_maps`, or None.

    Returns:
        Dicts of `image` (a JPEG as a data URI), `label`, `probabilities` and, with `heat`, `heat`:
        the image with the heat map over it.
    """
    entries = []
    for index, record in enumerate(source):
        picture = record_square(record, THUMBNAIL, config.data.fit, key=record["key"])
        entry: dict[str, Any] = {
            "image": jpeg_uri(picture),
            "label": int(labels[index]),
            "probabilities": [round(float(p), 4) for p in probabilities[index]],
        }
        if heat is not None:
            entry["heat"] = jpeg_uri(overlay(picture, heat[index]))
        entries.append(entry)
    return entries


def heat_maps(
    scorer: Scorer,
    variables: Variables,
    source: Any,
    classes: npt.NDArray[np.floating],
    answers: npt.NDArray[np.integer],
    config: ConfigDict,
) -> npt.NDArray[np.float32]:
    """Compute heat maps of at most `EXAMPLES` photographs, for the predicted against other classes.

    All processes must call it together, with the same arguments.

    Args:
        scorer, variables: the model.
        source: `n` records.
        classes: the vector of each class, float32 `[c, d]`.
        answers: int `[n]`, the class of each record.
        config: a config; `data` holds the preprocessing.

    Returns:
        float32 `[n, size, size]`, see `heat_maps.make_heat_function`.
    """
    data, n = config.data, len(source)
    size = data.image_size
    # The shape is always the same, so that one program serves all datasets.
    squares = np.zeros((EXAMPLES, size, size, 3), np.uint8)
    directions = np.zeros((EXAMPLES, classes.shape[1]), np.float32)
    directions[:n] = class_directions(classes)[answers]
    for pixels, record in zip(squares, source, strict=False):
        pixels[:] = preprocess_record(record, config.data)
    heat = make_heat_function(scorer.graphdef, scorer.replicated)
    return np.asarray(heat(variables, squares, directions))[:n]


def jpeg_uri(image: npt.NDArray[np.uint8]) -> str:
    """Encode uint8 RGB `[h, w, 3]` as a data URI, for a page that needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
