"""The optional augmentation against the one that Chinese-CLIP builds with timm."""

import random

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from vclip_jax.data.images.chinese_clip_augment import (
    IMAGENET_POLICY,
    OPERATIONS,
    chinese_clip_augment,
)
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.models.clip import IMAGE_MEAN, IMAGE_STD

pytest.importorskip("torch", reason="needs the [parity] extra: torch")
timm = pytest.importorskip("timm.data", reason="needs the [parity] extra: cn-clip")
auto_augment = pytest.importorskip("timm.data.auto_augment")

NAMES = {"PosterizeOriginal": "posterize", "AutoContrast": "auto_contrast", "ShearX": "shear_x"}
FILL = tuple(round(255 * mean) for mean in IMAGE_MEAN)
SETTINGS = {"translate_const": 100, "img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}


def test_the_policy_is_theirs():
    policy = auto_augment.auto_augment_policy("original", SETTINGS)
    theirs = tuple(
        tuple((NAMES.get(op.name, op.name.lower()), op.prob, op.magnitude) for op in pair)
        for pair in policy
    )
    assert theirs == IMAGENET_POLICY


def test_every_operation_gives_their_pixels(monkeypatch):
    image = Image.fromarray(render(sample_case("synfundus_like", 5, 3), 160))
    for pair in auto_augment.auto_augment_policy("original", SETTINGS):
        for operation in pair:
            for sign in (1, -1):
                # Their draws: whether to act (always, here), and the sign.
                operation.prob = 1.0
                draw = 1.0 if sign < 0 else 0.0
                monkeypatch.setattr(random, "random", lambda draw=draw: draw)
                want = np.asarray(operation(image))
                name = NAMES.get(operation.name, operation.name.lower())
                options = [
                    np.asarray(OPERATIONS[name](image, operation.magnitude, s)) for s in (1, -1)
                ]
                assert any((got == want).all() for got in options), operation.name


@pytest.mark.parametrize("shape", [(256, 256), (200, 300)])
def test_the_variants_are_distributed_like_theirs(shape, table):
    image = render(sample_case("synfundus_like", 5, 2), *shape)
    transform = timm.create_transform(
        input_size=64,
        scale=(0.9, 1.0),
        is_training=True,
        color_jitter=None,
        auto_augment="original",
        interpolation="bicubic",
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
    )
    random.seed(0)
    import torch

    torch.manual_seed(0)
    n, pil = 1500, Image.fromarray(image)
    mean, deviation = (np.array(x)[:, None, None] for x in (IMAGE_MEAN, IMAGE_STD))
    # Back to the bytes they were: many variants are alike, and must stay so.
    theirs = [np.rint((transform(pil).numpy() * deviation + mean) * 255) / 255 for _ in range(n)]
    ours = [
        chinese_clip_augment(image, 64, np.random.default_rng(seed)).transpose(2, 0, 1) / 255
        for seed in range(n)
    ]
    statistics = {
        "mean": lambda x: x.mean(),
        "contrast": lambda x: x.std(),
        "red over green": lambda x: x[0].mean() - x[1].mean(),
        "left over right": lambda x: x[:, :, :32].mean() - x[:, :, 32:].mean(),
        "top over bottom": lambda x: x[:, :32].mean() - x[:, 32:].mean(),
        "corner": lambda x: x[:, :6, :6].mean(),
        "detail": lambda x: np.abs(np.diff(x, axis=2)).mean(),
    }
    for name, of in statistics.items():
        # Rounded, lest the order of a sum make two of what is one value.
        values = ([round(float(of(x)), 9) for x in side] for side in (ours, theirs))
        distance = scipy.stats.ks_2samp(*values)
        # The distance that two samples of one distribution exceed once in a thousand times.
        figure, bound = "Kolmogorov-Smirnov distance", 1.95 * (2 / n) ** 0.5
        where = f"{shape[0]} x {shape[1]}"
        table.check(f"augmented: {name}", where, figure, float(distance.statistic), bound)
