"""The seeded weights and inputs behind `cn_clip_tiny.npz`, from NumPy alone."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.models.bert import BertConfig
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import Clip, normalise_image
from vclip_jax.models.rng import seeded

EMBED_DIM, IMAGE_SIZE, VISION_LAYERS, VISION_WIDTH = 16, 64, (2, 1, 1, 1), 8
TEXT = {
    "vocab_size": 60,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "mlp_width": 64,
    "max_positions": 24,
}


def split() -> tuple[Any, Any, Any]:
    """Structure, parameters and batch statistics, the latter two as shapes."""

    def make() -> Clip:
        return Clip(
            embed_dim=EMBED_DIM,
            image_size=IMAGE_SIZE,
            vision_layers=VISION_LAYERS,
            vision_width=VISION_WIDTH,
            text=BertConfig(**TEXT, dropout=0.0),
            rngs=seeded(0),
        )

    return split_model(nnx.eval_shape(make))


def is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in names.STATISTICS


def weights() -> dict[str, np.ndarray]:
    """Name -> float32; none of them trivial."""
    rng = np.random.default_rng(20240310)
    drawn = {}
    for name, shape in names.flatten(*split()[1:]).items():
        value = rng.standard_normal(shape.shape)
        leaf = name.rpartition(".")[2]
        if name == "logit_scale":
            value = np.log(1 / 0.07)
        elif leaf in ("scale", "var"):
            value = 1 + 0.2 * np.tanh(value)
        elif leaf in ("kernel", "text_projection"):
            value = value / np.sqrt(np.prod(shape.shape[:-1]))
        else:
            value = 0.2 * value
        drawn[name] = np.asarray(value, np.float32)
    return drawn


def batch(n: int = 6) -> dict[str, np.ndarray]:
    """`image` uint8, `pixels` (the same, normalised) and padded `tokens`."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (n, 8, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    length = 12
    tokens = rng.integers(1, 60, (n, length)) * (np.arange(length) < rng.integers(3, 13, (n, 1)))
    pixels = np.asarray(normalise_image(jnp.asarray(image)))
    return {"image": image, "pixels": pixels, "tokens": tokens.astype(np.int32)}


def sketch(arrays: Mapping[str, Any]) -> np.ndarray:
    """Norm and product with seeded noise of each array, by name: float64 `[n, 2]`."""
    rng = np.random.default_rng(11)
    rows = []
    for name in sorted(arrays):
        flat = np.asarray(arrays[name], np.float64).ravel()
        rows.append((np.linalg.norm(flat), flat @ rng.standard_normal(flat.size)))
    return np.array(rows)
