"""What a model sees of a photograph when it is evaluated or asked: decoded in full."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vclip_jax.data import guarded
from vclip_jax.data.decode import ImageError, decode_whole, fit_square, read_rgb
from vclip_jax.data.enhance import enhance
from vclip_jax.data.foreign import MOST_IMAGE, read_bytes

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vclip_jax.datasets.records import Record


def seen(record: "Record", data: "ConfigDict", size: int = 0) -> npt.NDArray[np.uint8]:
    """A photograph as a model gets it when it is evaluated, uint8 `[size, size, 3]`.

    Args:
        record: the photograph's.
        data: `config.data`.
        size: another than the model's.

    Raises:
        ImageError: it cannot be used; names the key.
    """
    image = decode_whole(
        record["image"], size or data.image_size, data.fit, data.decode, key=record["key"]
    )
    return enhance(image) if data.enhance else image


def shown(rgb: npt.NDArray[np.uint8], data: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """The pixels of a whole photograph as a model gets them, uint8 `[size, size, 3]`.

    Args:
        rgb: uint8 `[height, width, 3]`.
        data: `data` of a portable configuration.
    """
    square = fit_square(rgb, data["image_size"], data["fit"], data["decode"])
    return enhance(square) if data["enhance"] else square


def look_at(
    path: str, data: Mapping[str, Any], side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None] | ImageError:
    """Read a file in a worker process: `shown`, and a picture for people.

    Args:
        path: of the file.
        data: `data` of a portable configuration.
        side: of the picture, whose fit is the model's and which is not enhanced; 0 for none.

    Returns:
        Both (the second None without a `side`), or what is wrong; it names the path.
    """
    try:
        return guarded.call(_look_at, path, dict(data), side)
    except guarded.Fault as error:
        return ImageError(f"{path}: cannot read the image: {error}", error.reason)


def _look_at(path: str, data: Mapping[str, Any], side: int) -> Any:
    try:
        content = read_bytes(path, MOST_IMAGE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return ImageError(f"{path}: cannot read the file: {reason}")
    try:
        with guarded.limited():
            rgb = read_rgb(content, key=path)
            return shown(rgb, data), fit_square(rgb, side, data["fit"]) if side else None
    except ImageError as error:
        return error
