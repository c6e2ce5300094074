"""The cameras of each domain."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from vclip_jax.datasets.synthetic import far_makes, makes
from vclip_jax.datasets.synthetic.camera import Camera

CAMERAS: Mapping[str, Callable[[np.random.Generator], Camera]] = MappingProxyType(
    {
        "synfundus_like": makes.any_camera,
        "messidor_like": makes.messidor,
        "fives_like": makes.fives,
        "refuge_like": makes.refuge,
        "messidor_far": far_makes.far_camera,
        "fives_far": far_makes.far_camera,
        "refuge_far": far_makes.far_camera,
    }
)
"""Domain -> the function that draws one of its cameras."""


def sample_camera(domain: str, rng: np.random.Generator) -> Camera:
    """Draw a camera of the kind that took the pictures of `domain`.

    Args:
        domain: a key of `CAMERAS`.
        rng: the only source of randomness.

    Raises:
        ValueError: another domain.
    """
    if domain not in CAMERAS:
        raise ValueError(f"no cameras for domain {domain!r}: use one of {', '.join(CAMERAS)}")
    return CAMERAS[domain](rng)
