"""Random changes to training images: one warp, one table, one colour matrix.

Photometric changes map black to black, so that the surround of a fundus photograph stays as it is
in every camera. All draws come from the generator that is passed in, and always the same number of
them, so that a result depends on nothing but the generator's state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

_BLACK: Final = 6
_LIT: Final = 20
"""Values up to `_BLACK` are surround and become 0; values from `_LIT` up are changed in full."""

# Rec. 601 luma, as in PIL's and torchvision's colour jitter.
_LUMA: Final = np.array([0.299, 0.587, 0.114])

_VALUES: Final = np.arange(256.0)
_RAMP: Final = np.clip((_VALUES - _BLACK) / (_LIT - _BLACK), 0.0, 1.0)


@dataclass(frozen=True)
class Policy:
    """The largest extent of each change; the default is no change at all.

    Ranges are symmetric about "no change" unless stated otherwise.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.data.images.augment import Policy, augment
        >>> picture = np.full((8, 8, 3), 100, np.uint8)
        >>> darker = augment(picture, np.random.default_rng(0), Policy(exposure=0.5))
        >>> darker[0, 0].tolist()
        [53, 53, 53]
    """

    min_crop: float = 1.0
    """Side of the smallest crop relative to the image's side; crops lie anywhere inside."""
    rotation: float = 0.0
    """Largest angle in degrees."""
    translation: float = 0.0
    """Shift in addition to the crop's own position, as a fraction of the side."""
    flip: float = 0.0
    """Probability of a left-right flip. A flip turns a right eye into a left one: keep 0 if
    captions name the eye.
    """
    exposure: float = 0.0
    """Relative change of brightness, the same factor for all channels."""
    channel_gain: float = 0.0
    """Relative change of each channel separately: white balance, pigmentation."""
    gamma: float = 0.0
    """Natural logarithm of the largest exponent, per image."""
    contrast: float = 0.0
    """Relative change about the mean of the lit pixels."""
    saturation: float = 0.0
    """Relative change of saturation."""
    illumination: float = 0.0
    """Relative depth of smooth uneven lighting."""
    blur: float = 0.0
    """Probability of a Gaussian blur, sigma up to 1 % of the side."""
    low_pass: float = 0.0
    """Probability of a loss of resolution by up to 2.5, as from a camera with fewer pixels."""
    noise: float = 0.0
    """Probability of sensor noise, standard deviation up to 8 of 255."""


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A function from a uint8 image `[side, side, 3]` and a random generator to another such image."""

CHINESE_CLIP: Final = "chinese_clip"
"""The reference's augmentation, which crops the photograph itself: see `chinese_clip_augment`."""

AUGMENTATIONS: Final[dict[str, Policy | Change | str]] = {
    "none": Policy(),
    # Chinese-CLIP's default: images are only resized.
    "recipe": Policy(),
    "fundus": Policy(
        min_crop=0.85,
        rotation=15.0,
        translation=0.03,
        exposure=0.2,
        channel_gain=0.15,
        gamma=0.3,
        contrast=0.2,
        saturation=0.4,
        illumination=0.2,
        blur=0.2,
        low_pass=0.15,
        noise=0.2,
    ),
    # For use with `enhance`, which undoes changes of light and colour anyway.
    "geometry": Policy(
        min_crop=0.85, rotation=15.0, translation=0.03, blur=0.2, low_pass=0.15, noise=0.2
    ),
    CHINESE_CLIP: CHINESE_CLIP,
}
"""The values of `config.data.augment`; a recipe may add a policy or a function of its own."""


def named_policy(name: str) -> Policy | Change | str:
    """Return the augmentation called `name`.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}: use one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def augment(
    image: np.ndarray, rng: np.random.Generator, policy: Policy, size: int = 0
) -> np.ndarray:
    """Return a random variant of an image.

    Args:
        image: uint8 `[side, side, 3]` RGB; not changed.
        rng: the source of all random draws.
        policy: the extent of each change.
        size: side of the result, by default that of the image. If the result is smaller by a factor
            of up to 1 / `min_crop`, crops keep their resolution; other changes act on the result.

    Returns:
        uint8 `[size, size, 3]`; the input itself if the policy changes nothing.
    """
    if policy == Policy():
        return image
    unit = rng.random(40)  # 28 to 39 are free: a new change leaves the others' draws as they are
    signed = 2.0 * unit - 1.0
    image = _warp(image, unit[:6], policy, size or image.shape[0])
    if unit[6] < policy.low_pass:
        image = _low_pass(image, factor=1.0 + 1.5 * unit[7])
    if unit[8] < policy.blur:
        sigma = 0.01 * image.shape[0] * (0.1 + 0.9 * unit[9])
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if policy.illumination:
        image = _relight(image, 1.0 + policy.illumination * signed[10:19].reshape(3, 3))
    if policy.saturation:
        image = _saturate(image, 1.0 + policy.saturation * signed[19])
    image = _tone(image, signed[20:26], policy)
    if unit[26] < policy.noise:
        image = _noise(image, rng, deviation=1.0 + 7.0 * unit[27])
    return image


def _warp(image: np.ndarray, unit: np.ndarray, policy: Policy, size: int) -> np.ndarray:
    """Crop, rotate, move and flip in one affine resampling; pixels from outside are black."""
    side = image.shape[0]
    crop = 1.0 - (1.0 - policy.min_crop) * unit[0]
    angle = math.radians(policy.rotation) * (2.0 * unit[1] - 1.0)
    room = (1.0 - crop) / 2.0 + policy.translation
    centre, target = (side - 1) / 2.0, (size - 1) / 2.0
    middle = centre + room * side * (2.0 * unit[2:4] - 1.0)
    # Source pixels per pixel of the result.
    step = crop * (side / size)
    cosine, sine = step * math.cos(angle), step * math.sin(angle)
    mirror = -1.0 if unit[4] < policy.flip else 1.0
    # The rows map an output pixel (x, y, 1) to its place in the source.
    matrix = np.array([[mirror * cosine, -sine, 0.0], [mirror * sine, cosine, 0.0]])
    matrix[:, 2] = middle - matrix[:, :2] @ (target, target)
    if side == size and np.array_equal(matrix, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))):
        return image
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def _low_pass(image: np.ndarray, factor: float) -> np.ndarray:
    size = image.shape[0]
    fewer = max(1, round(size / factor))
    small = cv2.resize(image, (fewer, fewer), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _relight(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply by a smooth field that interpolates `gains` (3 by 3, over the whole image)."""
    size = image.shape[0]
    field = cv2.resize(gains.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.merge((field, field, field)), dtype=cv2.CV_8U)


def _saturate(image: np.ndarray, factor: float) -> np.ndarray:
    matrix = factor * np.eye(3) + (1.0 - factor) * _LUMA
    return cv2.transform(image, matrix)


def _tone(image: np.ndarray, signed: np.ndarray, policy: Policy) -> np.ndarray:
    """Change exposure, channel gains, gamma and contrast with one table for each channel."""
    amounts = (policy.exposure, policy.channel_gain, policy.gamma, policy.contrast)
    if not any(amounts):
        return image
    gains = (1.0 + policy.exposure * signed[0]) * (1.0 + policy.channel_gain * signed[1:4])
    exponent = math.exp(policy.gamma * signed[4])
    table = 255.0 * gains[:, None] * (_VALUES / 255.0) ** exponent
    if policy.contrast:
        means = np.array(cv2.mean(image)[:3])
        # The mean of the lit part, assuming that it fills the inscribed circle.
        pivot = np.minimum(means * 4.0 / math.pi, 255.0)
        pivot = 255.0 * gains * (pivot / 255.0) ** exponent
        factor = 1.0 + policy.contrast * signed[5]
        table = pivot[:, None] + factor * (table - pivot[:, None])
    table = np.clip(np.rint(table * _RAMP), 0, 255).astype(np.uint8)
    return cv2.LUT(image, np.ascontiguousarray(table.T)[None])


def _noise(image: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Add independent noise to the lit pixels, uniform, in a tenth of the time of normal noise."""
    draws = rng.integers(0, 256, image.shape, dtype=np.uint8)
    scale = deviation * math.sqrt(12.0) / 256.0
    noisy = cv2.addWeighted(image, 1.0, draws, scale, -127.5 * scale)
    # Red is the brightest channel in every retina.
    return cv2.copyTo(noisy, cv2.inRange(image[..., 0], _LIT, 255), image.copy())
