"""Fit uint8 RGB pictures of any size into a square."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from PIL import Image

from vclip_jax.data.choices import MODES
from vclip_jax.data.images.field import field_level, levels

_THUMBNAIL_SIDE: Final = 256
_LONGEST_CROPPED: Final = 8
"""Ratio of the sides up to which "centre_crop" resizes the whole picture before it crops."""
FINER: Final = 1.5
"""Least pixels that "fast" decodes, relative to the result's pixels along a side.

With 1, photographs of 1024 px become 224 px in 25 % less time, at 1.4 times the distance from
"exact" (0.37); with 2, those of 1024 x 680 px take 75 % longer, and the distance is 0.28 instead of
0.31.
"""


def check_fit(size: int, fit: str, mode: str = "exact") -> None:
    """Check that `fit` and `mode` are known and `size` is positive.

    Raises:
        ValueError: one line: one of them is not.
    """
    if fit not in FITS or size < 1:
        raise ValueError(f"fit must be one of {', '.join(FITS)} and size >= 1, got {fit!r}, {size}")
    if mode not in MODES:
        raise ValueError(f"decode must be one of {', '.join(MODES)}, got {mode!r}")


def fit_square(rgb: np.ndarray, size: int, fit: str, mode: str = "exact") -> np.ndarray:
    """Fit a picture into a square.

    Args:
        rgb: uint8 `[height, width, 3]`.
        size: height and width of the result in pixels.
        fit: one of `FITS`: "squash" resizes straight to the square; "pad" keeps the aspect ratio,
            centred on black; "fundus" first crops to the illuminated field of a fundus
            photograph, see `field_box`; "flair" keeps the aspect ratio at the top left, black at
            the right or below, as FLAIR does; "centre_crop" resizes the shorter side to the size
            and cuts off the ends of the longer one, as CLIP and open_clip do.
        mode: "exact" resizes "squash", "pad" and "centre_crop" with Pillow's antialiased bicubic
            filter, "flair" with its bilinear one, "fundus" by area; "fast" resizes with OpenCV, see
            `resize_fast`.

    Returns:
        uint8 `[size, size, 3]`.
    """
    return FITS[fit](rgb, size, mode)


def _squash(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    return resize_fast(rgb, size, size) if mode == "fast" else _resize(rgb, size, size)


def _pad(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = _inside(rgb, size)
    resize = resize_fast if mode == "fast" else _resize
    return _on_black(resize(rgb, height, width), size)


def _fundus(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    return pad_field(crop_field(rgb), size, mode)


def crop_field(rgb: np.ndarray) -> np.ndarray:
    left, top, right, bottom = field_box(rgb)
    return rgb[top:bottom, left:right]


def pad_field(field: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = _inside(field, size)
    if mode == "fast":
        return _on_black(resize_fast(field, height, width), size)
    method = cv2.INTER_AREA if max(field.shape[:2]) > size else cv2.INTER_CUBIC
    return _on_black(cv2.resize(field, (width, height), interpolation=method), size)


def _flair(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = (max(1, side * size // max(rgb.shape[:2])) for side in rgb.shape[:2])
    if mode == "fast":
        return _on_black(resize_fast(rgb, height, width), size, centred=False)
    return _on_black(_resize(rgb, height, width, bilinear=True), size, centred=False)


def _inside(rgb: np.ndarray, size: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side becomes `size`."""
    scale = size / max(rgb.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return height, width


def _on_black(small: np.ndarray, size: int, *, centred: bool = True) -> np.ndarray:
    """Place a picture in the middle, or at the top left, of a black square."""
    height, width = small.shape[:2]
    if height == width == size:
        return small
    square = np.zeros((size, size, 3), np.uint8)
    top, left = ((size - height) // 2, (size - width) // 2) if centred else (0, 0)
    square[top : top + height, left : left + width] = small
    return square


def _centre(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Return the middle of a picture whose shorter side becomes `size`, by torchvision's rules.

    The longer side is rounded down; a crop edge at half a pixel moves to the even neighbour.
    """
    height, width = (size * side // min(rgb.shape[:2]) for side in rgb.shape[:2])
    top, left = (round((side - size) / 2) for side in (height, width))
    if mode == "exact" and max(height, width) <= _LONGEST_CROPPED * size:
        whole = _resize(rgb, height, width)
        return np.ascontiguousarray(whole[top : top + size, left : left + size])
    # Resize only the visible part: it costs less, and a resized strip could have any length.
    vertical, horizontal = rgb.shape[0] / height, rgb.shape[1] / width
    first, start = round(top * vertical), round(left * horizontal)
    last = max(first + 1, round((top + size) * vertical))
    end = max(start + 1, round((left + size) * horizontal))
    visible = rgb[first:last, start:end]
    return resize_fast(visible, size, size) if mode == "fast" else _resize(visible, size, size)


Fit = Callable[[np.ndarray, int, str], np.ndarray]
"""A function of (uint8 RGB `[height, width, 3]`, side, mode "exact" or "fast") that returns uint8
`[side, side, 3]`.
"""


FITS: Final[dict[str, Fit]] = {
    "squash": _squash,
    "pad": _pad,
    "fundus": _fundus,
    "flair": _flair,
    "centre_crop": _centre,
}
"""The values of `config.data.fit`; a recipe may add its own, which gets photographs in full."""


BUILT_IN_FITS: Final = frozenset(FITS)


def _resize(rgb: np.ndarray, height: int, width: int, *, bilinear: bool = False) -> np.ndarray:
    """Resize with Pillow, whose filter is as wide as the reduction."""
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(rgb).resize((width, height), method))


def resize_fast(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 RGB with OpenCV, antialiased.

    Averaging areas keeps fine vessels from flickering, but OpenCV does it fast only if the factor
    is 2 or 4. So the picture is first resized to 2 or 4 times the result's size by linear
    interpolation, which needs no filter for so small a factor.

    Args:
        rgb: uint8 `[h, w, 3]`.
        height, width: size of the result.
    """
    scales = rgb.shape[0] / height, rgb.shape[1] / width
    if max(scales) >= 4 * FINER:  # large images that are not JPEGs
        return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    vertical, horizontal = (4 if s >= 2 * FINER else 2 if s >= FINER else 1 for s in scales)
    method = cv2.INTER_CUBIC if vertical == horizontal == 1 else cv2.INTER_LINEAR
    larger = cv2.resize(rgb, (width * horizontal, height * vertical), interpolation=method)
    return cv2.resize(larger, (width, height), interpolation=cv2.INTER_AREA)


def field_box(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """Return the bounding box of a fundus photograph's illuminated field.

    The field is searched for in every n-th pixel. It is the largest connected region above
    `field_level` of the brightest channel, so that neither a grey surround nor burnt-in text moves
    the box, and dark corners of a picture without surround stay in it.

    Args:
        rgb: uint8 `[height, width, 3]`.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive, exact to n pixels (n is
        the longest side over 256). The whole image if there is no field: under a tenth of the
        area, or no contrast.
    """
    height, width = rgb.shape[:2]
    whole = (0, 0, width, height)
    step = max(1, max(height, width) // _THUMBNAIL_SIDE)
    red, green, blue = cv2.split(rgb[::step])
    # Columns are picked last: picking single bytes is cheaper than picking pixels.
    brightest = np.ascontiguousarray(cv2.max(cv2.max(red, green), blue)[:, ::step])
    thumbnail = cv2.medianBlur(brightest, 5)
    surround, bright = levels(thumbnail)
    if bright - surround < 16:
        return whole
    lit = cv2.threshold(thumbnail, field_level(thumbnail), 255, cv2.THRESH_BINARY)[1]
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(outline) < 0.1 * thumbnail.size:
        return whole
    x, y, w, h = cv2.boundingRect(outline)
    return x * step, y * step, min(width, (x + w) * step), min(height, (y + h) * step)
