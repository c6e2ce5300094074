"""Augmentation: nothing by default, a function of the generator, black stays black."""

import cv2
import numpy as np
import pytest

from vclip_jax.data.images.augment import AUGMENTATIONS, Policy, augment, named_policy


def photograph(size: int = 96) -> np.ndarray:
    image = np.zeros((size, size, 3), np.uint8)
    cv2.circle(image, (size // 2, size // 2), int(0.46 * size), (190, 95, 40), -1)
    cv2.circle(image, (size // 4, size // 2), size // 12, (250, 220, 150), -1)
    return image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["none", "recipe"])
def test_policies_without_change_return_the_image(name):
    image = photograph()
    assert augment(image, rng(), named_policy(name)) is image


def test_the_result_depends_on_the_generator_alone():
    image, policy = photograph(), AUGMENTATIONS["fundus"]
    before = image.copy()
    first, again, other = (augment(image, rng(seed), policy) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(image, before)
    assert first.dtype == np.uint8
    assert first.shape == image.shape


def test_the_surround_stays_black_and_the_field_stays_lit():
    image = photograph()
    outside = cv2.dilate((image.max(-1) > 0).astype(np.uint8), np.ones((9, 9))) == 0
    policy = Policy(
        exposure=0.5,
        channel_gain=0.5,
        gamma=0.5,
        contrast=0.5,
        saturation=0.5,
        illumination=0.5,
        blur=1.0,
        low_pass=1.0,
        noise=1.0,
    )
    for seed in range(40):
        result = augment(image, rng(seed), policy)
        assert not result[outside].any()
        assert result[30:60, 30:60].mean() > 10


def test_a_surround_that_is_not_quite_black_becomes_black():
    image = np.maximum(photograph(), 5)
    result = augment(image, rng(3), Policy(exposure=0.3, contrast=0.3))
    assert not result[:5, :5].any()


def test_a_flip_mirrors_and_nothing_else():
    image = photograph()
    np.testing.assert_array_equal(augment(image, rng(), Policy(flip=1.0)), image[:, ::-1])


def test_the_fundus_policy_never_flips():
    assert AUGMENTATIONS["fundus"].flip == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_warp_moves_a_mark_to_where_geometry_says(seed):
    size = 101
    image = np.zeros((size, size, 3), np.uint8)
    cv2.circle(image, (60, 40), 4, (255, 255, 255), -1)
    policy = Policy(min_crop=0.8, rotation=20.0)
    unit = rng(seed).random(40)
    crop = 1 - 0.2 * unit[0]
    angle = np.radians(20) * (2 * unit[1] - 1)
    middle = 50 + (1 - crop) / 2 * size * (2 * unit[2:4] - 1)
    # Undo: source = middle + crop * R(angle) (output - centre).
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = 50 + turn.T @ (np.array([60, 40]) - middle) / crop
    result = augment(image, rng(seed), policy)[..., 0].astype(float)
    y, x = np.mgrid[:size, :size]
    found = np.array([(x * result).sum(), (y * result).sum()]) / result.sum()
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_larger_image_gives_the_same_variant_with_more_detail():
    large, small = photograph(192), photograph(96)
    policy = Policy(min_crop=0.5, rotation=15.0, translation=0.05)
    for seed in range(5):
        got = augment(large, rng(seed), policy, 96)
        assert got.shape == (96, 96, 3)
        assert np.abs(got.astype(int) - augment(small, rng(seed), policy)).mean() < 6
    lines = np.zeros((192, 192, 3), np.uint8)
    lines[:, ::4] = 255
    halved = cv2.resize(lines, (96, 96), interpolation=cv2.INTER_AREA)
    policy = Policy(min_crop=0.5, translation=1e-9)
    sharp, soft = (augment(image, rng(3), policy, 96).std() for image in (lines, halved))
    assert sharp > 1.2 * soft


def test_noise_has_no_bias_and_the_stated_size():
    image = np.full((128, 128, 3), 100, np.uint8)
    for seed in range(5):
        deviation = 1 + 7 * rng(seed).random(40)[27]
        error = augment(image, rng(seed), Policy(noise=1.0)).astype(float) - 100
        assert abs(error.mean()) < 0.15
        assert error.std() == pytest.approx(deviation, rel=0.1, abs=0.1)


def test_saturation_keeps_luma():
    image = np.full((8, 8, 3), (150, 90, 60), np.uint8)
    luma = image[0, 0] @ np.array([0.299, 0.587, 0.114])
    for seed in range(5):
        result = augment(image, rng(seed), Policy(saturation=0.5))[0, 0]
        assert result @ np.array([0.299, 0.587, 0.114]) == pytest.approx(luma, abs=1.0)


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(ValueError, match="none, recipe, fundus"):
        named_policy("strong")
