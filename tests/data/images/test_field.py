"""The field is convex and whole: shadows and underexposure belong to it, marks and noise do not."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.data.images.field import field_mask

SIZE = 128
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Where a disc is, bool `[SIZE, SIZE]`; all arguments in pixels."""
    return np.asarray((COLUMNS - x) ** 2 + (ROWS - y) ** 2 <= radius**2)


FIELD = disc(64, 64, 56)
CUT = disc(64, 64, 70) & (ROWS > 14) & (ROWS < 112)


def picture(field: np.ndarray, light: float | np.ndarray = 1.0) -> np.ndarray:
    """A retina of one colour in the field, uint8 `[SIZE, SIZE, 3]`."""
    return (field * light)[..., None] * np.array([150.0, 80.0, 40.0])


def agrees(image: np.ndarray, field: np.ndarray) -> bool:
    """Whether the mask is the field but for single pixels along its border."""
    mask, exact = field_mask(image.astype(np.uint8)), field.astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    inner = cv2.erode(exact, around, borderType=cv2.BORDER_REPLICATE)
    return bool((mask <= cv2.dilate(exact, around)).all() and (mask >= inner).all())


@pytest.mark.parametrize("field", [FIELD, CUT], ids=["disc", "cut off"])
@pytest.mark.parametrize("light", [1.0, 0.3, 0.07])
def test_the_field_is_found_however_dark_the_photograph(field, light):
    assert agrees(picture(field, light), field)


@pytest.mark.parametrize("place", [(64, 64, 20), (40, 80, 12)])
def test_a_shadow_within_the_field_is_retina(place):
    light = np.where(disc(*place), 0.02, 1.0)
    assert agrees(picture(FIELD, light), FIELD)


def test_a_dark_bay_at_the_rim_is_retina():
    light = np.where(disc(64, 124, 14), 0.02, 1.0)
    mask = field_mask(picture(FIELD, light).astype(np.uint8))
    assert (mask.astype(bool) & disc(64, 124, 14)).sum() > 0.3 * (FIELD & disc(64, 124, 14)).sum()


@pytest.mark.parametrize("mark", [(104, 24), (64, 7), (121, 64)])
def test_an_orientation_mark_pulls_the_field_out_by_two_pixels_at_most(mark):
    marked = FIELD | disc(*mark, 3)
    mask = field_mask(picture(marked).astype(np.uint8)).astype(bool)
    assert not (mask & ~disc(64, 64, 58.5)).any()
    assert (marked & ~disc(64, 64, 58.5)).any()


def test_a_noisy_or_greyish_surround_is_no_retina():
    noise = np.random.default_rng(0).integers(0, 9, (SIZE, SIZE, 3))
    assert agrees(np.maximum(picture(FIELD), noise), FIELD)
    assert agrees(np.maximum(picture(FIELD, 0.4), noise), FIELD)
    for grey in (12, 20, 40):
        assert agrees(np.maximum(picture(FIELD), grey), FIELD)


@pytest.mark.parametrize("level", [0, 5, 60, 255])
def test_a_flat_picture_is_one_field(level):
    assert field_mask(np.full((48, 64, 3), level, np.uint8)).all()


def test_a_photograph_without_a_surround_is_all_field():
    light = np.exp(-1.0 * ((COLUMNS - 64) ** 2 + (ROWS - 64) ** 2) / 64**2)
    assert field_mask(picture(np.ones_like(FIELD), light).astype(np.uint8)).all()


@given(st.integers(8, 200), st.integers(8, 200), st.integers(0, 2**32 - 1), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_any_picture_has_a_mask_of_zeros_and_ones(height, width, seed, gain):
    rng = np.random.default_rng(seed)
    image = (gain * rng.integers(0, 256, (height, width, 3))).astype(np.uint8)
    mask = field_mask(image)
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert mask.any()
