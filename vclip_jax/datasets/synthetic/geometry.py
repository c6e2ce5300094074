"""Where things lie in a synthetic eye, in degrees, and how degrees become pixels.

Retinal coordinates are degrees of visual angle with the fovea at the origin, as a photograph of a
right eye shows them: x grows towards the nose (the disc is at about +15.5) and y grows downwards. A
left eye is the same eye mirrored by `View`. One degree is about 0.29 mm on the retina (Drasdo and
Fowler, Br J Ophthalmol 58, 1974).
"""

import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from vclip_jax.datasets.synthetic.case import Case


class Stream(IntEnum):
    """Independent sources of random numbers: a change in one part leaves the others alone."""

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


def stream(case: Case, source: Stream) -> np.random.Generator:
    """The generator of one part of one case: a function of (domain, seed, index, source) alone."""
    domain = zlib.crc32(case.domain.encode())  # domains share no eyes
    entropy = np.random.SeedSequence([case.seed, case.index, int(source), domain])
    return np.random.Generator(np.random.PCG64(entropy))


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
    vertical = np.clip(rng.normal(3.05, 0.22), 2.5, 3.7)
    tilt = case.myopia.tilt
    ratio = np.clip(rng.normal(0.92, 0.03), 0.84, 1.0) * (1 - 0.38 * tilt)
    angle = rng.normal(0, 0.12) + tilt * rng.uniform(-0.5, 0.5)
    jitter = rng.normal(0, 1, 2)
    target = {"macula": (2.5, -0.3), "between": (7.5, -0.8), "disc": (15.0, -1.5)}[case.centred_on]
    slack = np.array([1.8, 1.4]) * min(1.0, case.field_of_view / 45)
    return Eye(
        disc=disc,
        disc_radii=np.array([vertical * ratio, vertical]),
        disc_tilt=float(angle),
        gaze=np.asarray(target) + slack * np.clip(jitter, -1.6, 1.6),
        roll=float(np.clip(rng.normal(0, 0.06), -0.16, 0.16)),
    )


@dataclass(frozen=True)
class View:
    """The map from retinal degrees to the pixels of one canvas.

    `height` and `width` are the canvas's, `centre` is the aperture's centre in pixels (x, y),
    `radius` its radius in pixels, `box` the frame's (left, top, right, bottom) within the canvas,
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
        """Pixels in a degree."""
        return 2 * self.radius / self.degrees

    @cached_property
    def linear(self) -> np.ndarray:
        """The [2, 2] part of the map: pixels = centre + linear @ (point - gaze)."""
        c, s = np.cos(self.roll), np.sin(self.roll)
        flip = np.diag([-1.0 if self.mirror else 1.0, 1.0])
        return self.scale * np.array([[c, -s], [s, c]]) @ flip

    @cached_property
    def inverse(self) -> np.ndarray:
        """The inverse of `linear`, [2, 2]."""
        (a, b), (c, d) = self.linear
        return np.array([[d, -b], [-c, a]]) / (a * d - b * c)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Retinal degrees [..., 2] to canvas pixels [..., 2] (x, y; pixel centres at .0)."""
        return self.centre + (points - self.gaze) @ self.linear.T - 0.5

    def grid(self, height: int, width: int) -> np.ndarray:
        """Retinal degrees [2, height, width] float32 at the cells of a grid over the canvas."""
        x = (np.arange(width) + 0.5) * (self.width / width) - self.centre[0]
        y = (np.arange(height) + 0.5) * (self.height / height) - self.centre[1]
        inverse = self.inverse
        gx = inverse[0, 0] * x[None] + inverse[0, 1] * y[:, None] + self.gaze[0]
        gy = inverse[1, 0] * x[None] + inverse[1, 1] * y[:, None] + self.gaze[1]
        return np.stack([gx, gy]).astype(np.float32)

    def visible(self, points: np.ndarray, margin: float = 1.0) -> np.ndarray:
        """Which of the points [..., 2] lie in the photograph, `margin` degrees from its border."""
        offset = self.pixels(points) + 0.5
        slack = margin * self.scale
        left, top, right, bottom = self.box
        inside = np.hypot(*np.moveaxis(offset - self.centre, -1, 0)) < self.radius - slack
        inside &= (offset[..., 0] > left + slack) & (offset[..., 0] < right - slack)
        return inside & (offset[..., 1] > top + slack) & (offset[..., 1] < bottom - slack)


def nerve_fibre_direction(points: np.ndarray, eye: Eye) -> np.ndarray:
    """The run of the nerve fibres in radians at retinal points [n, 2].

    Fibres leave the disc radially; on the temporal side they arch around the fovea (the pattern of
    Jansonius et al., Vision Research 49, 2009, here blended from the two limits).
    """
    radial = points - eye.disc
    radial = radial / (np.linalg.norm(radial, axis=-1, keepdims=True) + 1e-9)
    distance = np.linalg.norm(points, axis=-1, keepdims=True)
    around = np.stack([-points[..., 1], points[..., 0]], -1) / (distance + 1e-9)
    around = around * np.where((around * radial).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    temporal = np.clip((eye.disc[0] - points[..., :1]) / 12, 0, 1)
    run = radial * (1 - temporal) + around * temporal
    return np.arctan2(run[..., 1], run[..., 0])


def quadrant_angle(quadrant: str) -> float:
    """The direction of a quadrant's middle in radians, seen from the disc."""
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
    """n visible retinal points [n, 2], off the disc, uniform over a ring around `centre`.

    `within` bounds the distance from `centre` (the fovea by default) in degrees, and `sector` keeps
    directions (from the disc) within about 50 degrees of that angle. Where too few visible points
    satisfy the ring or the sector, those closest to it are taken, so that a sign always shows.
    """
    if n == 0:
        return np.zeros((0, 2))
    centre = np.zeros(2) if centre is None else centre
    half = view.degrees / 2
    many = 6 * n + 100
    if within[1] < half:
        radius = np.sqrt(rng.uniform(within[0] ** 2, within[1] ** 2, many))
        turn = rng.uniform(0, 2 * np.pi, many)
        points = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
        everywhere = view.gaze + half * rng.uniform(-1, 1, (many, 2))
        points = np.concatenate([points, everywhere])
    else:
        points = view.gaze + half * rng.uniform(-1, 1, (2 * many, 2))
    from_disc = points - eye.disc
    distance = np.linalg.norm(points - centre, axis=1)
    fault = np.maximum(within[0] - distance, 0) + np.maximum(distance - within[1], 0)
    if sector is not None:
        turn = np.arctan2(from_disc[:, 1], from_disc[:, 0]) - sector
        away = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
        fault += 10 * np.maximum(away - 0.85 * rng.beta(1.2, 1.2, len(away)), 0)
    fault += 1e3 * (np.hypot(*(from_disc / eye.disc_radii).T) < off_disc)
    fault += 1e6 * ~view.visible(points, margin)
    return points[np.argsort(fault, kind="stable")[:n]]
