"""Pictures of 16 bits a sample as 8 bits.

A file of 16 bits rarely states how many of them its camera used: 12-bit data read as 16 bits are
nearly black. So the range in use is taken: the smallest of 8, 10, 12, 14 and 16 bits that holds the
picture's largest sample over all channels, and of these bits the upper 8 are kept. A photograph of
16 bits that is so dark that it fits into fewer comes out brighter, by a power of two.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from PIL import Image

from vclip_jax.data.images.opening import ImageError

DEPTHS: Final = (8, 10, 12, 14, 16)


def to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """Convert uint16 of any shape to uint8, scaled by the range in use."""
    largest = int(samples.max(initial=0))
    bits = next(bits for bits in DEPTHS if largest < 1 << bits)
    return (samples >> (bits - 8)).astype(np.uint8)


def is_deep(image: Image.Image) -> bool:
    """Return whether a file that Pillow opened has more than 8 bits a sample, whatever its mode.

    Pillow gives 16-bit colours as "RGB", the upper 8 bits of them. For a PNG this function works
    only before the pixels are loaded.
    """
    if image.mode.startswith("I;16"):
        return True
    if image.format == "TIFF":
        bits = _tags(image).get(258, 1)
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8 and image.mode not in "IF"
    return image.format == "PNG" and any(";16" in str(tile[-1]) for tile in _tiles(image))


def refuse_unreadable(image: Image.Image) -> None:
    """Refuse a Pillow image of 16 bits whose samples Pillow does not give.

    Raises:
        ImageError: the image is of that kind.
    """
    if not is_deep(image):
        return
    if not image.mode.startswith("I;16"):
        raise ImageError(
            f"16-bit samples of mode {image.mode}: give the file itself, or one of 8 bits (16-bit "
            "transparency and inks are not read)",
            "16-bit",
        )
    if image.format == "TIFF" and _tags(image).get(262) == 0:
        raise ImageError("16-bit samples whose 0 is white: convert them to 8 bits", "16-bit")


def colours(data: bytes) -> np.ndarray:
    """Return the samples of a PNG or TIFF of 16-bit colours, read by OpenCV.

    Returns:
        uint16 RGB `[height, width, 3]`, upright or as stored in the file.

    Raises:
        ImageError: the file does not have three colours.
    """
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if samples is None or samples.dtype != np.uint16 or samples.shape[2:] != (3,):
        raise ImageError(
            "16-bit samples of a kind that is not read: convert them to 8 bits", "16-bit"
        )
    return samples[..., ::-1]


def agreed(readings: Sequence[np.ndarray], upper: np.ndarray) -> np.ndarray:
    """Return the reading of 16-bit colours that agrees with Pillow's upper 8 bits.

    Args:
        readings: uint16 `[height, width, 3]`.
        upper: uint8, Pillow's reading of the same file.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        ImageError: no reading agrees.
    """
    for samples in readings:
        if np.array_equal(samples >> 8, upper):
            return to_eight_bits(samples)
    raise ImageError(
        "16-bit samples that two readers read differently: convert them to 8 bits", "16-bit"
    )


def _tags(image: Image.Image) -> dict:
    return getattr(image, "tag_v2", None) or {}


def _tiles(image: Image.Image) -> list:
    return getattr(image, "tile", None) or []
