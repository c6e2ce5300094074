"""The field of a fundus photograph, resizing, and squares of pictures."""

import cv2
import numpy as np
import pytest
from PIL import Image

from vclip_jax.data.images.fit import field_box, fit_square, resize_fast


@pytest.mark.parametrize("side", [100, 225, 300, 337, 448, 600, 1000, 1600])
def test_fast_resizing_leaves_nothing_of_a_pattern_too_fine_to_show(side):
    pattern = np.zeros((side, side, 3), np.uint8)
    pattern[:, ::2] = 200
    small = resize_fast(pattern, 96, 64)
    ideal = np.array(Image.fromarray(pattern).resize((64, 96), Image.Resampling.BOX))
    assert small[8:-8, 8:-8].std() <= max(12, ideal[8:-8, 8:-8].std())
    assert small.mean() == pytest.approx(pattern.mean(), abs=2)


@pytest.mark.parametrize("surround", [0, 9])
@pytest.mark.parametrize(("brightness", "text"), [(200, False), (60, True)])
def test_the_fundus_field_is_found(brightness, text, surround):
    photograph = np.full((300, 450, 3), surround, np.uint8)
    cv2.circle(photograph, (240, 150), 120, (brightness, brightness // 2, 20), -1)
    if text:
        cv2.putText(photograph, "OD 45", (5, 20), cv2.FONT_HERSHEY_PLAIN, 1, (255,) * 3)
    np.testing.assert_allclose(field_box(photograph), (120, 30, 361, 271), atol=4)
    result = fit_square(photograph, 64, "fundus")
    lit = result[..., 0] > (surround + brightness) // 2
    assert lit[32, 1]
    assert lit[32, 62]
    assert lit[1, 32]
    assert lit.mean() == pytest.approx(np.pi / 4, abs=0.03)


def test_dark_corners_of_a_picture_without_surround_are_kept():
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    shade = 20 + 160 * np.clip(1.1 - np.hypot(x, y), 0, 1)
    retina = (shade[..., None] * (1, 0.5, 0.2)).astype(np.uint8)
    assert field_box(retina) == (0, 0, 200, 200)


def test_an_image_without_a_field_is_kept_whole():
    for grey in (0, 200):
        assert field_box(np.full((50, 70, 3), grey, np.uint8)) == (0, 0, 70, 50)


def test_a_cut_aperture_is_padded_not_stretched():
    photograph = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(photograph, (150, 100), 130, (180, 90, 30), -1)  # top and bottom are cut off
    result = fit_square(photograph, 96, "fundus")
    lit = result[..., 0] > 90
    height, width = np.ptp(np.nonzero(lit.any(1))) + 1, np.ptp(np.nonzero(lit.any(0))) + 1
    assert height / width == pytest.approx(200 / 261, abs=0.03)
