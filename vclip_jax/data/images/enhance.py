"""Remove the camera's influence from a fundus photograph: illumination, colour cast, contrast.

Local contrast remains: each pixel against its surroundings, in units of the photograph's usual
contrast. Cameras, flashes and pigmentation then look alike, while vessels and lesions stay. The
idea is Graham's, for Kaggle's diabetic retinopathy competition of 2015 (subtract the local mean
colour); here it is applied to logarithms, in which illumination and absorption add up, and scaled
by the photograph's own mean deviation.
"""

from typing import Final

import cv2
import numpy as np

from vclip_jax.data.images.field import field_mask

_OFFSET: Final = 12.0
"""Added before the logarithm, so that noise in dark channels is not amplified."""
_REACH: Final = 0.09
"""Standard deviation of the surroundings' Gaussian window, as a fraction of the side.

It is about twice the radius of the optic disc in a photograph of 45 degrees, so that disc and cup
stay apart.
"""
_GREY: Final = 128.0
_GAIN: Final = 32.0
"""Levels of 255 that a mean deviation becomes; four of them fit on either side of grey."""
_COARSE: Final = 32
_FAINTEST: Final = 0.01
"""Mean deviations below this value are noise, and are not amplified to full contrast."""
_LOG: Final = np.log(np.arange(256) + _OFFSET).astype(np.float32)


def enhance(image: np.ndarray) -> np.ndarray:
    """Return the local contrast of a fundus photograph.

    Args:
        image: uint8 `[size, size, 3]` RGB with a dark surround (or none).

    Returns:
        uint8 `[size, size, 3]`: 128 for a pixel that equals its surroundings or is outside the
        field.
        Multiplying a channel of the input by a smooth field hardly changes the result.
    """
    size = image.shape[0]
    lit = field_mask(image)
    # The gradient at the field's border is no finding.
    border = max(1, round(0.02 * size))
    lit = cv2.erode(lit, np.ones((2 * border + 1,) * 2, np.uint8), borderValue=0)
    mask = cv2.merge([lit.astype(np.float32)] * 3)
    log = cv2.multiply(cv2.LUT(image, _LOG), mask)
    contrast = cv2.multiply(cv2.subtract(log, _surroundings(log, mask)), mask)
    area = max(cv2.countNonZero(lit), 1)
    deviation = np.abs(contrast).sum(axis=(0, 1)) / area
    gain = (_GAIN / np.maximum(deviation, _FAINTEST)).astype(np.float32)
    return np.clip(contrast * gain + np.float32(_GREY + 0.5), 0, 255).astype(np.uint8)


def _surroundings(log: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the lit pixels around each pixel, weighted by a Gaussian window."""
    size = log.shape[0]
    coarse = min(_COARSE, size)

    def smooth(values: np.ndarray) -> np.ndarray:
        small = cv2.resize(values, (coarse, coarse), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(
            small, (0, 0), _REACH * coarse, borderType=cv2.BORDER_CONSTANT
        ).astype(np.float32)

    mean = smooth(log) / np.maximum(smooth(mask), 1e-3)
    return cv2.resize(mean, (size, size), interpolation=cv2.INTER_LINEAR)
