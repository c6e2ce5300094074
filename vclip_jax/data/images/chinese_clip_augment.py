"""Chinese-CLIP's optional augmentation (`--use-augment`): crop, flip, AutoAugment for ImageNet.

It is made for everyday photographs: it inverts and solarises, and its flip turns right eyes into
left ones. It is here because the reference has it; the policies of `augment.AUGMENTATIONS` are made
for the fundus.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vclip_jax.data.images.fit import resize_fast

MIN_AREA: Final = 0.9
"""Smallest share of the image's area that a crop keeps."""
MAX_RATIO: Final = 4 / 3
"""Largest ratio of a crop's longer side to its shorter side."""
SHORTEST_CROP: Final = math.sqrt(MIN_AREA / MAX_RATIO)
"""Smallest share of the image's shorter side that a crop keeps."""
_ATTEMPTS: Final = 10
_FILL: Final = (123, 117, 104)
"""The mean colour of CLIP's normalisation, which fills the corners after a rotation or a shear."""

Operation = tuple[str, float, int]
"""Name, probability, magnitude from 0 to 10."""

# Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data" (CVPR 2019), the policy for
# ImageNet. Some of the 25 pairs occur twice in the paper.
IMAGENET_POLICY: Final[tuple[tuple[Operation, Operation], ...]] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


def chinese_clip_augment(
    rgb: np.ndarray, size: int, rng: np.random.Generator, *, fast: bool = False
) -> np.ndarray:
    """Return a random variant of a photograph of any shape, as a square.

    Args:
        rgb: uint8 `[height, width, 3]`.
        size: height and width of the result in pixels.
        rng: the source of all random draws.
        fast: resize crops with `fit.resize_fast`, not with Pillow's bicubic filter.

    Returns:
        uint8 `[size, size, 3]`.
    """
    left, top, width, height = random_crop(rgb.shape[1], rgb.shape[0], rng)
    crop = rgb[top : top + height, left : left + width]
    if fast:
        image = Image.fromarray(resize_fast(crop, size, size))
    else:
        image = Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, probability, magnitude in IMAGENET_POLICY[rng.integers(len(IMAGENET_POLICY))]:
        unit, sign = rng.random(), 1 if rng.random() < 0.5 else -1
        if unit < probability:
            image = OPERATIONS[name](image, magnitude, sign)
    return np.array(image)


def random_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a window (left, top, width, height) of at least `MIN_AREA` and at most `MAX_RATIO`.

    Up to ten random areas and ratios are tried until one fits; if none does, the result is the
    largest window in the middle (Szegedy et al. 2015, as in torchvision and timm).
    """
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(MIN_AREA, 1.0)
        ratio = math.exp(rng.uniform(-math.log(MAX_RATIO), math.log(MAX_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w = min(width, round(height * MAX_RATIO))
    h = min(height, round(width * MAX_RATIO))
    return (width - w) // 2, (height - h) // 2, w, h


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[..., Image.Image]:
    """Return an operation that maps magnitudes 0 to 10 to factors 0.1 to 1.9; 1 is no change."""
    return lambda image, magnitude, sign: kind(image).enhance(0.1 + 0.18 * magnitude)


def _rotate(image: Image.Image, magnitude: int, sign: int) -> Image.Image:
    return image.rotate(sign * 3.0 * magnitude, Image.Resampling.BICUBIC, fillcolor=_FILL)


def _shear_x(image: Image.Image, magnitude: int, sign: int) -> Image.Image:
    shear = (1, sign * 0.03 * magnitude, 0, 0, 1, 0)
    return image.transform(
        image.size, Image.Transform.AFFINE, shear, Image.Resampling.BICUBIC, fillcolor=_FILL
    )


OPERATIONS: Final[dict[str, Callable[[Image.Image, int, int], Image.Image]]] = {
    "auto_contrast": lambda image, magnitude, sign: ImageOps.autocontrast(image),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "equalize": lambda image, magnitude, sign: ImageOps.equalize(image),
    "invert": lambda image, magnitude, sign: ImageOps.invert(image),
    # Magnitude 0 keeps four bits, 10 all eight.
    "posterize": lambda image, magnitude, sign: ImageOps.posterize(image, 4 + magnitude * 4 // 10),
    "rotate": _rotate,
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "solarize": lambda image, magnitude, sign: ImageOps.solarize(image, magnitude * 256 // 10),
}
"""Name -> function of (image, magnitude from 0 to 10, sign) that returns an image."""
