"""What a model sees when it is evaluated or asked: of a photograph, decoded in full, or of a square
that was stored ready for it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images import guarded
from vclip_jax.data.images.decode import (
    BUILT_IN_FITS,
    ImageError,
    decode,
    decode_whole,
    fit_square,
    read_rgb,
)
from vclip_jax.data.images.enhance import enhance
from vclip_jax.files.foreign import MOST_IMAGE, read_bytes

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vclip_jax.data.record import Record


def preprocess_record(record: "Record", data: "ConfigDict", size: int = 0) -> npt.NDArray[np.uint8]:
    """A record as a model gets it when it is evaluated, uint8 `[size, size, 3]`.

    Args:
        record: the photograph's.
        data: `config.data`.
        size: another than the model's.

    Raises:
        ImageError: it cannot be used; names the key.
    """
    image = record_square(
        record, size or data.image_size, data.fit, data.decode, whole=True, key=record["key"]
    )
    return enhance(image) if data.enhance else image


def preprocess_pixels(rgb: npt.NDArray[np.uint8], data: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """The pixels of a whole photograph as a model gets them, uint8 `[size, size, 3]`.

    Args:
        rgb: uint8 `[height, width, 3]`.
        data: `data` of a portable configuration.
    """
    square = fit_square(rgb, data["image_size"], data["fit"], data["decode"])
    return enhance(square) if data["enhance"] else square


def preprocess_file(
    path: str, data: Mapping[str, Any], side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None] | ImageError:
    """Read a file in a worker process: `preprocess_pixels`, and a picture for people.

    Args:
        path: of the file.
        data: `data` of a portable configuration.
        side: of the picture, whose fit is the model's and which is not enhanced; 0 for none.

    Returns:
        Both (the second None without a `side`), or what is wrong; it names the path.
    """
    try:
        if data["fit"] in BUILT_IN_FITS:
            return guarded.call(_preprocess_file, path, dict(data), side)
        # A fit of one's own is not known in the worker.
        rgb = guarded.call(_preprocess_file, path, None, 0)
        return rgb if isinstance(rgb, ImageError) else _views(rgb, data, side)
    except guarded.Fault as error:
        return ImageError(f"{path}: cannot read the image: {error}", error.reason)


def _views(rgb: npt.NDArray[np.uint8], data: Mapping[str, Any], side: int) -> Any:
    return preprocess_pixels(rgb, data), fit_square(rgb, side, data["fit"]) if side else None


def _preprocess_file(path: str, data: Mapping[str, Any] | None, side: int) -> Any:
    """The views of a file, or its pixels without `data`."""
    try:
        content = read_bytes(path, MOST_IMAGE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return ImageError(f"{path}: cannot read the file: {reason}")
    try:
        with guarded.limited():
            rgb = read_rgb(content, key=path)
            return rgb if data is None else _views(rgb, data, side)
    except ImageError as error:
        return error


def record_square(
    record: "Record",
    size: int,
    fit: str,
    mode: str = "exact",
    *,
    room: float = 1.0,
    whole: bool = False,
    key: str,
) -> npt.NDArray[np.uint8]:
    """A record's picture as `decode.decode` gives it; one that is a square already is only scaled.

    With `whole`, as `decode.decode_whole` gives it, which is what evaluation uses.

    Raises:
        ImageError: it cannot be used; names the key.
        ValueError: it was made a square in another way.
    """
    fitted = record.get("fitted")
    if fitted is not None and fitted != fit:
        raise ValueError(_contradiction(key, fitted, fit))
    how = fit if fitted is None else "squash"
    if whole:
        return decode_whole(record["image"], size, how, mode, key=key)
    return decode(record["image"], size, how, mode, room=room, key=key)


def check_fitted(
    name: str, source: Sequence["Record"], size: int, fit: str, augment: Any = None
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
