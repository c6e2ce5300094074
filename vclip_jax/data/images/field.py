"""The illuminated field of a fundus photograph, bright or underexposed.

The field of a fundus camera is a disc, which the frame may cut off. It is convex and in one piece,
so a dark area within it is retina in shadow and no surround.
"""

from typing import Final

import cv2
import numpy as np

_DARKEST, _BRIGHT = 0.02, 0.90
"""Quantiles of the brightest channel that stand for the surround and the bright parts."""
_SHARE: Final = 0.15
"""Threshold of the field, as a share of the way from the surround to the bright parts."""
_LIT: Final = 16.0
"""Level below which pixels can be surround in any photograph."""
_EVEN, _FLAT = 4, 0.08
"""A brighter surround is flat: this share of all pixels lies within so many levels of it."""
_MARK: Final = 0.03
"""Half of the width of an orientation mark, as a fraction of the side."""


def brightest_channel(rgb: np.ndarray) -> np.ndarray:
    """Return the largest channel of each pixel, uint8 `[height, width]`."""
    red, green, blue = cv2.split(rgb)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def levels(brightest: np.ndarray) -> tuple[int, int]:
    """Return the levels of surround and bright parts (2nd and 90th percentile), 0 to 255.

    Args:
        brightest: uint8 `[height, width]`, see `brightest_channel`.
    """
    histogram = cv2.calcHist([brightest], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(histogram) / brightest.size
    surround, bright = np.searchsorted(below, (_DARKEST, _BRIGHT))
    return int(surround), int(bright)


def field_level(brightest: np.ndarray) -> float:
    """Return the level above which pixels belong to the field.

    Args:
        brightest: uint8 `[height, width]`, see `brightest_channel`.
    """
    surround, bright = levels(brightest)
    alike = cv2.inRange(brightest, max(surround - _EVEN, 0), surround + _EVEN)
    # Dark pixels of different levels are retina: such a photograph has no surround.
    flat = cv2.countNonZero(alike) > _FLAT * brightest.size
    lit = surround + _SHARE * (bright - surround)
    return min(lit, max(_LIT, surround + 2 * _EVEN) if flat else _LIT)


def field_mask(rgb: np.ndarray) -> np.ndarray:
    """Return the mask of the field: the convex hull of the largest lit region.

    Args:
        rgb: uint8 `[height, width, 3]`, with a flat surround or none.

    Returns:
        uint8 `[height, width]` of 0 and 1. A picture without surround, such as a flat one, is all
        field.
    """
    # The median keeps the noise of a compressed surround off the field.
    brightest = cv2.medianBlur(brightest_channel(rgb), 3)
    lit = cv2.threshold(brightest, field_level(brightest), 1, cv2.THRESH_BINARY)[1]
    # The opening removes an orientation mark, which would pull the hull out.
    reach = max(1, round(_MARK * min(lit.shape)))
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, element)
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        return np.ones_like(lit)
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea))
    return np.asarray(cv2.fillConvexPoly(np.zeros_like(lit), hull, 1))
