"""Fundus cameras: the effect of a camera, its settings and its files on the picture of any eye.

Training pictures come from a wide range of cameras (domain randomisation: Tobin et al., "Domain
randomization for transferring deep neural networks", IROS 2017), the external sets from one each.
"""

from dataclasses import dataclass

import numpy as np

from vclip_jax.datasets.synthetic.geometry import clamp

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """One camera and its settings. Lengths are fractions of the frame's height."""

    aspect: float
    """Width of the frame over its height."""
    padded: bool
    """True to fit a wider frame with padding above and below, False to cut its sides."""
    aperture: float
    """Diameter of the round aperture; above 1 the frame cuts the aperture off."""
    offset: tuple[float, float]
    """Shift of the aperture's centre from the frame's, (right, down)."""
    notch: float | None
    """Direction of the orientation mark at the rim in radians, None without a mark."""
    notch_shape: int
    """0 is a round tooth outwards, 1 a square one outwards, 2 a dent inwards."""
    tint: Colour
    """Display red, green, blue (0 to 1) of the reference fundus at the frame's centre."""
    contrast: Colour
    """Slope of display against scene in logarithms, for each channel."""
    vignette: float
    """Loss of log light at the aperture's edge."""
    slope: tuple[float, float]
    """Unevenness of the illumination, in log light from the centre to the edge (right, down)."""
    haze: float
    """Opacity of the evenly scattered light of the media, 0 to 1."""
    haze_colour: Colour
    rim: float
    """Strength of the crescent of stray light at the rim, 0 to 1."""
    rim_angle: float
    rim_width: float
    """Depth of the crescent as a fraction of the radius."""
    rim_colour: Colour
    blur: float
    """Standard deviation of the point spread in degrees."""
    aberration: float
    """Relative difference in magnification of red and blue."""
    sharpen: float
    """Strength of unsharp masking by the camera's firmware."""
    noise: float
    """Standard deviation of the sensor's noise at 512 pixels in display units (0 to 1)."""
    jpeg: int
    """JPEG quality of the file, 0 for a lossless file."""
    surround: Colour
    """Display colour outside of the aperture."""
    dust: int
    """Number of specks on the optics."""


def sample_camera(domain: str, rng: np.random.Generator) -> Camera:
    """Draw a camera of the kind that took the pictures of `domain`.

    Args:
        domain: "synfundus_like" (any camera), "messidor_like", "fives_like" or "refuge_like".
        rng: the only source of randomness.

    Raises:
        ValueError: another domain.
    """
    makers = {
        "synfundus_like": _any_camera,
        "messidor_like": _messidor,
        "fives_like": _fives,
        "refuge_like": _refuge,
    }
    if domain not in makers:
        raise ValueError(f"no cameras for domain {domain!r}: use one of {', '.join(makers)}")
    return makers[domain](rng)


def _slopes(contrast: float, tint: Colour) -> Colour:
    """Return the contrast of each channel: scattered green or blue light carries less signal."""
    green = clamp((tint[1] / tint[0] - 0.40) / 0.40, 0, 1)
    blue = clamp((tint[2] / tint[1] - 0.25) / 0.75, 0, 1)
    return contrast, contrast * (1 - 0.30 * green), contrast * (1 - 0.5 * blue)


def _tint(red: float, green_to_red: float, blue_to_green: float) -> Colour:
    return red, red * green_to_red, red * green_to_red * blue_to_green


def _colour(rng: np.random.Generator, low: Colour, high: Colour) -> Colour:
    # Drawing three scalars is faster than drawing an array.
    r, g, b = (rng.uniform(*bounds) for bounds in zip(low, high, strict=True))
    return r, g, b


def _any_camera(rng: np.random.Generator) -> Camera:
    green = rng.uniform(0.36, 0.69)
    red = 0.32 + (0.63 - 0.6 * max(green - 0.45, 0)) * rng.beta(3.2, 1.4)
    blue = (rng.uniform(0.08, 0.35), rng.uniform(0.3, 0.95))[rng.integers(2)]
    tint = _tint(red, green, blue)
    frame = rng.random()
    aspect = 1.0
    if frame < 0.40:  # the whole disc
        aperture = rng.uniform(0.90, 1.0)
    elif frame < 0.76:  # cut off on all sides or tight
        aperture = rng.uniform(1.0, 1.28)
    else:  # a landscape sensor with black at the sides, cut off above and below
        aspect, aperture = rng.uniform(1.15, 1.55), rng.uniform(0.95, 1.25)
    stray = rng.random(3)
    return Camera(
        aspect=aspect,
        padded=bool(stray[2] < 0.6),
        aperture=aperture,
        offset=tuple(rng.normal(0, 0.012, 2)),
        notch=rng.uniform(-1.2, 0.2) if rng.random() < 0.3 else None,
        notch_shape=int(rng.integers(3)),
        tint=tint,
        contrast=_slopes(rng.uniform(0.7, 1.25), tint),
        vignette=rng.uniform(0.0, 0.75),
        slope=tuple(rng.normal(0, 0.13, 2)),
        haze=max(0.0, rng.normal(0.02, 0.08)),
        haze_colour=_colour(rng, (0.45, 0.35, 0.15), (0.85, 0.65, 0.6)),
        rim=rng.uniform(0.15, 0.9) if stray[0] < 0.3 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_width=rng.uniform(0.05, 0.45),
        rim_colour=_colour(rng, (0.5, 0.35, 0.05), (1.0, 0.85, 0.8)),
        blur=rng.uniform(0.03, 0.12),
        aberration=rng.normal(0, 0.0025),
        sharpen=max(0.0, rng.normal(0.1, 0.35)),
        noise=0.025 * rng.beta(1, 3),
        jpeg=int(rng.integers(70, 97)) if rng.random() < 0.5 else 0,
        surround=_colour(rng, (0.0, 0.0, 0.0), (0.04, 0.035, 0.035)),
        dust=int(rng.poisson(1.5)) if stray[1] < 0.35 else 0,
    )


def _messidor(rng: np.random.Generator) -> Camera:
    """Draw a Topcon TRC NW6 with a 3-CCD sensor: 45 degrees, orange-red, dark surround, 3:2."""
    tint = _tint(rng.uniform(0.55, 0.85), rng.uniform(0.44, 0.54), rng.uniform(0.25, 0.42))
    return Camera(
        aspect=1.5,
        padded=False,
        aperture=rng.uniform(0.93, 0.97),
        offset=tuple(rng.normal(0, 0.008, 2)),
        notch=0.0 if rng.random() < 0.8 else None,
        notch_shape=0,
        tint=tint,
        contrast=_slopes(rng.uniform(0.95, 1.2), tint),
        vignette=rng.uniform(0.3, 0.7),
        slope=tuple(rng.normal(0, 0.08, 2)),
        haze=max(0.0, rng.normal(0.0, 0.04)),
        haze_colour=(0.7, 0.45, 0.3),
        rim=rng.uniform(0.2, 0.6) if rng.random() < 0.2 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_width=rng.uniform(0.05, 0.2),
        rim_colour=(0.9, 0.7, 0.5),
        blur=rng.uniform(0.04, 0.07),
        aberration=0.0015,
        sharpen=0.2,
        noise=rng.uniform(0.004, 0.012),
        jpeg=92,
        surround=(0.01, 0.005, 0.005),
        dust=int(rng.poisson(0.3)),
    )


def _fives(rng: np.random.Generator) -> Camera:
    """Draw a Topcon TRC NW8: square frame of 50 degrees, greenish yellow, sharp, contrasty."""
    tint = _tint(rng.uniform(0.60, 0.85), rng.uniform(0.57, 0.70), rng.uniform(0.32, 0.58))
    return Camera(
        aspect=1.0,
        padded=False,
        aperture=rng.uniform(0.97, 1.0),
        offset=tuple(rng.normal(0, 0.004, 2)),
        notch=0.0 if rng.random() < 0.5 else None,
        notch_shape=1,
        tint=tint,
        contrast=_slopes(rng.uniform(1.1, 1.4), tint),
        vignette=rng.uniform(0.35, 0.8),
        slope=tuple(rng.normal(0, 0.06, 2)),
        haze=max(0.0, rng.normal(0.0, 0.03)),
        haze_colour=(0.6, 0.6, 0.45),
        rim=0.0,
        rim_angle=0.0,
        rim_width=0.1,
        rim_colour=(0.9, 0.9, 0.7),
        blur=rng.uniform(0.03, 0.05),
        aberration=0.0005,
        sharpen=rng.uniform(0.3, 0.6),
        noise=rng.uniform(0.002, 0.008),
        jpeg=0,
        surround=(0.0, 0.0, 0.0),
        dust=0,
    )


def _refuge(rng: np.random.Generator) -> Camera:
    """Draw a Zeiss Visucam 500: square crop of 45 degrees, reddish to brown, soft."""
    tint = _tint(rng.uniform(0.50, 0.72), rng.uniform(0.50, 0.62), rng.uniform(0.45, 0.70))
    return Camera(
        aspect=1.0,
        padded=False,
        aperture=rng.uniform(0.96, 1.04),
        offset=tuple(rng.normal(0, 0.01, 2)),
        notch=None,
        notch_shape=0,
        tint=tint,
        contrast=_slopes(rng.uniform(0.85, 1.05), tint),
        vignette=rng.uniform(0.1, 0.4),
        slope=tuple(rng.normal(0, 0.10, 2)),
        haze=max(0.0, rng.normal(0.02, 0.04)),
        haze_colour=(0.6, 0.45, 0.4),
        rim=rng.uniform(0.2, 0.5) if rng.random() < 0.25 else 0.0,
        rim_angle=rng.uniform(0, 2 * np.pi),
        rim_width=rng.uniform(0.05, 0.15),
        rim_colour=(0.8, 0.6, 0.55),
        blur=rng.uniform(0.05, 0.09),
        aberration=0.001,
        sharpen=0.0,
        noise=rng.uniform(0.004, 0.012),
        jpeg=90,
        surround=(0.02, 0.015, 0.015),
        dust=int(rng.poisson(0.5)),
    )
