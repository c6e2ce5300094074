"""What a model sees of a record: of a photograph, or of a square that was stored ready for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from vclip_jax.data.decode import decode, read_rgb
from vclip_jax.data.enhance import enhance
from vclip_jax.datasets.records import Record


def seen(record: Record, data: ConfigDict, size: int = 0) -> npt.NDArray[np.uint8]:
    """A record as a model gets it when it is evaluated, uint8 `[size, size, 3]`.

    Args:
        record: the photograph's.
        data: `config.data`.
        size: another than the model's.

    Raises:
        ImageError: it cannot be used; names the key.
    """
    image = square(record, size or data.image_size, data.fit, data.decode, key=record["key"])
    return enhance(image) if data.enhance else image


def square(
    record: Record, size: int, fit: str, mode: str = "exact", *, room: float = 1.0, key: str
) -> npt.NDArray[np.uint8]:
    """A record's picture as `decode.decode` gives it; one that is a square already is only scaled.

    Raises:
        ImageError: it cannot be used; names the key.
        ValueError: it was made a square in another way.
    """
    fitted = record.get("fitted")
    if fitted is not None and fitted != fit:
        raise ValueError(_contradiction(key, fitted, fit))
    how = fit if fitted is None else "squash"
    return decode(record["image"], size, how, mode, room=room, key=key)


def check_fitted(
    name: str, source: Sequence[Record], size: int, fit: str, augment: Any = None
) -> None:
    """Refuse records that were stored ready for something else than what is asked for.

    Args:
        name: of the source, for errors.
        source: of which the first record is read: all are stored alike.
        size: of the images to come, in pixels.
        fit: see `decode.decode`.
        augment: a policy, see `pipeline.train_batches`.

    Raises:
        ValueError: one line that says what contradicts what.
    """
    fitted = source[0].get("fitted") if len(source) else None
    if fitted is None:
        return
    if fitted != fit:
        raise ValueError(_contradiction(name, fitted, fit))
    side = read_rgb(source[0]["image"], key=name).shape[0]
    if size > side:
        raise ValueError(
            f"{name} holds squares of {side} px, and config.data.image_size={size} asks for more: "
            f"build it with --ready {size} or more"
        )
    if augment == "chinese_clip":
        raise ValueError(
            f"{name} holds squares, and config.data.augment='chinese_clip' crops photographs: use "
            "another policy, or a dataset that was built without --ready"
        )


def _contradiction(name: str, fitted: str, fit: str) -> str:
    return (
        f"{name} was made a square by fit={fitted!r} when it was stored, which "
        f"config.data.fit={fit!r} contradicts: set that to {fitted!r}, or use a dataset that was "
        "built without --ready, or with --fit " + fit
    )
