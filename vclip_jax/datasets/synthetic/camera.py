"""Fundus cameras: the effect of a camera, its settings and its files on the picture of any eye.

The modules `makes` and `far_makes` draw the cameras of the domains.
"""

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """The illumination of the field, in log light. Lengths are radii of the aperture."""

    vignette: float = 0.4
    """Loss of light at the aperture's edge."""
    steepness: float = 3.0
    """Power of the distance from the beam's centre with which the loss grows."""
    centre: tuple[float, float] = (0.0, 0.0)
    """Place of the beam's centre, (right, down)."""
    slope: tuple[float, float] = (0.0, 0.0)
    """Difference of light from the aperture's centre to its edge, (right, down)."""
    ring: float = 0.0
    """Height of a ring of light around the beam's centre; a negative ring is dark."""
    ring_radius: float = 0.6
    uneven: float = 0.05
    """Standard deviation of a smooth unevenness that all channels share."""
    coloured: float = 0.0
    """Standard deviation of a smooth unevenness of each channel alone."""
    cells: int = 3
    """Number of cells of the unevenness along the picture."""
    hue: Colour = (0.9, 1.0, 1.1)
    """Share of the common unevenness in each channel."""


@dataclass(frozen=True)
class Flare:
    """A reflection, a ghost or a shadow over the fundus: a soft spot, or a soft ring.

    Lengths are radii of the aperture.
    """

    centre: tuple[float, float]
    """Place from the aperture's centre, (right, down)."""
    radius: float
    stretch: float
    """Width over height."""
    hollow: bool
    """True for a ring, False for a spot."""
    colour: Colour
    """Display red, green, blue that the brightest point adds; a negative colour is a shadow."""


@dataclass(frozen=True)
class Dirt:
    """Dirt on the optics, out of focus. Sizes are radii of the aperture."""

    specks: int = 0
    """Number of small discs."""
    rings: int = 0
    """Number of rings, as drops and damaged coatings make them."""
    hairs: int = 0
    size: float = 0.015
    """Median radius of the specks."""
    bright: float = 0.2
    """Share of specks and rings that are brighter than the retina."""


@dataclass(frozen=True)
class File:
    """The file that the picture was stored in."""

    pixels: float = 1.0
    """Side of the stored picture relative to ours; a smaller picture is scaled up."""
    jpeg: int = 0
    """JPEG quality, 0 for a lossless file."""
    subsampled: bool = False
    """True if the JPEG stores colours at half the resolution (4:2:0)."""


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
    black: Colour
    """Display level that becomes black, for each channel; the sensor cuts off lower levels."""
    shoulder: float
    """Display level from which highlights are compressed, below 1."""
    light: Light
    haze: float
    """Opacity of the evenly scattered light of the media, 0 to 1."""
    haze_colour: Colour
    rim: float
    """Strength of the stray light at the rim, 0 to 1."""
    rim_angle: float
    """Direction of the strongest stray light in radians."""
    rim_spread: float
    """0 for a crescent at `rim_angle`, 1 for stray light all around."""
    rim_width: float
    """Depth of the stray light as a fraction of the radius."""
    rim_colour: Colour
    flares: tuple[Flare, ...]
    blur: float
    """Standard deviation of the point spread in degrees."""
    aberration: float
    """Relative difference in magnification of red and blue."""
    sharpen: float
    """Strength of unsharp masking by the camera's firmware."""
    halo: float
    """Standard deviation of the unsharp mask; a wide mask leaves halos."""
    noise: float
    """Standard deviation of the sensor's noise at 512 pixels in display units (0 to 1)."""
    blotches: float
    """Standard deviation of coarse noise of colour, in display units."""
    surround: Colour
    """Display colour outside of the aperture."""
    dirt: Dirt
    file: File
    mix: tuple[Colour, Colour, Colour] | None = None
    """Rows of a matrix for the display colours, None for the colours as they are."""
    interlace: float = 0.0
    """Shift of every other row of pixels, as of a moving video frame."""


def slopes(contrast: float, tint: Colour) -> Colour:
    """Return the contrast of each channel: scattered light in green or blue lowers it."""
    green = min(max((tint[1] / tint[0] - 0.40) / 0.40, 0), 1)
    blue = min(max((tint[2] / tint[1] - 0.25) / 0.75, 0), 1)
    return contrast, contrast * (1 - 0.30 * green), contrast * (1 - 0.5 * blue)


def tint(red: float, green_to_red: float, blue_to_green: float) -> Colour:
    """Return the colour of the reference fundus for these ratios of its channels."""
    return red, red * green_to_red, red * green_to_red * blue_to_green
