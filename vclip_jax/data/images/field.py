"""Where the illuminated field of a fundus photograph lies, whatever the light.

The field of a fundus camera is a disc, cut off by the frame or not: it is convex, and one piece. So
what is dark within it is retina in shadow, and not surround.
"""

from typing import Final

import cv2
import numpy as np

_DARKEST, _BRIGHT = 0.02, 0.90
"""Quantiles of the brightest channel that stand for the surround and for the bright parts."""
_SHARE: Final = 0.15
"""How far from the surround to the bright parts the field begins."""
_LIT: Final = 16.0
"""What is as bright as this is never surround: a photograph that has none may be dark somewhere."""
_MARK: Final = 0.03
"""Half of the width of what may stick out of the field, as a fraction of the side."""


def brightest_channel(rgb: np.ndarray) -> np.ndarray:
    """uint8 `[height, width, 3]` to the largest of its channels, uint8 `[height, width]`."""
    red, green, blue = cv2.split(rgb)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def levels(brightest: np.ndarray) -> tuple[int, int]:
    """How bright surround and bright parts are (2nd and 90th percentile), 0 to 255.

    Args:
        brightest: uint8 `[height, width]`, see `brightest_channel`.
    """
    histogram = cv2.calcHist([brightest], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(histogram) / brightest.size
    surround, bright = np.searchsorted(below, (_DARKEST, _BRIGHT))
    return int(surround), int(bright)


def threshold(surround: int, bright: int) -> float:
    """The level from which on a pixel belongs to the field, see `levels`."""
    return surround + _SHARE * (bright - surround)


def field_mask(rgb: np.ndarray) -> np.ndarray:
    """Which pixels belong to the field: the convex hull of the largest lit region.

    Args:
        rgb: uint8 `[height, width, 3]`, with a dark surround or none.

    Returns:
        uint8 `[height, width]` of 0 and 1; 1 everywhere where no pixel is surround, as in a flat
        picture.
    """
    brightest = brightest_channel(rgb)
    level = min(threshold(*levels(brightest)), _LIT)
    # A median, lest the noise of a compressed surround grow on the field.
    lit = cv2.threshold(cv2.medianBlur(brightest, 3), level, 1, cv2.THRESH_BINARY)[1]
    # Nor should an orientation mark at the rim, which would pull the hull out.
    reach = max(1, round(_MARK * min(lit.shape)))
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, element)
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        return np.ones_like(lit)
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea))
    return np.asarray(cv2.fillConvexPoly(np.zeros_like(lit), hull, 1))
