"""The cameras of the training domain and of its stand-ins.

Training pictures come from a wide range of cameras (domain randomisation: Tobin et al., "Domain
randomization for transferring deep neural networks", IROS 2017), those of a stand-in from one make.
The ranges of the training cameras cover the statistics of real photographs of healthy eyes with a
margin: `benchmarks/realism.py` compares them.
"""

import numpy as np

from vclip_jax.datasets.synthetic.camera import (
    Camera,
    Colour,
    Dirt,
    File,
    Flare,
    Light,
    slopes,
    tint,
)

_VIOLET: Colour = (0.35, 0.15, 1.0)
_BLUE: Colour = (0.1, 0.35, 1.0)
_WHITE: Colour = (0.8, 0.9, 1.0)
_MAGENTA: Colour = (1.0, 0.2, 0.7)
_ORANGE: Colour = (1.0, 0.5, 0.1)
_GREEN: Colour = (0.2, 1.0, 0.5)
_SHADOW: Colour = (-1.0, -0.7, -0.4)


def _colour(rng: np.random.Generator, low: Colour, high: Colour) -> Colour:
    # Three scalars are drawn faster than one array.
    r, g, b = (rng.uniform(*bounds) for bounds in zip(low, high, strict=True))
    return r, g, b


def _pair(rng: np.random.Generator, spread: float) -> tuple[float, float]:
    return rng.normal(0, spread), rng.normal(0, spread)


def scaled(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw uniformly in the logarithm, so that small values are as usual as large ones."""
    return float(low * (high / low) ** rng.random())


def any_camera(rng: np.random.Generator) -> Camera:
    """Draw any camera with any settings, for the training domain."""
    green = 0.22 + 0.50 * rng.beta(2.4, 2.0)
    red = 0.24 + (0.72 - 0.6 * max(green - 0.45, 0)) * rng.beta(3.0, 1.5)
    blue = (rng.uniform(0.04, 0.35), rng.uniform(0.25, 0.95))[rng.integers(2)]
    colour = tint(red, green, blue)
    frame = rng.random()
    aspect = 1.0
    if frame < 0.35:  # the whole disc
        aperture = rng.uniform(0.90, 1.0)
    elif frame < 0.67:  # cut off on all sides or tight
        aperture = rng.uniform(1.0, 1.32)
    else:  # a landscape sensor with black at the sides, cut off above and below
        aspect, aperture = rng.uniform(1.12, 1.55), rng.uniform(0.95, 1.3)
    chance = rng.random(10)
    haze = rng.uniform(0.12, 0.45) if chance[0] < 0.07 else max(0.0, rng.normal(0.02, 0.07))
    sharpen = rng.uniform(0.8, 2.0) if chance[1] < 0.08 else max(0.0, rng.normal(0.5, 0.5))
    grey = 0.08 if chance[2] < 0.05 else 0.04
    return Camera(
        aspect=aspect,
        padded=bool(chance[3] < 0.65),
        aperture=aperture,
        offset=_pair(rng, 0.012),
        notch=rng.uniform(-1.2, 0.2) if chance[4] < 0.3 else None,
        notch_shape=int(rng.integers(3)),
        tint=colour,
        contrast=slopes(rng.uniform(0.7, 1.5), colour),
        black=(0.0, rng.uniform(0, 0.04), rng.uniform(0, 0.12)) if chance[5] < 0.4 else (0, 0, 0),
        shoulder=rng.uniform(0.65, 0.98),
        light=_any_light(rng),
        haze=haze,
        haze_colour=_colour(rng, (0.45, 0.35, 0.15), (0.85, 0.65, 0.6)),
        rim=rng.uniform(0.1, 0.9) if chance[6] < 0.35 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_spread=rng.beta(0.5, 1.2),
        rim_width=scaled(rng, 0.05, 0.7),
        rim_colour=_colour(rng, (0.35, 0.3, 0.05), (1.0, 0.85, 0.85)),
        flares=_ghosts(rng, 0.3) + _lens_flares(rng, 0.18),
        blur=rng.uniform(0.02, 0.11),
        aberration=rng.normal(0, 0.0025),
        sharpen=sharpen,
        halo=scaled(rng, 0.004, 0.03),
        noise=0.018 * rng.beta(1, 4),
        blotches=rng.uniform(0, 0.012) if chance[7] < 0.5 else 0.0,
        surround=_colour(rng, (0.0, 0.0, 0.0), (grey, grey, grey)),
        dirt=_any_dirt(rng),
        file=File(
            pixels=rng.uniform(0.4, 0.9) if chance[8] < 0.15 else 1.0,
            jpeg=_quality(rng) if chance[9] < 0.6 else 0,
            subsampled=bool(rng.random() < 0.4),
        ),
    )


def _quality(rng: np.random.Generator) -> int:
    """Draw a JPEG quality, which is low in a fifth of the files."""
    return int(rng.integers(35, 70) if rng.random() < 0.2 else rng.integers(70, 98))


def _any_light(rng: np.random.Generator) -> Light:
    cells = int(rng.integers(2, 7))
    return Light(
        vignette=rng.uniform(0.1, 1.3),
        steepness=scaled(rng, 1.5, 12.0),
        centre=_pair(rng, 0.15),
        slope=_pair(rng, 0.16),
        ring=rng.uniform(-0.3, 0.3) if rng.random() < 0.2 else 0.0,
        ring_radius=rng.uniform(0.2, 0.9),
        uneven=abs(rng.normal(0, 0.09)),
        coloured=abs(rng.normal(0, 0.12)) / cells,
        cells=cells,
        hue=(rng.uniform(0.5, 1.0), 1.0, rng.uniform(0.3, 1.5)),
    )


def _ghosts(rng: np.random.Generator, rate: float) -> tuple[Flare, ...]:
    """Draw a ghost in the middle of the field, which is faint and bluish or a shadow."""
    if rng.random() >= rate:
        return ()
    kinds = (_VIOLET, _BLUE, _WHITE, _SHADOW, _ORANGE)
    light = scaled(rng, 0.008, 0.16)
    r, g, b = kinds[rng.choice(5, p=(0.3, 0.2, 0.2, 0.2, 0.1))]
    return (
        Flare(
            centre=_pair(rng, 0.1),
            radius=scaled(rng, 0.04, 0.45),
            stretch=rng.uniform(0.8, 1.25),
            hollow=bool(rng.random() < 0.2),
            colour=(light * r, light * g, light * b),
        ),
    )


def _lens_flares(rng: np.random.Generator, rate: float) -> tuple[Flare, ...]:
    """Draw reflections on a line through the field's centre, most of them violet."""
    if rng.random() >= rate:
        return ()
    angle, kinds = rng.uniform(0, 2 * np.pi), (_VIOLET, _BLUE, _MAGENTA, _WHITE, _GREEN, _ORANGE)
    found = []
    for _ in range(rng.integers(1, 4)):
        far, light = rng.uniform(-1.0, 1.0), scaled(rng, 0.02, 0.35)
        r, g, b = kinds[rng.choice(6, p=(0.35, 0.2, 0.15, 0.15, 0.05, 0.1))]
        found.append(
            Flare(
                centre=(float(far * np.cos(angle)), float(far * np.sin(angle))),
                radius=scaled(rng, 0.05, 0.5),
                stretch=scaled(rng, 0.5, 2.0),
                hollow=bool(rng.random() < 0.25),
                colour=(light * r, light * g, light * b),
            )
        )
    return tuple(found)


def _any_dirt(rng: np.random.Generator) -> Dirt:
    """Draw no dirt, a few specks, or dozens of specks."""
    how = rng.random()
    if how < 0.4:
        return Dirt()
    mean = 2.5 if how < 0.82 else scaled(rng, 8, 70)
    return Dirt(
        specks=int(rng.poisson(mean)),
        rings=int(rng.poisson(scaled(rng, 0.2, 8))) if rng.random() < 0.3 else 0,
        hairs=int(rng.integers(1, 4)) if rng.random() < 0.07 else 0,
        size=scaled(rng, 0.006, 0.028),
        bright=rng.beta(0.6, 1.2),
    )


def messidor(rng: np.random.Generator) -> Camera:
    """Draw a Topcon TRC NW6: 45 degrees, orange-red, dark surround, 3:2 frame."""
    colour = tint(rng.uniform(0.55, 0.85), rng.uniform(0.44, 0.54), rng.uniform(0.25, 0.42))
    return Camera(
        aspect=1.5,
        padded=False,
        aperture=rng.uniform(0.93, 0.97),
        offset=_pair(rng, 0.008),
        notch=0.0 if rng.random() < 0.8 else None,
        notch_shape=0,
        tint=colour,
        contrast=slopes(rng.uniform(0.95, 1.2), colour),
        black=(0, 0, rng.uniform(0, 0.04)),
        shoulder=0.75,
        light=Light(
            vignette=rng.uniform(0.3, 0.7),
            slope=_pair(rng, 0.08),
            uneven=0.05,
            coloured=abs(rng.normal(0, 0.03)),
        ),
        haze=max(0.0, rng.normal(0.0, 0.04)),
        haze_colour=(0.7, 0.45, 0.3),
        rim=rng.uniform(0.2, 0.6) if rng.random() < 0.2 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_spread=0.0,
        rim_width=rng.uniform(0.05, 0.2),
        rim_colour=(0.9, 0.7, 0.5),
        flares=_ghosts(rng, 0.15),
        blur=rng.uniform(0.04, 0.07),
        aberration=0.0015,
        sharpen=0.2,
        halo=0.004,
        noise=rng.uniform(0.004, 0.012),
        blotches=0.004,
        surround=(0.01, 0.005, 0.005),
        dirt=Dirt(specks=int(rng.poisson(0.3))),
        file=File(jpeg=92, subsampled=True),
    )


def fives(rng: np.random.Generator) -> Camera:
    """Draw a Topcon TRC NW8: 50 degrees, square, greenish yellow, crisp, high in contrast."""
    colour = tint(rng.uniform(0.60, 0.85), rng.uniform(0.57, 0.70), rng.uniform(0.32, 0.58))
    return Camera(
        aspect=1.0,
        padded=False,
        aperture=rng.uniform(0.97, 1.0),
        offset=_pair(rng, 0.004),
        notch=0.0 if rng.random() < 0.5 else None,
        notch_shape=1,
        tint=colour,
        contrast=slopes(rng.uniform(1.1, 1.4), colour),
        black=(0, 0, 0),
        shoulder=0.75,
        light=Light(
            vignette=rng.uniform(0.35, 0.8),
            slope=_pair(rng, 0.06),
            uneven=0.05,
            coloured=abs(rng.normal(0, 0.03)),
        ),
        haze=max(0.0, rng.normal(0.0, 0.03)),
        haze_colour=(0.6, 0.6, 0.45),
        rim=0.0,
        rim_angle=0.0,
        rim_spread=0.0,
        rim_width=0.1,
        rim_colour=(0.9, 0.9, 0.7),
        flares=_ghosts(rng, 0.15),
        blur=rng.uniform(0.03, 0.05),
        aberration=0.0005,
        sharpen=rng.uniform(0.3, 0.6),
        halo=0.004,
        noise=rng.uniform(0.002, 0.008),
        blotches=0.0,
        surround=(0.0, 0.0, 0.0),
        dirt=Dirt(),
        file=File(),
    )


def refuge(rng: np.random.Generator) -> Camera:
    """Draw a Zeiss Visucam 500: 45 degrees, square, reddish to brown, soft."""
    colour = tint(rng.uniform(0.50, 0.72), rng.uniform(0.50, 0.62), rng.uniform(0.45, 0.70))
    return Camera(
        aspect=1.0,
        padded=False,
        aperture=rng.uniform(0.96, 1.04),
        offset=_pair(rng, 0.01),
        notch=None,
        notch_shape=0,
        tint=colour,
        contrast=slopes(rng.uniform(0.85, 1.05), colour),
        black=(0, 0, 0),
        shoulder=0.75,
        light=Light(
            vignette=rng.uniform(0.1, 0.4),
            slope=_pair(rng, 0.10),
            uneven=0.05,
            coloured=abs(rng.normal(0, 0.03)),
        ),
        haze=max(0.0, rng.normal(0.02, 0.04)),
        haze_colour=(0.6, 0.45, 0.4),
        rim=rng.uniform(0.2, 0.5) if rng.random() < 0.25 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_spread=0.0,
        rim_width=rng.uniform(0.05, 0.15),
        rim_colour=(0.8, 0.6, 0.55),
        flares=_ghosts(rng, 0.15),
        blur=rng.uniform(0.05, 0.09),
        aberration=0.001,
        sharpen=0.0,
        halo=0.004,
        noise=rng.uniform(0.004, 0.012),
        blotches=0.004,
        surround=(0.02, 0.015, 0.015),
        dirt=Dirt(specks=int(rng.poisson(0.5))),
        file=File(jpeg=90, subsampled=True),
    )
