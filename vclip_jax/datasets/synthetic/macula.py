"""Macular degeneration, macular hole and epiretinal membrane."""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Amd, Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, heading, length, stream, trace
from vclip_jax.datasets.synthetic.marks import Canvas, noise, spots

_DRUSEN = (0.22, 0.50, 0.34)
_ATROPHY = (0.20, 0.38, 0.32)
_SUBRETINAL = (-0.42, -1.0, -0.60)
_MEMBRANE = (0.10, 0.45, 0.45)
_PIGMENT = (-0.55, -0.65, -0.55)
_BARE_VESSELS = (-0.10, -0.42, -0.40)


def paint_deep(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint drusen, geographic atrophy, subretinal blood and membrane, all under the vessels."""
    amd = case.amd
    if amd == Amd():
        return
    rng = stream(case, Stream.MACULA)
    sizes = [
        (amd.drusen_small, 0.06, 0.108, 3.6, 0.25),
        (amd.drusen_medium, 0.16, 0.25, 2.8, 0.5),
        (amd.drusen_large, 0.28, 0.62, 2.2, 0.9),
    ]
    for n, low, high, spread, soft in sizes:  # < 63, < 125, >= 125 micrometres across
        if n:
            place = rng.normal(0, spread, (n, 2))
            drusen = spots(
                rng,
                place,
                rng.uniform(low, high, n),
                soft=soft,
                wobble=0.15,
                strength=rng.uniform(0.5, 0.95, n),
            )
            canvas.cover("drusen", canvas.draw(drusen), _DRUSEN)
    dd = eye.disc_diameter
    if amd.stage in ("intermediate", "geographic_atrophy", "neovascular"):
        n = int(rng.poisson(4))
        clumps = spots(
            rng, rng.normal(0, 2.2, (n, 2)), rng.uniform(0.1, 0.35, n), wobble=0.5, strength=0.5
        )
        canvas.absorb(None, canvas.draw(clumps), _PIGMENT)
    if amd.atrophy_radius:
        _atrophy(canvas, rng.normal(0, 0.5, 2), amd.atrophy_radius * dd, rng)
    if amd.membrane:
        radius = amd.membrane * dd
        centre = rng.normal(0, 0.6, (1, 2))
        lobes = np.concatenate([centre, centre + rng.normal(0, 0.5 * radius, (4, 2))])
        size = radius * np.array([0.85, *rng.uniform(0.35, 0.6, 4)])
        scar = spots(rng, lobes, size, soft=0.35, wobble=0.2, strength=rng.uniform(0.6, 0.95))
        mask = canvas.draw(scar)
        canvas.note("membrane", mask)
        texture = 1 + 0.18 * noise(rng, 30, mask.shape)
        canvas.cover(None, np.clip(mask * texture, 0, 1), _MEMBRANE)
        rim = spots(
            rng,
            lobes[1:] + rng.normal(0, 0.3 * radius, (4, 2)),
            0.3 * radius,
            wobble=0.5,
            soft=1.0,
            strength=0.5,
        )
        canvas.absorb(None, canvas.draw(rim), _PIGMENT)
    if amd.macular_haemorrhage:
        radius = amd.macular_haemorrhage * dd
        offset = rng.normal(0, 0.35, 2) * radius
        offset += 0.6 * amd.membrane * dd * rng.choice([-1, 1], 2)
        place = np.concatenate([offset[None], offset + rng.normal(0, 0.6 * radius, (5, 2))])
        size = radius * np.array([0.75, *rng.uniform(0.25, 0.5, 5)])
        blood = spots(rng, place, size, wobble=0.25, soft=0.35, strength=rng.uniform(0.75, 1.0))
        canvas.absorb("subretinal_haemorrhage", canvas.draw(blood), _SUBRETINAL)


def _atrophy(canvas: Canvas, centre: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """Paint a sharply bordered loss of pigment epithelium that uncovers the choroidal vessels."""
    lobes = np.concatenate([centre[None], centre + rng.normal(0, 0.6 * radius, (3, 2))])
    size = radius * np.array([0.9, *rng.uniform(0.3, 0.6, 3)])
    mask = canvas.draw(spots(rng, lobes, size, wobble=0.14, soft=0.06, strength=0.85))
    canvas.cover("geographic_atrophy", mask, _ATROPHY)
    choroidal_lines(canvas, mask, rng)


def choroidal_lines(canvas: Canvas, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Paint large choroidal vessels as darker red cords within `mask`, float32 `[h, w]`."""
    theta = rng.uniform(0, np.pi) + np.cumsum(rng.normal(0, 0.25, (110, 10)), 1)
    path = trace(canvas.view.gaze + rng.uniform(-25, 25, (110, 2)), theta, 1.6)
    lines = np.zeros(mask.shape, np.uint8)
    pixels = np.round(canvas.view.pixels(path) * 16).astype(np.int32)
    thick = max(1, round(0.4 * canvas.view.scale))
    cv2.polylines(lines, list(pixels), False, 200, thick, cv2.LINE_AA, 4)
    canvas.absorb(None, lines.astype(np.float32) * (mask * np.float32(1 / 255)), _BARE_VESSELS)


def paint_over(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint macular hole and epiretinal membrane."""
    if not case.macular_hole and not case.epiretinal_membrane:
        return
    rng = stream(case, Stream.MACULAR_SURFACE)
    if case.macular_hole:
        radius = case.macular_hole * eye.disc_diameter / 2
        centre = rng.normal(0, 0.1, (1, 2))
        cuff = spots(rng, centre, radius * 1.7, soft=0.5, wobble=0.05, strength=0.55)
        canvas.absorb(None, canvas.draw(cuff), (0.10, 0.22, 0.25))
        hole = spots(rng, centre, radius, soft=0.12, wobble=0.05)
        canvas.absorb("macular_hole", canvas.draw(hole), (-0.02, -0.62, -0.50))
        dots = spots(rng, centre + rng.normal(0, 0.4 * radius, (5, 2)), 0.12, strength=0.6)
        canvas.cover(None, canvas.draw(dots), (0.15, 0.30, 0.2))
    if case.epiretinal_membrane:
        _membrane(canvas, case.epiretinal_membrane, rng)


def _membrane(canvas: Canvas, density: float, rng: np.random.Generator) -> None:
    """Paint a cellophane sheen with fine folds that converge on a focus near the fovea."""
    view = canvas.view
    focus = rng.normal(0, 1.8, 2)
    extent = 3.5 + 3.0 * density
    sheen = canvas.draw(spots(rng, focus, extent, soft=1.2, wobble=0.3))
    patches = np.clip(0.65 + 0.4 * noise(rng, 18, sheen.shape), 0, 1.4)
    glint = sheen * patches * np.float32(0.35 + 0.65 * density)
    canvas.note("epiretinal_membrane", sheen)
    canvas.absorb(None, glint, (0.13, 0.30, 0.42))
    n, k = int(14 + 46 * density), 8
    angle = rng.uniform(0, 6.28, n)
    out = rng.uniform(0.3, 0.9, (n, 1)) * extent * np.linspace(0.25, 1.0, k)
    theta = angle[:, None] + np.cumsum(rng.normal(0, 0.06, (n, k)), 1)
    path = focus + heading(theta) * out[..., None]
    pixels = np.round(view.pixels(path) * 16).astype(np.int32)
    for tone, shift in (((0.16, 0.34, 0.42), 0), ((-0.10, -0.22, -0.2), 16)):
        folds = np.zeros(sheen.shape, np.uint8)
        thick = max(1, round(0.12 * view.scale))
        cv2.polylines(folds, list(pixels + shift), False, 200, thick, cv2.LINE_AA, 4)
        mask = folds.astype(np.float32) * np.float32(density * min(1, 0.12 * view.scale) / 255)
        canvas.absorb(None, mask, tone)


def drag(points: np.ndarray, density: float) -> np.ndarray:
    """Move vessel points [..., 2] towards the fovea, as the membrane's traction does."""
    if not density:
        return points
    radius = length(points)[..., None]
    pull = 0.30 * density * np.exp(-((radius / 7.0) ** 2))
    return points * (1 - pull)
