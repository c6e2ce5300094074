"""The canvas of log reflectances, and the mark that most lesions consist of: a soft blot.

The fundus is painted in logarithms relative to a reference fundus (log 0 in each of R, G, B): thus
absorption by blood or pigment adds to any background, and a camera is an affine map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.geometry import View, heading

Tone = Sequence[float] | np.ndarray
"""Log reflectance in R, G, B relative to the reference fundus."""


@dataclass(frozen=True)
class Spots:
    """n irregular soft-edged ellipses in retinal degrees."""

    centre: np.ndarray
    """Centres, [n, 2]."""
    axes: np.ndarray
    """Semi-axes, [n, 2]."""
    angle: np.ndarray
    """Direction of the first axis in radians, [n]."""
    strength: np.ndarray
    """Opacity 0 to 1, [n]."""
    wobble: float
    """Deviation of the outline from the ellipse, as a fraction of the radius."""
    soft: float
    """Width of the edge as a fraction of the radius: 0 is sharp, 2 fades from the centre on."""
    phase: np.ndarray
    """Phases of the outline's harmonics, [n, 3]."""


def spots(
    rng: np.random.Generator,
    centre: np.ndarray,
    radius: np.ndarray | float,
    *,
    stretch: np.ndarray | float = 1.0,
    angle: np.ndarray | None = None,
    strength: np.ndarray | float = 1.0,
    wobble: float = 0.15,
    soft: float = 0.3,
) -> Spots:
    """Make spots at `centre` [n, 2] of a mean `radius` and axis ratio `stretch` ([n] or one)."""
    centre = np.asarray(centre, np.float64).reshape(-1, 2)
    n = len(centre)
    drawn = rng.uniform(0, 2 * np.pi, (n, 4))
    root = np.sqrt(stretch)
    axes = np.empty((n, 2))
    axes[:, 0], axes[:, 1] = radius * root, radius / root
    return Spots(
        centre=centre,
        axes=axes,
        angle=drawn[:, 3] if angle is None else angle,
        strength=np.full(n, strength, np.float64),
        wobble=wobble,
        soft=soft,
        phase=drawn[:, :3],
    )


def join(marks: Sequence[Spots]) -> Spots:
    """Join several sets of spots that share wobble and softness (the first set's are taken)."""
    names = ("centre", "axes", "angle", "strength", "phase")
    joined = {name: np.concatenate([getattr(m, name) for m in marks]) for name in names}
    return Spots(wobble=marks[0].wobble, soft=marks[0].soft, **joined)


def stamp(mask: np.ndarray, marks: Spots, view: View) -> None:
    """Draw the spots into the coverage `mask` [height, width] float32, keeping the larger value."""
    if not len(marks.centre):
        return
    centre = view.pixels(marks.centre)
    axes = marks.axes * view.scale
    # A mark smaller than a pixel is drawn at the least radius, weaker in proportion.
    least = np.maximum(axes, 0.6)
    largest = np.maximum(least[:, 0], least[:, 1])
    reach = largest * (1 + marks.wobble + 0.5 * marks.soft) + 1
    order = np.argsort(reach, kind="stable")
    reach = reach[order]
    corner = np.floor(centre)
    # One row a spot: subpixel rest, axes, direction, strength, phases.
    table = np.empty((len(order), 10), np.float32)
    table[:, :2] = centre - corner
    table[:, 2:4] = least
    table[:, 4:6] = heading(marks.angle) @ view.linear.T / view.scale
    table[:, 6] = marks.strength * (axes / least).prod(1)
    table[:, 7:] = marks.phase
    table, corner = table[order], corner[order].astype(int)
    steps = np.floor(2 * np.log2(reach))
    bounds = [0, *(np.flatnonzero(steps[1:] > steps[:-1]) + 1).tolist(), len(order)]
    for start, stop in pairwise(bounds):
        group = slice(start, stop)
        _stamp_group(mask, corner[group], table[group], marks, math.ceil(reach[stop - 1]))


def _stamp_group(
    mask: np.ndarray, corner: np.ndarray, table: np.ndarray, marks: Spots, reach: int
) -> None:
    """Draw spots of similar size, each in its own (2 reach + 1) squared window."""
    height, width = mask.shape
    step = np.arange(-reach, reach + 1)
    x, y = corner[:, :1] + step, corner[:, 1:] + step
    restx, resty, a, b, ux, uy, strength, *phase = table.T[:, :, None, None]
    step = step.astype(np.float32)
    dx, dy = step - restx, step[:, None] - resty
    along, across = dx * (ux / a) + dy * (uy / a), dx * (-uy / b) + dy * (ux / b)
    distance = np.sqrt(along * along + across * across)
    distance += np.float32(1e-6)
    if marks.wobble > 0 and table[:, 2:4].max() > 2:  # else too small for a shape
        turn = np.arctan2(across, along)
        outline = np.cos(2 * turn + phase[0]) + 0.5 * np.cos(3 * turn + phase[1])
        outline += 0.35 * np.cos(5 * turn + phase[2])
        distance /= 1 + np.float32(0.7 * marks.wobble) * outline
    small = np.minimum(a, b)
    cover = (1 - distance) * (small / np.maximum(np.float32(marks.soft) * small, 1)) + 0.5
    shown = cover > 0
    shown &= ((x >= 0) & (x < width))[:, None]
    shown &= ((y >= 0) & (y < height))[:, :, None]
    np.minimum(cover, 1, out=cover)
    if marks.soft > 0.8:
        cover *= cover * (3 - 2 * cover)
    cover *= strength
    place = (y[:, :, None] * width + x[:, None])[shown]
    np.maximum.at(mask.reshape(-1), place, cover[shown])


class Canvas:
    """Log reflectances [3, height, width] (float32) of a view, and masks of the painted kinds."""

    def __init__(self, view: View):
        self.view = view
        self.log = np.zeros((3, view.height, view.width), np.float32)
        self.masks: dict[str, np.ndarray] = {}

    def blank(self) -> np.ndarray:
        """Return an empty coverage mask [height, width] float32."""
        return np.zeros(self.log.shape[1:], np.float32)

    def note(self, kind: str, mask: np.ndarray) -> None:
        """Store `mask` as (part of) the coverage of `kind`."""
        known = self.masks.get(kind)
        self.masks[kind] = mask if known is None else np.maximum(known, mask)

    def absorb(self, kind: str | None, mask: np.ndarray, tone: Tone) -> None:
        """Add `tone` (negative: darker) in proportion to the coverage `mask`."""
        for plane, value in zip(self.log, tone, strict=True):
            cv2.scaleAdd(mask, float(value), plane, plane)
        if kind:
            self.note(kind, mask)

    def cover(self, kind: str | None, mask: np.ndarray, tone: Tone) -> None:
        """Replace the content by `tone` in proportion to the coverage `mask`."""
        left, top, width, height = cv2.boundingRect((mask != 0).view(np.uint8))
        window = np.s_[top : top + height, left : left + width]
        part = mask[window]
        for plane, value in zip(self.log[:, *window], tone, strict=True):
            plane += part * (np.float32(value) - plane)
        if kind:
            self.note(kind, mask)

    def draw(self, marks: Spots) -> np.ndarray:
        """Return the coverage mask of the spots."""
        mask = self.blank()
        stamp(mask, marks, self.view)
        return mask


def noise(
    rng: np.random.Generator, cells: int, shape: tuple[int, int], smooth: bool = True
) -> np.ndarray:
    """Return smooth unit-variance noise [height, width] float32, `cells` cells along the frame."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    kind = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=kind)
