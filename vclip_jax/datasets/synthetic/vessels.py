"""The retinal vessels: arcades, nasal vessels and their branches down to arterioles and venules.

Trunks are splines through randomly shifted control points of their anatomical course. Each order of
branches leaves its parent at an angle, bends towards its destination (the fovea inside the arcades,
the periphery outside) and ends before the foveal avascular zone. All branches of one order are
computed together as arrays.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, View, length, stream, trace

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
_CONTROLS = np.array(list(_TRUNKS.values()), np.float64).reshape(-1, 7, 2)
_WIDTHS = np.tile([1.0, 1.0, 0.72, 0.72, 0.66, 0.66, 0.4, 0.3, 0.3], 2)
_TRUNK_POINTS, _VEIN, _ARTERY = 33, 0.46, 0.32
_FINEST_SCALE = 7.5


def _spline_matrix(controls: int, points: int) -> np.ndarray:
    """Return the [points, controls] matrix of a uniform Catmull-Rom spline through the controls."""
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


# Whether each trunk is a vein: arteries come before veins.
_TRUNK_VEIN = np.repeat([False, True], len(_TRUNKS))
_PROGRESS = np.linspace(0, 1, 7)[:, None]
_ALONG = np.linspace(0, 1, _TRUNK_POINTS)
_RAMP = np.clip(np.linspace(-0.15, 3, _TRUNK_POINTS), 0, 1)

# Number of points of a path -> the points of each run into which the path is cut.
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
    """Points along the branch, [n, k, 2]."""
    width: np.ndarray
    """Calibre along the branch, [n, k]."""
    vein: np.ndarray
    """True for veins, [n] bool."""


def _normals(points: np.ndarray) -> np.ndarray:
    """Return unit normals of paths [n, k, 2]."""
    step = np.empty_like(points)
    step[:, :-1] = points[:, 1:] - points[:, :-1]
    step[:, -1] = step[:, -2]
    step /= length(step)[..., None]
    turned = step[..., ::-1]
    turned[..., 0] *= -1
    return turned


def _trunks(case: Case, eye: Eye, rng: np.random.Generator) -> Branches:
    n = len(_CONTROLS)
    arcade = np.clip(rng.normal(1.0, 0.13, (2, n, 1, 1)), 0.72, 1.3)  # how wide each arches
    control = _CONTROLS + rng.normal(0, 1, (2, *_CONTROLS.shape)) * (0.25 + 1.3 * _PROGRESS)
    control[..., 1:] *= 1 + (arcade - 1) * np.minimum(3 * _PROGRESS, 1)
    control[..., :1, :] += rng.normal(0, 0.35, (2, n, 1, 2))
    # The outer vessels leave the arcades about a disc diameter after the disc.
    control[:, 2:4, :2] = control[:, 0:2, :2]
    control[:, 2:4, 2] = 0.5 * (control[:, 2:4, 2] + control[:, 0:2, 2])
    points = _TRUNK_SPLINE @ control.reshape(2 * n, 7, 2)

    vein, stasis = _TRUNK_VEIN, _venous_stasis(case)
    tortuosity = np.where(vein, 0.22, 0.18) * rng.uniform(0.5, 1.6)
    tortuosity = tortuosity + vein * stasis
    wiggle = _WIGGLE_SPLINE @ rng.normal(0, 1, (13, 2 * n))
    points = points + _normals(points) * (wiggle.T * _RAMP * tortuosity[:, None])[..., None]

    narrowing = 1 - 0.45 * case.hypertensive.arteriolar_narrowing
    calibre = np.where(vein, _VEIN * (1 + 0.9 * stasis), _ARTERY * narrowing)
    calibre = calibre * _WIDTHS * rng.uniform(0.85, 1.15, 2 * n) * rng.uniform(0.88, 1.1)
    width = calibre[:, None] * (1 - 0.5 * _ALONG)
    beads = (
        1
        + case.retinopathy.venous_beading
        * 0.55
        * np.clip(np.sin(np.arange(_TRUNK_POINTS) * 1.7 + rng.uniform(0, 6, (2 * n, 1))), -0.7, 1)
        * _RAMP
        * vein[:, None]
    )
    return Branches(points + eye.disc, width * beads, vein)


def _venous_stasis(case: Case) -> np.ndarray | float:
    """Return the dilation and tortuosity of veins by an occlusion, per trunk [18] or for all."""
    occlusion = case.vein_occlusion
    if occlusion.kind == "none":
        return 0.0
    central = occlusion.kind == "central"
    hit = [float(central or name.startswith(occlusion.quadrant)) for name in _TRUNKS]
    return np.array(hit * 2) * 0.6 * occlusion.severity


def _offshoots(
    parent: Branches,
    each: int,
    points: int,
    reach: tuple[float, float],
    eye: Eye,
    rng: np.random.Generator,
    first: float = 0.12,
) -> Branches:
    """Grow `each` side branches of `points` points and `reach` degrees from each parent."""
    n, k, _ = parent.points.shape
    where = (np.arange(each) + rng.uniform(0.1, 0.9, (n, each))) / each
    where = (first + (0.97 - first) * where) * (k - 1)
    at = where.astype(int)
    row = np.arange(n)[:, None]
    start = parent.points[row, at].reshape(-1, 2)
    ahead = parent.points[row, at + 1].reshape(-1, 2) - start
    theta = np.arctan2(ahead[:, 1], ahead[:, 0])
    side = np.where(np.arange(each) % 2 == rng.integers(0, 2, (n, 1)), 1.0, -1.0).reshape(-1)
    begin = theta + side * rng.uniform(0.5, 1.25, n * each)
    # Vessels inside the arcades run to the fovea, those outside away from the disc.
    x, y = start.T
    inward = (np.cos(begin) * x + np.sin(begin) * y < 0) & (length(start) < 15)
    inward &= x < eye.disc[0] - 2
    goal = np.where(inward, np.arctan2(-y, -x), np.arctan2(y - eye.disc[1], x - eye.disc[0]))
    goal += rng.normal(0, 0.45, len(goal))
    turn = (goal - begin + np.pi) % (2 * np.pi) - np.pi
    s = np.linspace(0, 1, points)
    wiggle = np.cumsum(rng.normal(0, 0.24, (n * each, points)), 1)
    course = begin[:, None] + np.clip(turn, -1.1, 1.1)[:, None] * s * 0.75 + wiggle
    stride = rng.uniform(*reach, n * each)[:, None] / (points - 1)
    path = np.empty((n * each, points, 2))
    path[:, 0], path[:, 1:] = start, trace(start, course[:, 1:], stride)
    calibre = parent.width[row, at].reshape(-1) * rng.uniform(0.42, 0.80, n * each)
    width = calibre[:, None] * (1 - 0.45 * s)
    clear = np.minimum.accumulate(length(path), axis=1)
    width = width * np.clip((clear - AVASCULAR_RADIUS) / 1.5, 0, 1)
    return Branches(path, width, parent.vein.repeat(each))


def grow(case: Case, eye: Eye, pixels_per_degree: float) -> list[Branches]:
    """Return the vascular tree of a case, by order from the trunks on.

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
    """Return the coverage of arteries, veins and the arteries' central reflexes.

    Each is [height, width] float32. A vessel thinner than a pixel is drawn one pixel wide and
    fainter in proportion.
    """
    drawn = np.zeros((3, view.height, view.width), np.uint8)
    _ink(drawn[:2], tree, view)
    if _VEIN * view.scale > 3:
        trunks = tree[0]
        share = np.where(trunks.vein, 0.2, 0.33)[:, None]
        shine = Branches(trunks.points, trunks.width * share, np.zeros_like(trunks.vein))
        _ink(drawn[2:], [shine], view)
    arteries, veins, reflex = drawn.astype(np.float32) * np.float32(1 / 255)
    return arteries, veins, reflex


def _ink(planes: np.ndarray, tree: list[Branches], view: View) -> None:
    """Draw the arteries into the first and the veins into the second of `planes`, uint8."""
    runs: list[np.ndarray] = []
    codes = []
    for branches in tree:
        run, code = _cut(branches, view)
        runs.extend(run)
        codes.append(code)
    code = np.concatenate(codes)
    order = np.argsort(code, kind="stable")  # the wide ones last, over the thin ones
    bounds = np.flatnonzero(np.diff(code[order])) + 1
    for start, stop in pairwise(
        [0, *bounds.tolist(), len(order)]
    ):  # all runs alike take a single call
        alike = [runs[i] for i in order[start:stop].tolist()]
        vein, look = divmod(int(code[order[start]]), 4096)
        thick, level = divmod(look, 8)
        cv2.polylines(planes[vein], alike, False, 36 * level, thick, cv2.LINE_AA, 4)


def _cut(branches: Branches, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Cut branches into runs of one thickness and ink.

    Returns:
        The visible runs, [m, k, 2] int32 in 1/16 pixels, and codes of how to draw them, [m] int64:
        4096 vein + 8 thickness + level of ink (1 to 7).
    """
    cuts = _CUTS[branches.points.shape[1]]
    calibre = (branches.width[:, cuts].sum(-1) / cuts.shape[1]).reshape(-1)
    wide = calibre * view.scale
    thick = np.maximum(np.round(wide), 1)
    # Thin vessels also hold less blood in depth.
    level = np.minimum(np.round(wide / thick * np.minimum(7, 3.8 + 11 * calibre)), 7)
    pixels = np.round(view.pixels(branches.points) * 16).astype(np.int32)
    offset = np.abs(pixels[:, cuts[:, 0]] - 16 * view.centre) < 16 * 1.15 * view.radius
    drawn = (level > 0) & (offset[..., 0] & offset[..., 1]).reshape(-1)
    code = thick * 8 + level + 4096 * branches.vein.repeat(len(cuts))
    runs = pixels[:, cuts].reshape(-1, cuts.shape[1], 2)
    return runs[drawn], code[drawn].astype(np.int64)
