"""The cameras of the held-out renderer, far outside of the training cameras.

The cameras of the stand-ins (`messidor_like` and so on) lie within the range of the training
cameras, so the stand-ins flatter a model. Each camera here has some traits that no training camera
has. A person can still read its pictures. Do not train on these domains, and choose no recipe by
them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from vclip_jax.datasets.synthetic.camera import Camera, Colour, Dirt, File, Flare, slopes, tint
from vclip_jax.datasets.synthetic.makes import any_camera, scaled

FEWEST, MOST = 2, 3
"""Number of far traits of a camera."""


def far_camera(rng: np.random.Generator) -> Camera:
    """Draw a training camera and replace a few of its traits."""
    camera = any_camera(rng)
    chosen = rng.permutation(len(TRAITS))[: rng.integers(FEWEST, MOST + 1)]
    for place in sorted(chosen.tolist()):
        camera = TRAITS[place](camera, rng)
    return camera


def _hue(camera: Camera, rng: np.random.Generator) -> Camera:
    """Tint the picture yellowish green or violet."""
    if rng.random() < 0.5:
        colour = tint(rng.uniform(0.4, 0.6), rng.uniform(0.8, 0.98), rng.uniform(0.2, 0.9))
    else:
        colour = tint(rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.75), rng.uniform(1.1, 1.5))
    return replace(camera, tint=colour, contrast=slopes(rng.uniform(0.8, 1.3), colour))


def _response(camera: Camera, rng: np.random.Generator) -> Camera:
    """Flatten the contrast as of a faded slide, or harden it as of a photocopy."""
    contrast = rng.uniform(0.45, 0.65) if rng.random() < 0.5 else rng.uniform(1.6, 2.0)
    return replace(camera, contrast=(contrast, contrast, contrast))


def _lighting(camera: Camera, rng: np.random.Generator) -> Camera:
    """Light the field as a tunnel, at the rim, from one side, as a ring, or in patches."""
    light = camera.light
    match int(rng.integers(5)):
        case 0:
            light = replace(light, vignette=rng.uniform(1.6, 2.4), steepness=rng.uniform(1.6, 3.0))
        case 1:
            light = replace(light, vignette=rng.uniform(-1.0, -0.4))
        case 2:
            angle, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1)
            light = replace(
                light, slope=(float(steep * np.cos(angle)), float(steep * np.sin(angle)))
            )
        case 3:
            light = replace(light, ring=rng.choice([-1, 1]) * rng.uniform(0.5, 0.8))
        case _:
            light = replace(light, coloured=rng.uniform(0.28, 0.4), cells=int(rng.integers(2, 4)))
    return replace(camera, light=light)


def _stray(camera: Camera, rng: np.random.Generator) -> Camera:
    """Add a coloured glow all around, or several strong reflections."""
    if rng.random() < 0.5:
        colours: tuple[Colour, ...] = ((0.1, 0.7, 0.3), (0.1, 0.3, 0.9), (0.9, 0.9, 0.2))
        return replace(
            camera,
            rim=rng.uniform(0.9, 1.0),
            rim_spread=1.0,
            rim_width=rng.uniform(0.72, 0.9),
            rim_colour=colours[rng.integers(3)],
        )
    flares = tuple(
        Flare(
            centre=(rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9)),
            radius=scaled(rng, 0.04, 0.16),
            stretch=scaled(rng, 0.3, 3.0),
            hollow=bool(rng.random() < 0.3),
            colour=(rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)),
        )
        for _ in range(rng.integers(5, 9))
    )
    return replace(camera, flares=flares)


def _focus(camera: Camera, rng: np.random.Generator) -> Camera:
    """Blur the picture, or sharpen it until every edge has a halo."""
    if rng.random() < 0.5:
        return replace(camera, blur=rng.uniform(0.15, 0.24), sharpen=0.0)
    return replace(camera, sharpen=rng.uniform(2.6, 3.5), halo=rng.uniform(0.04, 0.07))


def _sensor(camera: Camera, rng: np.random.Generator) -> Camera:
    """Add strong noise, cut off dark levels, or separate the colours at the rim."""
    match int(rng.integers(3)):
        case 0:
            return replace(camera, noise=rng.uniform(0.03, 0.05), blotches=rng.uniform(0.015, 0.03))
        case 1:
            return replace(camera, black=(rng.uniform(0.08, 0.14), rng.uniform(0.06, 0.1), 0.02))
        case _:
            return replace(camera, aberration=rng.choice([-1, 1]) * rng.uniform(0.015, 0.025))


def _lens(camera: Camera, rng: np.random.Generator) -> Camera:
    """Cover the lens with dirt."""
    dirt = Dirt(
        specks=int(rng.integers(120, 250)),
        rings=int(rng.integers(20, 40)),
        hairs=int(rng.integers(4, 8)),
        size=scaled(rng, 0.006, 0.014),
        bright=rng.random(),
    )
    return replace(camera, dirt=dirt)


def _file(camera: Camera, rng: np.random.Generator) -> Camera:
    """Store a thumbnail, or a JPEG of very low quality."""
    if rng.random() < 0.5:
        return replace(camera, file=File(pixels=rng.uniform(0.3, 0.38), jpeg=0))
    return replace(camera, file=File(jpeg=int(rng.integers(14, 28)), subsampled=True))


def _frame(camera: Camera, rng: np.random.Generator) -> Camera:
    """Move a small field off the middle, on a grey surround."""
    return replace(
        camera,
        aspect=1.0,
        aperture=rng.uniform(0.62, 0.8),
        offset=(rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)),
        surround=(rng.uniform(0.1, 0.2),) * 3,
    )


def _colours(camera: Camera, rng: np.random.Generator) -> Camera:
    """Make the picture nearly grey, or mix its channels."""
    if rng.random() < 0.5:
        keep = rng.uniform(0.05, 0.3)
        grey = (1 - keep) * np.array([0.15, 0.75, 0.10])
        mix = keep * np.eye(3) + np.array([1.3 * grey, 1.3 * grey, 1.2 * grey])
    else:
        leak = rng.uniform(0.15, 0.35, (3, 3))
        mix = 0.7 * np.eye(3) + leak * (1 - np.eye(3))
    red, green, blue = ((float(a), float(b), float(c)) for a, b, c in mix)
    return replace(camera, mix=(red, green, blue))


def _video(camera: Camera, rng: np.random.Generator) -> Camera:
    """Shift every other row, as of an interlaced video."""
    return replace(camera, interlace=rng.choice([-1, 1]) * rng.uniform(0.008, 0.016))


TRAITS: Final[tuple[Callable[[Camera, np.random.Generator], Camera], ...]] = (
    _hue,
    _response,
    _lighting,
    _stray,
    _focus,
    _sensor,
    _lens,
    _file,
    _frame,
    _colours,
    _video,
)
