"""Local contrast: blind to gain and illumination, grey without contrast, faithful to spots."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.data.images.enhance import enhance

SIZE = 128
GREY = 128


def disc(x: float, y: float, radius: float, size: int = SIZE) -> np.ndarray:
    """Where a disc is, `[size, size, 1]`; all arguments in pixels."""
    rows, columns = np.mgrid[:size, :size]
    return ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)[..., None]


FIELD = disc(64, 64, 58)


def photograph() -> np.ndarray:
    """A fundus in float64: a lit field with an optic disc, vessels, lesions and texture."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), 1.5)[..., None]
    image = np.array([150.0, 80.0, 50.0]) * (1 + 0.15 * texture)
    image = np.where(disc(36, 64, 10), [215.0, 160.0, 100.0], image)
    vessels = np.zeros((SIZE, SIZE), np.uint8)
    for angle in np.linspace(-1.2, 1.2, 7):
        end = (int(36 + 90 * np.cos(angle)), int(64 + 90 * np.sin(angle)))
        cv2.line(vessels, (36, 64), end, 1, 2)
    image = np.where(vessels[..., None] > 0, image * [0.75, 0.55, 0.7], image)
    return image * FIELD


def pixels(image: np.ndarray) -> np.ndarray:
    return image.clip(0, 255).round().astype(np.uint8)


def change(left: np.ndarray, right: np.ndarray) -> float:
    """Mean difference within the field, in standard deviations of what is seen there."""
    left, right = (image.astype(float)[FIELD[..., 0]] for image in (left, right))
    return float((np.abs(left - right).mean(axis=0) / left.std(axis=0)).mean())


# --- what the camera does ------------------------------------------------------------------------

ROWS, COLUMNS = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j][..., None]
GAINS = {
    "darker": np.full(3, 0.7),
    "brighter": np.full(3, 1.15),
    "redder": np.array([1.15, 0.8, 0.7]),
}
LIGHTS = {
    "from one side": 1 + 0.3 * COLUMNS,
    "dark at the border": 1 - 0.35 * (ROWS**2 + COLUMNS**2),
    "coloured": np.array([1.1, 0.8, 0.75]) * (0.9 + 0.2 * ROWS - 0.2 * COLUMNS**2),
}


@pytest.mark.parametrize("gain", GAINS)
def test_gains_of_channels_hardly_change_the_result(gain):
    image, seen = pixels(photograph()), pixels(photograph() * GAINS[gain])
    # Not exactly nothing: eight bits, and the offset under the logarithm.
    assert change(image, seen) > 0.5
    assert change(enhance(image), enhance(seen)) < 0.05


@pytest.mark.parametrize("light", LIGHTS)
def test_smooth_light_hardly_changes_the_result(light):
    image, seen = pixels(photograph()), pixels(photograph() * LIGHTS[light])
    # At the border a pixel's surroundings lie on one side of it, so some of the slope stays.
    assert change(image, seen) > 0.5
    assert change(enhance(image), enhance(seen)) < 0.2


# --- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [(0, 0, 0), (120, 70, 40), (16, 3, 1), (17, 3, 1), (255,) * 3])
def test_flat_images_are_grey(colour):
    result = enhance(np.full((64, 64, 3), colour, np.uint8))
    np.testing.assert_array_equal(result, np.full_like(result, GREY))


def test_the_surround_is_grey_and_so_is_a_flat_field():
    image = pixels(FIELD * np.array([150.0, 80.0, 50.0]))
    np.testing.assert_array_equal(enhance(image), np.full_like(image, GREY))
    outside = np.broadcast_to(~FIELD, image.shape)
    assert (enhance(pixels(photograph()))[outside] == GREY).all()


def test_a_surround_that_is_not_quite_black_is_grey_too():
    image = np.maximum(pixels(photograph()), 9)
    outside = np.broadcast_to(~FIELD, image.shape)
    assert (enhance(image)[outside] == GREY).all()


def test_an_underexposed_retina_is_no_surround():
    # As dark as it is, each half of it keeps some contrast.
    result = enhance(pixels(photograph() * 0.07)).astype(float) - GREY
    for half in (FIELD & (COLUMNS < 0), FIELD & (COLUMNS >= 0)):
        assert np.abs(result[half[..., 0]]).mean() > 16


def test_a_shadow_is_enhanced_and_not_cut_out():
    shadow = disc(70, 80, 24)
    result = enhance(pixels(np.where(shadow, 0.08, 1.0) * photograph())).astype(float) - GREY
    inner = disc(70, 80, 12)[..., 0]
    assert (np.abs(result[inner]) > 4).mean() > 0.5


@pytest.mark.parametrize("radius", [64, 62, 58])
def test_where_the_field_touches_the_frame_there_is_no_finding(radius):
    field = disc(63.5, 63.5, radius)
    soft = cv2.GaussianBlur(field.astype(np.float64), (0, 0), 0.7)[..., None]
    result = enhance(pixels(soft * np.array([150.0, 80.0, 50.0]))).astype(int)
    assert np.abs(result - GREY).max() < 48


@pytest.mark.parametrize(("gain", "sign"), [(0.6, -1), (1.5, 1)])
@pytest.mark.parametrize("place", [(64, 64), (30, 80), (95, 50)])
def test_a_small_spot_keeps_its_sign_and_place(gain, sign, place):
    rng = np.random.default_rng(1)
    base = FIELD * np.array([150.0, 80.0, 50.0]) * (1 + 0.05 * rng.standard_normal((SIZE, SIZE, 1)))
    spot = disc(*place, 3)
    difference = enhance(pixels(np.where(spot, gain * base, base))).astype(float) - GREY
    assert (sign * difference[spot[..., 0]] > 32).all()  # further off than is usual in the image
    ring = disc(*place, 9) & ~disc(*place, 5)
    assert np.abs(difference[ring[..., 0]].mean()) < 16


def test_a_photographs_own_mean_deviation_is_32_levels():
    result = enhance(pixels(photograph())).astype(float) - GREY
    inside = cv2.erode(FIELD.astype(np.uint8), None, iterations=3) > 0  # 2 % of the side
    # Less where the scale ends: four deviations on either side.
    deviation = np.abs(result[inside]).mean(axis=0)
    assert ((deviation > 30) & (deviation < 32.5)).all()


def test_the_contrast_of_the_photograph_as_a_whole_is_taken_away():
    flat = FIELD * np.array([150.0, 80.0, 50.0])
    texture = np.random.default_rng(2).standard_normal((SIZE, SIZE, 1))
    texture = cv2.GaussianBlur(texture, (0, 0), 1.0)[..., None]
    weak, strong = (pixels(flat * np.exp(gain * texture)) for gain in (0.3, 0.6))
    assert change(weak, strong) > 0.5
    assert change(enhance(weak), enhance(strong)) < 0.1


# --- what it takes -------------------------------------------------------------------------------


@given(st.integers(16, 256), st.integers(0, 2**32 - 1), st.sampled_from(["noise", "dark", "blobs"]))
@settings(max_examples=60, deadline=None)
def test_any_image_gives_one_of_its_own_kind(size, seed, kind):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, size, 3), np.uint8)
    if kind == "dark":
        image = image // 12
    if kind == "blobs":
        image[rng.random((size, size)) < 0.9] = 0
    before = image.copy()
    result = enhance(image)
    assert result.dtype == np.uint8
    assert result.shape == image.shape
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(result, enhance(image))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_mirrored_image_gives_the_mirrored_result(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 256, (64, 64, 3), np.uint8)
    difference = enhance(image[:, ::-1]).astype(int) - enhance(image)[:, ::-1]
    assert np.abs(difference).max() <= 1
