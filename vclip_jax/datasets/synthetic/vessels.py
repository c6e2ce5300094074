"""The retinal vessels: arcades, nasal vessels and their branches down to arterioles and venules.

Trunks are splines through control points jittered about their anatomical course; each order of
branches leaves its parent at an angle, bends towards where it has to go (the fovea inside the
arcades, the periphery outside) and ends before the foveal avascular zone. All branches of one order
are computed together as arrays.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, View, stream

AVASCULAR_RADIUS = 1.5
"""Degrees around the fovea without visible vessels (the avascular zone is 0.5 mm wide)."""

# Control points (x, y, x, y, ...) of the right eye's trunks in degrees from the disc's centre.
_TRUNKS = {
    "superotemporal": [0.5, 0.3, 0.2, -2.4, -2.8, -6.6, -9, -10, -18, -11, -27, -9.5, -37, -9],
    "inferotemporal": [0.5, 0.3, 0.2, 2.9, -2.8, 7.4, -9, 11.5, -18, 13, -27, 11.8, -37, 11],
    "superotemporal outer": [0.5, 0, 0.3, -3, -0.9, -7.5, -4.5, -13, -9, -18, -16, -22, -25, -25],
    "inferotemporal outer": [0.5, 0.2, 0.3, 3, -0.6, 8, -3.5, 14, -8, 19, -15, 23, -24, 26],
    "superonasal": [0.8, 0, 1.8, -2.4, 3.6, -5, 7, -9, 10, -13.5, 14, -18.5, 19, -25],
    "inferonasal": [0.8, 0.2, 1.9, 2.6, 3.8, 5.3, 7.5, 9, 11, 13.5, 15, 18.5, 20, 25],
    "nasal": [0.9, 0, 2, -0.2, 4, -0.6, 7, -0.8, 11, -1, 16, -0.5, 23, 0],
    "temporal upper": [-0.5, 0, -2.2, -0.8, -4, -1.8, -6, -2.6, -8.2, -2.9, -10, -2.7, -12, -2.1],
    "temporal lower": [-0.5, 0.2, -2.2, 1.2, -4, 2.4, -6, 3.6, -8.2, 4.2, -10.5, 4.2, -12.8, 3.7],
}
_WIDTHS = np.array([1.0, 1.0, 0.72, 0.72, 0.66, 0.66, 0.4, 0.3, 0.3])
_TRUNK_POINTS, _VEIN, _ARTERY = 33, 0.46, 0.32
_FINEST_SCALE = 7.5


def _spline_matrix(controls: int, points: int) -> np.ndarray:
    """[points, controls] matrix of a uniform Catmull-Rom spline through the controls."""
    t = np.linspace(0, controls - 1, points)
    i = np.minimum(t.astype(int), controls - 2)
    u = (t - i)[:, None]
    weights = np.concatenate(
        [
            -0.5 * u + u**2 - 0.5 * u**3,
            1 - 2.5 * u**2 + 1.5 * u**3,
            0.5 * u + 2 * u**2 - 1.5 * u**3,
            -0.5 * u**2 + 0.5 * u**3,
        ],
        axis=1,
    )
    matrix = np.zeros((points, controls))
    for k in range(4):
        np.add.at(matrix, (np.arange(points), np.clip(i + k - 1, 0, controls - 1)), weights[:, k])
    return matrix


# The points of each run into which a path of so many points is cut.
_CUTS = {
    33: np.arange(0, 32, 4)[:, None] + np.arange(5),
    13: np.arange(0, 12, 6)[:, None] + np.arange(7),
    7: np.arange(7)[None],
    5: np.arange(5)[None],
}
_TRUNK_SPLINE = _spline_matrix(7, _TRUNK_POINTS)
_WIGGLE_SPLINE = _spline_matrix(13, _TRUNK_POINTS)


@dataclass(frozen=True)
class Branches:
    """n branches of one order in retinal degrees."""

    points: np.ndarray
    """[n, k, 2]"""
    width: np.ndarray
    """Calibre along the branch, [n, k]."""
    vein: np.ndarray
    """[n] bool"""


def _normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of paths [n, k, 2]."""
    step = np.empty_like(points)
    step[:, :-1] = points[:, 1:] - points[:, :-1]
    step[:, -1] = step[:, -2]
    length = np.hypot(step[..., 0], step[..., 1])
    return np.stack([-step[..., 1], step[..., 0]], -1) / length[..., None]


def _trunks(case: Case, eye: Eye, rng: np.random.Generator) -> Branches:
    control = np.array(list(_TRUNKS.values()), np.float64).reshape(-1, 7, 2)
    n = len(control)
    arcade = np.clip(rng.normal(1.0, 0.13, (2, n, 1, 1)), 0.72, 1.3)  # how wide each arches
    control = np.stack([control, control])  # arteries, veins
    progress = np.linspace(0, 1, 7)[None, None, :, None]
    control = control + rng.normal(0, 1, control.shape) * (0.25 + 1.3 * progress)
    control[..., 1:] *= 1 + (arcade - 1) * np.clip(3 * progress, 0, 1)
    control[..., :1, :] += rng.normal(0, 0.35, (2, n, 1, 2))
    # The outer vessels part from the arcades a disc diameter or so after the disc.
    control[:, 2:4, :2] = control[:, 0:2, :2]
    control[:, 2:4, 2] = 0.5 * (control[:, 2:4, 2] + control[:, 0:2, 2])
    points = _TRUNK_SPLINE @ control.reshape(2 * n, 7, 2)

    vein = np.repeat([False, True], n)
    tortuosity = np.where(vein, 0.22, 0.18) * rng.uniform(0.5, 1.6)
    tortuosity = tortuosity + vein * _venous_stasis(case, n)
    wiggle = _WIGGLE_SPLINE @ rng.normal(0, 1, (13, 2 * n))
    ramp = np.clip(np.linspace(-0.15, 3, _TRUNK_POINTS), 0, 1)
    points = points + _normals(points) * (wiggle.T * ramp * tortuosity[:, None])[..., None]

    narrowing = 1 - 0.45 * case.hypertensive.arteriolar_narrowing
    calibre = np.where(vein, _VEIN * (1 + 0.9 * _venous_stasis(case, n)), _ARTERY * narrowing)
    calibre = (
        calibre * np.tile(_WIDTHS, 2) * rng.uniform(0.85, 1.15, 2 * n) * rng.uniform(0.88, 1.1)
    )
    width = calibre[:, None] * (1 - 0.5 * np.linspace(0, 1, _TRUNK_POINTS))
    beads = 1 + case.retinopathy.venous_beading * 0.55 * np.clip(
        np.sin(np.arange(_TRUNK_POINTS) * 1.7 + rng.uniform(0, 6, (2 * n, 1))), -0.7, 1
    ) * ramp * vein[:, None]  # fmt: skip
    return Branches(points + eye.disc, width * beads, vein)


def _venous_stasis(case: Case, n: int) -> np.ndarray:
    """How dilated and tortuous an occlusion makes the veins of each trunk, [2 n]."""
    occlusion = case.vein_occlusion
    names = list(_TRUNKS)
    if occlusion.kind == "central":
        hit = np.ones(n)
    elif occlusion.kind == "branch":
        hit = np.array([float(name.startswith(occlusion.quadrant)) for name in names])
    else:
        hit = np.zeros(n)
    return np.tile(hit, 2) * 0.6 * occlusion.severity


def _offshoots(
    parent: Branches,
    each: int,
    points: int,
    reach: tuple[float, float],
    eye: Eye,
    rng: np.random.Generator,
    first: float = 0.12,
) -> Branches:
    """`each` side branches for every branch of `parent`, of `points` points and `reach` degrees."""
    n, k, _ = parent.points.shape
    where = (np.arange(each) + rng.uniform(0.1, 0.9, (n, each))) / each
    where = (first + (0.97 - first) * where) * (k - 1)
    at = where.astype(int)
    row = np.arange(n)[:, None]
    start = parent.points[row, at].reshape(-1, 2)
    ahead = parent.points[row, at + 1].reshape(-1, 2) - start
    theta = np.arctan2(ahead[:, 1], ahead[:, 0])
    side = np.where(np.arange(each)[None] % 2 == rng.integers(0, 2, (n, 1)), 1.0, -1.0).reshape(-1)
    begin = theta + side * rng.uniform(0.5, 1.25, side.shape)
    # Vessels inside the arcades make for the fovea, those outside flow away from the disc.
    radius = np.hypot(start[:, 0], start[:, 1])
    heading = np.stack([np.cos(begin), np.sin(begin)], -1)
    inward = ((heading * -start).sum(-1) > 0) & (radius < 15) & (start[:, 0] < eye.disc[0] - 2)
    away = start - eye.disc
    goal = np.where(inward[:, None], -start, away)
    goal = np.arctan2(goal[:, 1], goal[:, 0]) + rng.normal(0, 0.45, len(goal))
    turn = (goal - begin + np.pi) % (2 * np.pi) - np.pi
    s = np.linspace(0, 1, points)
    wiggle = np.cumsum(rng.normal(0, 0.24, (n * each, points)), 1)
    course = begin[:, None] + np.clip(turn, -1.1, 1.1)[:, None] * s * 0.75 + wiggle
    length = rng.uniform(*reach, n * each)[:, None] / (points - 1)
    step = np.stack([np.cos(course), np.sin(course)], -1) * length[..., None]
    step[:, 0] = 0
    path = start[:, None] + np.cumsum(step, 1)
    calibre = parent.width[row, at].reshape(-1) * rng.uniform(0.42, 0.80, n * each)
    width = calibre[:, None] * (1 - 0.45 * s)
    clear = np.minimum.accumulate(np.hypot(path[..., 0], path[..., 1]), axis=1)
    width = width * np.clip((clear - AVASCULAR_RADIUS) / 1.5, 0, 1)
    return Branches(path, width, parent.vein.repeat(each))


def grow(case: Case, eye: Eye, pixels_per_degree: float) -> list[Branches]:
    """The vascular tree of a case, by order from the trunks on.

    The last order would be invisible on coarse canvases and is left out there; the others do not
    depend on the scale.
    """
    rng = stream(case, Stream.VESSELS)
    trunks = _trunks(case, eye, rng)
    major = _offshoots(trunks, 5, 13, (4, 15), eye, rng, first=0.2)
    minor = _offshoots(major, 2, 7, (1.5, 5.5), eye, rng)
    if pixels_per_degree < _FINEST_SCALE:
        return [trunks, major, minor]
    fine = _offshoots(minor, 2, 5, (0.7, 2.4), eye, rng)
    return [trunks, major, minor, fine]


def draw(tree: list[Branches], view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage of arteries, veins and the arteries' central reflexes, each [height, width] float32.

    A vessel thinner than a pixel is drawn one pixel wide and fainter in proportion.
    """
    runs: dict[tuple[bool, int], list[np.ndarray]] = {}
    for branches in tree:
        pixels = np.round(view.pixels(branches.points) * 16).astype(np.int32)
        _collect(runs, pixels, branches.width, branches.vein, view)
    reflexes: dict[tuple[bool, int], list[np.ndarray]] = {}
    if _VEIN * view.scale > 3:
        pixels = np.round(view.pixels(tree[0].points) * 16).astype(np.int32)
        share = np.where(tree[0].vein, 0.2, 0.33)[:, None]
        _collect(reflexes, pixels, tree[0].width * share, np.zeros_like(tree[0].vein), view)
    return _ink(runs, False, view), _ink(runs, True, view), _ink(reflexes, False, view)


def _collect(
    runs: dict[tuple[bool, int], list[np.ndarray]],
    pixels: np.ndarray,
    width: np.ndarray,
    vein: np.ndarray,
    view: View,
) -> None:
    """Sort paths [n, k, 2] (1/16 pixels) of calibre [n, k] (degrees) by kind, thickness and ink.

    A path is cut into runs of one thickness, so that all runs alike take a single call to draw.
    """
    cuts = _CUTS[pixels.shape[1]]
    pieces = pixels[:, cuts].reshape(-1, cuts.shape[1], 2)
    calibre = width[:, cuts].mean(-1).reshape(-1)
    wide = calibre * view.scale
    thick = np.maximum(np.round(wide), 1)
    # Thin vessels hold less blood in depth, too.
    level = np.minimum(np.round(wide / thick * np.minimum(7, 3.2 + 11 * calibre)), 7)
    offset = np.abs(pieces[:, 0] - (16 * view.centre)).max(-1)
    drawn = (level > 0) & (offset < 16 * 1.15 * view.radius)
    code = (thick * 8 + level + 4096 * vein.repeat(len(cuts))).astype(np.int64)
    for c in np.unique(code[drawn]):
        found = runs.setdefault((bool(c >= 4096), int(c) % 4096), [])
        found.extend(pieces[drawn & (code == c)])


def _ink(runs: dict[tuple[bool, int], list[np.ndarray]], vein: bool, view: View) -> np.ndarray:
    drawn = np.zeros((view.height, view.width), np.uint8)
    for kind, code in sorted(runs):  # the wide ones last, over the thin ones
        if kind == vein:
            ink = (code % 8) * 36
            cv2.polylines(drawn, runs[kind, code], False, ink, code // 8, cv2.LINE_AA, 4)
    return drawn.astype(np.float32) * np.float32(1 / 255)
