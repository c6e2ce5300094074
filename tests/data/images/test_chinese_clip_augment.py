"""The reference's augmentation: windows, operations, and nothing but the generator decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vclip_jax.data.images.augment import named_policy
from vclip_jax.data.images.chinese_clip_augment import (
    IMAGENET_POLICY,
    MAX_RATIO,
    MIN_AREA,
    OPERATIONS,
    SHORTEST_CROP,
    chinese_clip_augment,
    random_crop,
)


def photograph(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_a_crop_lies_within_the_image(width, height, seed):
    left, top, w, h = random_crop(width, height, np.random.default_rng(seed))
    assert left >= 0
    assert top >= 0
    assert 0 < w <= width - left
    assert 0 < h <= height - top


@given(side=st.integers(200, 3000), seed=st.integers(0, 2**32))
def test_a_crop_of_a_square_keeps_nine_tenths_of_its_area(side, seed):
    _, _, w, h = random_crop(side, side, np.random.default_rng(seed))
    assert w * h / side**2 >= MIN_AREA - 1 / 100


def test_an_image_too_long_for_its_crops_gets_the_middle():
    windows = {random_crop(900, 300, np.random.default_rng(seed)) for seed in range(20)}
    assert windows == {(250, 0, round(300 * MAX_RATIO), 300)}
    assert random_crop(300, 900, np.random.default_rng(0)) == (0, 250, 300, 400)


@pytest.mark.parametrize("shape", [(60, 90), (33, 20), (224, 224)])
def test_a_variant_is_a_square_that_depends_on_the_generator_alone(shape):
    image = photograph(*shape)
    variants = [chinese_clip_augment(image, 32, np.random.default_rng(seed)) for seed in range(30)]
    again = [chinese_clip_augment(image, 32, np.random.default_rng(seed)) for seed in range(30)]
    for one, other in zip(variants, again, strict=True):
        assert one.shape == (32, 32, 3)
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
    # Many pairs of operations do nothing, and a long image is always cut alike.
    assert len({variant.tobytes() for variant in variants}) > 10


def test_the_policy_has_25_pairs_of_known_operations():
    assert len(IMAGENET_POLICY) == 25
    for name, probability, magnitude in (
        operation for pair in IMAGENET_POLICY for operation in pair
    ):
        assert name in OPERATIONS
        assert 0 <= probability <= 1
        assert 0 <= magnitude <= 10


@pytest.mark.parametrize(
    ("name", "magnitude"),
    [
        ("color", 5),
        ("contrast", 5),
        ("sharpness", 5),
        ("rotate", 0),
        ("shear_x", 0),
        ("posterize", 10),
        ("solarize", 10),
    ],
)
def test_an_operation_without_effect_leaves_the_image(name, magnitude):
    image = Image.fromarray(photograph())
    for sign in (-1, 1):
        changed = np.asarray(OPERATIONS[name](image, magnitude, sign), int)
        assert np.abs(changed - np.asarray(image, int)).max() <= 1


def test_it_is_known_by_its_name():
    assert named_policy("chinese_clip") == "chinese_clip"
    with pytest.raises(ValueError, match="chinese_clip"):
        named_policy("chinese-clip")


def test_no_crop_is_shorter_than_the_shortest_allows():
    generator = np.random.default_rng(0)
    for width, height in ((500, 500), (640, 480), (300, 900)):
        for _ in range(200):
            _, _, w, h = random_crop(width, height, generator)
            assert min(w, h) >= SHORTEST_CROP * min(width, height) - 1


def test_fast_resizing_changes_little():
    y, x = np.mgrid[0:400, 0:500].astype(np.float64)
    rgb = np.stack([127 + 100 * np.sin(x / 40), 127 + 100 * np.cos(y / 30), x / 2], -1)
    for seed in range(5):
        fast, exact = (
            chinese_clip_augment(
                rgb.astype(np.uint8), 64, np.random.default_rng(seed), fast=fast
            ).astype(int)
            for fast in (True, False)
        )
        assert np.abs(fast - exact).mean() < 3
