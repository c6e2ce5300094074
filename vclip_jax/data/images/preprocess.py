"""The input of a model, made from a photograph or a stored square."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images import guarded
from vclip_jax.data.images.decode import decode, decode_whole, read_rgb
from vclip_jax.data.images.enhance import enhance
from vclip_jax.data.images.fit import BUILT_IN_FITS, fit_square
from vclip_jax.data.images.gate import judge
from vclip_jax.data.images.opening import ImageError
from vclip_jax.files.foreign import MOST_IMAGE, read_bytes

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vclip_jax.data.record import Record


def preprocess_record(record: "Record", data: "ConfigDict", size: int = 0) -> npt.NDArray[np.uint8]:
    """Return a record's picture as a model gets it in evaluation, uint8 `[size, size, 3]`.

    Args:
        record: the photograph's record.
        data: `config.data`.
        size: side in pixels, 0 for the model's.

    Raises:
        ImageError: the picture cannot be used; names the key.
    """
    image = record_square(
        record, size or data.image_size, data.fit, data.decode, whole=True, key=record["key"]
    )
    return enhance(image) if data.enhance else image


def judged_record(
    record: "Record", size: int, fit: str, mode: str, enhanced: bool, *, key: str
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the picture of `preprocess_record`, and the reasons of `gate.judge` to refuse it.

    Args:
        record: the photograph's record. A square that was stored ready is judged as stored.
        size, fit, mode, enhanced: `image_size`, `fit`, `decode` and `enhance` of `config.data`.
        key: the photograph's name in errors.

    Raises:
        ImageError: the picture cannot be used; names the key.
        ValueError: the picture was made a square by another fit.
    """
    rgb = read_rgb(record["image"], key=key)
    square = fit_square(rgb, size, _square_fit(record, fit, key), mode)
    return enhance(square) if enhanced else square, judge(rgb)


def preprocess_pixels(rgb: npt.NDArray[np.uint8], data: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Return the pixels of a whole photograph as a model gets them, uint8 `[size, size, 3]`.

    Args:
        rgb: uint8 `[height, width, 3]`.
        data: `data` of a portable configuration.
    """
    square = fit_square(rgb, data["image_size"], data["fit"], data["decode"])
    return enhance(square) if data["enhance"] else square


Views = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None, tuple[str, ...]]


def preprocess_file(
    path: str, data: Mapping[str, Any], side: int, gate: bool = False
) -> Views | ImageError:
    """Read a file in a worker process: `preprocess_pixels`, a picture to show, and the gate.

    Args:
        path: the file.
        data: `data` of a portable configuration.
        side: side of the picture, which has the model's fit and is not enhanced; 0 for none.
        gate: whether to judge the photograph, see `gate.judge`.

    Returns:
        uint8 `[image_size, image_size, 3]`, uint8 `[side, side, 3]` (None without a `side`) and the
        reasons to refuse the photograph (empty without `gate`), or an error that names the path.
    """
    try:
        if data["fit"] in BUILT_IN_FITS:
            return guarded.call(_preprocess_file, path, dict(data), side, gate)
        # A fit that a recipe registered is unknown in the worker.
        rgb = guarded.call(_preprocess_file, path, None, 0, gate)
        return rgb if isinstance(rgb, ImageError) else _views(rgb, data, side, gate)
    except guarded.Fault as error:
        return ImageError(f"{path}: cannot read the image: {error}", error.reason)


def _views(rgb: npt.NDArray[np.uint8], data: Mapping[str, Any], side: int, gate: bool) -> Views:
    picture = fit_square(rgb, side, data["fit"]) if side else None
    return preprocess_pixels(rgb, data), picture, judge(rgb) if gate else ()


def _preprocess_file(path: str, data: Mapping[str, Any] | None, side: int, gate: bool) -> Any:
    """Return the views of a file, or its pixels without `data`."""
    try:
        content = read_bytes(path, MOST_IMAGE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return ImageError(f"{path}: cannot read the file: {reason}")
    try:
        with guarded.limited():
            rgb = read_rgb(content, key=path)
            return rgb if data is None else _views(rgb, data, side, gate)
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
    """Return a record's picture as `decode.decode` gives it; a picture that is already square is
    scaled.

    With `whole` the picture is that of `decode.decode_whole`, for evaluation.

    Returns:
        uint8 `[side, side, 3]`, RGB; `side` is `size` except with `room`.

    Raises:
        ImageError: the picture cannot be used; names the key.
        ValueError: the picture was made a square by another fit.
    """
    square_fit = _square_fit(record, fit, key)
    if whole:
        return decode_whole(record["image"], size, square_fit, mode, key=key)
    return decode(record["image"], size, square_fit, mode, room=room, key=key)


def _square_fit(record: "Record", fit: str, key: str) -> str:
    """Return the fit of a record's picture: a picture that is already square is scaled."""
    fitted = record.get("fitted")
    if fitted is not None and fitted != fit:
        raise ValueError(_contradiction(key, fitted, fit))
    return fit if fitted is None else "squash"


def check_fitted(
    name: str, source: Sequence["Record"], size: int, fit: str, augment: Any = None
) -> None:
    """Refuse stored squares that do not match the requested fit, size or augmentation.

    Args:
        name: the source's name in error messages.
        source: the records; only the first is read, since all are stored alike.
        size: side of the requested images in pixels.
        fit: see `decode.decode`.
        augment: a policy, see `pipeline.train_batches`.

    Raises:
        ValueError: one line that names the contradiction.
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
