"""Lesions of choroid and pigment epithelium, and the nerve-fibre defect that uncovers them."""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, quadrant_angle, scatter, stream
from vclip_jax.datasets.synthetic.macula import choroidal_lines
from vclip_jax.datasets.synthetic.marks import Canvas, noise, spots

_SCLERA = (0.33, 0.82, 1.10)
_PIGMENT = (-0.80, -0.90, -0.80)
_INFILTRATE = (0.20, 0.50, 0.62)
_DIFFUSE = (0.12, 0.30, 0.24)


def paint_deep(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint the lesions of this module; all but the nerve-fibre defect are under the vessels."""
    rng = stream(case, Stream.PATCHES)
    if case.myopia.pathologic:
        _myopic_atrophy(canvas, case, eye, rng)
    if case.chorioretinal.kind != "none":
        _chorioretinal(canvas, case, eye, rng)
    _pigment_spots(canvas, eye, rng)
    if case.glaucoma.nerve_fibre_defect:
        _wedge(canvas, case, eye, rng)


def _myopic_atrophy(canvas: Canvas, case: Case, eye: Eye, rng: np.random.Generator) -> None:
    veil = spots(rng, eye.disc * 0.5, 9.0, soft=1.6, wobble=0.3, strength=rng.uniform(0.2, 0.7))
    canvas.cover(None, canvas.draw(veil), _DIFFUSE)
    n = case.myopia.atrophy_patches
    place = scatter(rng, n, canvas.view, eye, within=(1.0, 12.0), off_disc=1.5)
    if n:
        size = rng.uniform(0.5, 2.0, n)
        patches = spots(rng, place, size, stretch=1.3, wobble=0.3, soft=0.10, strength=0.85)
        edge = spots(rng, place, size * 1.04, wobble=0.3, soft=0.15, strength=0.35)
        canvas.absorb(None, canvas.draw(edge), _PIGMENT)
        mask = canvas.draw(patches)
        canvas.cover("myopic_atrophy", mask, _SCLERA)
        choroidal_lines(canvas, mask, rng)


def _chorioretinal(canvas: Canvas, case: Case, eye: Eye, rng: np.random.Generator) -> None:
    lesion = case.chorioretinal
    n = lesion.lesions
    if lesion.quadrant == "macula":
        place = scatter(rng, n, canvas.view, eye, within=(0.0, 3.0))
    else:
        sector = quadrant_angle(lesion.quadrant)
        place = scatter(rng, n, canvas.view, eye, within=(6.0, 20.0), sector=sector, margin=2.5)
    # The largest has the stated diameter; the others are smaller satellites.
    size = lesion.size * eye.disc_diameter / 2 * np.array([1.0, *rng.uniform(0.25, 0.8, n)])[:n]
    shade = noise(rng, 30, canvas.log.shape[1:])
    if lesion.kind == "inflammation":
        marks = spots(rng, place, size, wobble=0.2, soft=1.1, strength=rng.uniform(0.7, 0.95))
        canvas.cover("chorioretinal_inflammation", canvas.draw(marks), _INFILTRATE)
        return
    clumped = lesion.kind == "scar"
    edge = spots(rng, place, size * 1.08, wobble=0.25, soft=0.3, strength=0.75 if clumped else 0.35)
    canvas.absorb(None, canvas.draw(edge), _PIGMENT)
    marks = spots(rng, place, size * 0.95, wobble=0.25, soft=0.12, strength=0.9)
    mask = canvas.draw(marks)
    tone = np.array(_SCLERA) * rng.uniform(0.75, 1.0)
    canvas.cover("chorioretinal_" + lesion.kind, mask, tone)
    choroidal_lines(canvas, mask * np.float32(0.7), rng)
    if clumped:
        k = 7
        centre = place.repeat(k, 0) + rng.normal(0, 0.45, (n * k, 2)) * size.repeat(k)[:, None]
        clumps = spots(
            rng,
            centre,
            size.repeat(k) * rng.uniform(0.08, 0.3, n * k),
            wobble=0.6,
            soft=0.3,
            strength=rng.uniform(0.5, 1.0, n * k),
        )
        dark = canvas.draw(clumps) * np.clip(0.9 + 0.2 * shade, 0.4, 1)
        canvas.absorb(None, dark, (-1.0, -1.25, -1.2))


def _pigment_spots(canvas: Canvas, eye: Eye, rng: np.random.Generator) -> None:
    """Paint harmless spots, which any eye may have: a flat naevus or a few grains of pigment."""
    chance = rng.uniform(0, 1, 2)
    if chance[0] < 0.03:
        place = scatter(rng, 1, canvas.view, eye, within=(6, 25))
        naevus = spots(rng, place, rng.uniform(0.6, 1.8), soft=0.9, strength=rng.uniform(0.3, 0.7))
        canvas.absorb(None, canvas.draw(naevus), (-0.35, -0.35, -0.22))
    if chance[1] < 0.12:
        n = int(rng.integers(1, 5))
        place = scatter(rng, n, canvas.view, eye, within=(5, 28))
        grains = spots(rng, place, rng.uniform(0.08, 0.3, n), wobble=0.4, strength=0.6)
        canvas.absorb(None, canvas.draw(grains), (-0.4, -0.4, -0.3))


def _wedge(canvas: Canvas, case: Case, eye: Eye, rng: np.random.Generator) -> None:
    """Paint a dark wedge of lost nerve fibres that widens from the disc along their course."""
    sign = -1.0 if case.glaucoma.nerve_fibre_defect == "superior" else 1.0
    theta = sign * rng.uniform(1.85, 2.25)
    half = rng.uniform(0.10, 0.20)
    steps = np.linspace(0, 1, 26)
    edges = []
    for turn in (theta - half, theta + half):
        # The edge leaves the disc at `turn`, then arches towards the temporal raphe.
        bend = turn + sign * 0.95 * steps
        path = np.cumsum(np.stack([np.cos(bend), np.sin(bend)], 1) * 19.0 / 25, 0)
        edges.append(
            eye.disc + eye.disc_radii.mean() * np.array([np.cos(turn), np.sin(turn)]) + path
        )
    outline = np.concatenate([edges[0], edges[1][::-1]])
    mask = np.zeros(canvas.log.shape[1:], np.uint8)
    cv2.fillPoly(
        mask, [np.round(canvas.view.pixels(outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4
    )
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.35 * canvas.view.scale, 0.6))
    fade = soft.astype(np.float32) * np.float32(rng.uniform(0.7, 1.0) / 255)
    canvas.absorb("nerve_fibre_defect", fade, (-0.10, -0.20, -0.22))
