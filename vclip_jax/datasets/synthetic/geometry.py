"""The geometry of a synthetic eye in degrees, and the map from degrees to pixels.

Retinal coordinates are degrees of visual angle with the fovea at the origin, as in a photograph of
a right eye: x grows towards the nose (the disc is at about +15.5) and y grows downwards. A left eye
is the same eye mirrored by `View`. One degree is about 0.29 mm on the retina (Drasdo and Fowler, Br
J Ophthalmol 58, 1974).
"""

import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import cv2
import numpy as np

from vclip_jax.datasets.synthetic import chance
from vclip_jax.datasets.synthetic.case import Case


class Stream(IntEnum):
    """Independent sources of random numbers: a change in one part does not affect the others."""

    EYE = 1
    CAMERA = 2
    VESSELS = 3
    BACKGROUND = 4
    DISC = 5
    RETINOPATHY = 6
    MACULA = 7
    OCCLUSION = 8
    CHOROID = 9
    NERVE = 10
    SURFACE = 11
    OPTICS = 12
    SENSOR = 13
    PRESSURE = 14
    MEDIA = 15
    MACULAR_SURFACE = 16
    PATCHES = 17
    NICKING = 18
    SILK = 19


def stream(case: Case, source: Stream) -> np.random.Generator:
    """Return the generator of one part of a case: a function of (domain, seed, index, source)."""
    domain = zlib.crc32(case.domain.encode())  # domains share no eyes
    return chance.generator(case.seed, case.index, source, domain)


def clamp(value: float, low: float, high: float) -> float:
    """Apply `np.clip` to one number, in a tenth of its time."""
    return min(max(value, low), high)


@dataclass(frozen=True)
class Eye:
    """The layout of one eye in retinal degrees; arrays are float64."""

    disc: np.ndarray
    """Centre of the optic disc, [2]."""
    disc_radii: np.ndarray
    """Horizontal and vertical semi-axes of the disc, [2]."""
    disc_tilt: float
    """Rotation of the disc's axes in radians."""
    gaze: np.ndarray
    """The retinal point at the centre of the aperture, [2]."""
    roll: float
    """Rotation of head and camera in radians."""

    @property
    def disc_diameter(self) -> float:
        """The disc diameter in degrees, the clinical yardstick of the fundus."""
        return float(2 * self.disc_radii[1])


def sample_eye(case: Case) -> Eye:
    """Lay out the eye of `case`: disc, fovea, gaze and head tilt."""
    rng = stream(case, Stream.EYE)
    disc = np.array([rng.normal(15.5, 0.7), rng.normal(-1.6, 0.8)])
    vertical = clamp(rng.normal(3.05, 0.32), 2.3, 4.1)
    if not case.glaucoma.present:  # a large physiological cup lies in a large disc
        vertical = clamp(vertical + 2.2 * max(case.cup_to_disc - 0.45, 0), 2.3, 4.2)
    tilt = case.myopia.tilt
    ratio = clamp(rng.normal(0.92, 0.045), 0.80, 1.02) * (1 - 0.38 * tilt)
    angle = rng.normal(0, 0.12) + tilt * rng.uniform(-0.5, 0.5)
    jitter = rng.normal(0, 1, 2)
    target = {"macula": (2.5, -0.3), "between": (7.5, -0.8), "disc": (15.0, -1.5)}[case.centred_on]
    slack = np.array([1.8, 1.4]) * min(1.0, case.field_of_view / 45)
    return Eye(
        disc=disc,
        disc_radii=np.array([vertical * ratio, vertical]),
        disc_tilt=float(angle),
        gaze=np.asarray(target) + slack * np.clip(jitter, -1.6, 1.6),
        roll=clamp(rng.normal(0, 0.06), -0.16, 0.16),
    )


@dataclass(frozen=True)
class View:
    """The map from retinal degrees to the pixels of one canvas.

    `height` and `width` are those of the canvas, `centre` is the aperture's centre in pixels (x,
    y), `radius` its radius in pixels, `box` the frame (left, top, right, bottom) within the canvas,
    outside of which nothing was exposed, and `degrees` the field of view.
    """

    height: int
    width: int
    centre: np.ndarray
    radius: float
    box: tuple[float, float, float, float]
    gaze: np.ndarray
    roll: float
    mirror: bool
    degrees: float

    @property
    def scale(self) -> float:
        """Pixels per degree."""
        return 2 * self.radius / self.degrees

    @cached_property
    def linear(self) -> np.ndarray:
        """The [2, 2] part of the map: pixels = centre + linear @ (point - gaze)."""
        c, s = self.scale * np.cos(self.roll), self.scale * np.sin(self.roll)
        flip = -1.0 if self.mirror else 1.0
        return np.array([[flip * c, -s], [flip * s, c]])

    @cached_property
    def affine(self) -> np.ndarray:
        """The whole map to canvas pixels as [2, 3]: pixels = affine @ (x, y, 1)."""
        shift = self.centre - self.linear @ self.gaze - 0.5
        return np.concatenate([self.linear, shift[:, None]], 1)

    @cached_property
    def inverse(self) -> np.ndarray:
        """The inverse of `linear`, [2, 2]."""
        (a, b), (c, d) = self.linear.tolist()
        return np.array([[d, -b], [-c, a]]) / (a * d - b * c)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Map retinal degrees [..., 2] to canvas pixels [..., 2] (x, y; pixel centres at .0)."""
        if not points.size:
            return np.zeros(points.shape)
        # One call; NumPy's product would call BLAS for every [k, 2] block.
        flat = np.ascontiguousarray(points, np.float64).reshape(1, -1, 2)
        return cv2.transform(flat, self.affine).reshape(points.shape)

    def grid(self, height: int, width: int) -> np.ndarray:
        """Return retinal degrees [2, height, width] float32 at a grid's cells over the canvas."""
        x = (np.arange(width) + 0.5) * (self.width / width) - self.centre[0]
        y = (np.arange(height) + 0.5) * (self.height / height) - self.centre[1]
        cells = np.empty((2, height, width), np.float32)
        for cell, (a, b), gaze in zip(cells, self.inverse, self.gaze, strict=True):
            cell[:] = a * x + (b * y)[:, None] + gaze
        return cells

    def visible(self, points: np.ndarray, margin: float = 1.0) -> np.ndarray:
        """Return which points [..., 2] are in the photograph, `margin` degrees from its border."""
        place = self.pixels(points) + 0.5
        x, y = place[..., 0], place[..., 1]
        slack = margin * self.scale
        left, top, right, bottom = self.box
        inside = length(place - self.centre) < self.radius - slack
        inside &= (x > left + slack) & (x < right - slack)
        return inside & (y > top + slack) & (y < bottom - slack)


def heading(angle: np.ndarray) -> np.ndarray:
    """Return unit vectors [..., 2] in the directions `angle` [...] (radians)."""
    run = np.empty((*angle.shape, 2))
    np.cos(angle, out=run[..., 0])
    np.sin(angle, out=run[..., 1])
    return run


def length(vectors: np.ndarray) -> np.ndarray:
    """Return the Euclidean lengths [...] of vectors [..., 2]."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def trace(start: np.ndarray, course: np.ndarray, stride: np.ndarray | float) -> np.ndarray:
    """Return paths [n, k, 2] from `start` [n, 2] in k steps in the directions `course` [n, k].

    `stride`, the length of the steps, is [n, 1] or one number.
    """
    path = heading(course)
    path *= stride if isinstance(stride, float) else stride[..., None]
    # NumPy sums complex numbers along the path much faster than pairs.
    pairs = path.view(np.complex128)
    np.cumsum(pairs, 1, out=pairs)
    path += start[:, None]
    return path


def nerve_fibre_direction(points: np.ndarray, eye: Eye) -> np.ndarray:
    """Return the direction of the nerve fibres in radians at retinal points [n, 2].

    Fibres leave the disc radially; on the temporal side they arch around the fovea (the pattern of
    Jansonius et al., Vision Research 49, 2009, here blended from the two limits).
    """
    radial = points - eye.disc
    radial = radial / (length(radial)[..., None] + 1e-9)
    distance = length(points)[..., None]
    around = np.stack([-points[..., 1], points[..., 0]], -1) / (distance + 1e-9)
    around = around * np.where((around * radial).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    temporal = np.clip((eye.disc[0] - points[..., :1]) / 12, 0, 1)
    run = radial * (1 - temporal) + around * temporal
    return np.arctan2(run[..., 1], run[..., 0])


def quadrant_angle(quadrant: str) -> float:
    """Return the direction of a quadrant's middle in radians, seen from the disc."""
    vertical = -1.0 if quadrant.startswith("supero") else 1.0
    temporal = quadrant.endswith("temporal")
    return float(np.arctan2(vertical * (0.75 if temporal else 1.0), -1.0 if temporal else 1.0))


def scatter(
    rng: np.random.Generator,
    n: int,
    view: View,
    eye: Eye,
    *,
    centre: np.ndarray | None = None,
    within: tuple[float, float] = (0.0, 90.0),
    sector: float | None = None,
    margin: float = 1.5,
    off_disc: float = 1.15,
) -> np.ndarray:
    """Draw n visible retinal points [n, 2], off the disc, uniform over a ring around `centre`.

    `within` bounds the distance from `centre` (the fovea by default) in degrees, and `sector` keeps
    directions (from the disc) within about 50 degrees of that angle. If too few visible points
    satisfy the ring or the sector, the closest ones are taken, so that a sign is always visible.
    """
    if n == 0:
        return np.zeros((0, 2))
    centre = np.zeros(2) if centre is None else centre
    half = view.degrees / 2
    many = 6 * n + 100
    if within[1] < half:
        radius = np.sqrt(rng.uniform(within[0] ** 2, within[1] ** 2, many))
        turn = rng.uniform(0, 2 * np.pi, many)
        points = centre + heading(turn) * radius[:, None]
        everywhere = view.gaze + half * rng.uniform(-1, 1, (many, 2))
        points = np.concatenate([points, everywhere])
    else:
        points = view.gaze + half * rng.uniform(-1, 1, (2 * many, 2))
    from_disc = points - eye.disc
    distance = length(points - centre)
    fault = np.maximum(within[0] - distance, 0) + np.maximum(distance - within[1], 0)
    if sector is not None:
        turn = np.arctan2(from_disc[:, 1], from_disc[:, 0]) - sector
        away = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
        fault += 10 * np.maximum(away - 0.85 * rng.beta(1.2, 1.2, len(away)), 0)
    fault += 1e3 * (length(from_disc / eye.disc_radii) < off_disc)
    fault += 1e6 * ~view.visible(points, margin)
    best = np.flatnonzero(fault == 0)
    if len(best) < n:
        best = np.argsort(fault, kind="stable")
    return points[best[:n]]
