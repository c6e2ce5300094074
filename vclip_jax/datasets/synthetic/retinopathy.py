"""The marks of diabetic retinopathy and macular oedema, and the blood and exudate of others."""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case, Retinopathy
from vclip_jax.datasets.synthetic.geometry import (
    Eye,
    Stream,
    View,
    heading,
    nerve_fibre_direction,
    scatter,
    stream,
    trace,
)
from vclip_jax.datasets.synthetic.marks import Canvas, Spots, join, noise, spots

BLOT = (-0.24, -0.80, -0.58)
FLAME = (-0.18, -0.78, -0.58)
EXUDATE = (0.40, 0.92, 0.80)
COTTON = (0.22, 0.55, 0.85)
_MICROANEURYSM = (-0.24, -0.72, -0.50)
_PRERETINAL = (-0.36, -1.10, -0.85)
_LASER = (0.30, 0.80, 0.95)
_PIGMENT = (-0.75, -0.80, -0.70)


def paint_deep(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint signs under the vessels: laser burns, exudates, blot haemorrhages, microaneurysms."""
    signs, view = case.retinopathy, canvas.view
    if signs == Retinopathy() and not case.dme.grade:
        return
    rng = stream(case, Stream.RETINOPATHY)
    if signs.laser_scars:
        _laser(canvas, eye, signs.laser_scars, rng)
    clusters = scatter(rng, signs.hard_exudates, view, eye, within=(7.5, 22.0))
    marks = [exudate_cluster(rng, c, rng.uniform(0.4, 1.7)) for c in clusters]
    marks += _macular_exudates(case, view, eye, rng)
    paint_exudates(canvas, marks, rng)
    blots = scatter(rng, signs.blot_haemorrhages, view, eye, within=(1.5, 90))
    if len(blots):
        size = np.clip(rng.lognormal(np.log(0.23), 0.5, len(blots)), 0.11, 1.0)
        canvas.absorb("blot_haemorrhage", canvas.draw(_blot_spots(rng, blots, size)), BLOT)
    dots = scatter(rng, signs.microaneurysms, view, eye, within=(0.7, 17.0), margin=0.8)
    if len(dots):
        size = np.clip(rng.lognormal(np.log(0.13), 0.3, len(dots)), 0.07, 0.22)
        strength = rng.uniform(0.55, 1.0, len(dots))
        aneurysms = spots(rng, dots, size, strength=strength, wobble=0.05, soft=0.5)
        canvas.absorb("microaneurysm", canvas.draw(aneurysms), _MICROANEURYSM)


def paint_over(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint signs over the vessels: cotton wool, flames, new vessels, preretinal blood."""
    signs, view = case.retinopathy, canvas.view
    if signs == Retinopathy():
        return
    rng = stream(case, Stream.SURFACE)
    wool = scatter(rng, signs.cotton_wool_spots, view, eye, within=(4.5, 90), centre=eye.disc)
    cotton_wool(canvas, wool, eye, rng)
    flames(canvas, scatter(rng, signs.flame_haemorrhages, view, eye, within=(3, 16)), eye, rng)
    if signs.irma:
        places = scatter(rng, signs.irma, view, eye, within=(5, 20))
        _tangles(canvas, "irma", places, 1.0, 5, 0.8, rng)
    if signs.neovascular_elsewhere:
        places = scatter(rng, signs.neovascular_elsewhere, view, eye, within=(7, 20), margin=2.5)
        _tangles(canvas, "neovascular_elsewhere", places, 2.2, 26, 1.0, rng)
    if signs.neovascular_disc:
        place = eye.disc[None] + rng.normal(0, 0.6, (1, 2))
        _tangles(canvas, "neovascular_disc", place, 3.6, 46, 1.0, rng)
    if signs.preretinal_haemorrhage:
        _preretinal(canvas, eye, rng)


def exudate_cluster(rng: np.random.Generator, centre: np.ndarray, spread: float) -> Spots:
    """Make waxy specks, some confluent, over about `spread` degrees around `centre` `[2]`."""
    n = int(rng.integers(5, 12) + rng.poisson(11 * spread))
    angle, squeeze = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    place = rng.standard_t(4, (n, 2)) * spread * np.array([1.0, squeeze]) * 0.55
    c, s = np.cos(angle), np.sin(angle)
    place = place @ np.array([[c, s], [-s, c]])
    size = np.clip(rng.lognormal(np.log(0.10), 0.5, n), 0.045, 0.45)
    size[: n // 5] *= 1.7
    return _exudates(rng, centre + place, size)


def _exudates(rng: np.random.Generator, place: np.ndarray, size: np.ndarray) -> Spots:
    strength = rng.uniform(0.6, 1.0, len(place))
    stretch = rng.uniform(1.0, 1.8, len(place))
    return spots(rng, place, size, stretch=stretch, strength=strength, wobble=0.25, soft=0.4)


def exudate_ring(rng: np.random.Generator, centre: np.ndarray, radius: float) -> Spots:
    """Make a circinate ring: exudates at the edge of the oedema around a leak at `centre` `[2]`."""
    n = int(rng.integers(35, 80))
    arc = rng.uniform(3.2, 6.28)
    angle = rng.uniform(0, 6.28) + arc * rng.beta(0.9, 0.9, n)
    distance = radius * (1 + 0.13 * rng.normal(0, 1, n) + 0.12 * np.sin(2 * angle + 1.0))
    place = centre + heading(angle) * distance[:, None]
    return _exudates(rng, place, np.clip(rng.lognormal(np.log(0.15), 0.45, n), 0.06, 0.5))


def macular_star(rng: np.random.Generator, coverage: float) -> Spots:
    """Make exudates along Henle's fibres, radially around the fovea."""
    rays = int(9 + 12 * coverage)
    angle = rng.uniform(0, 6.28, rays).repeat(8) + rng.normal(0, 0.05, rays * 8)
    distance = rng.uniform(0.7, 3.0, rays * 8) * rng.uniform(0.6, 1.2, rays).repeat(8)
    place = heading(angle) * distance[:, None]
    n = len(place)
    return spots(
        rng,
        place,
        rng.uniform(0.06, 0.13, n),
        stretch=1.8,
        angle=angle,
        soft=0.3,
        wobble=0.2,
        strength=rng.uniform(0.5, 0.95, n),
    )


def _macular_exudates(case: Case, view: View, eye: Eye, rng: np.random.Generator) -> list[Spots]:
    dme = case.dme
    if not dme.grade:
        return []
    # Grade 2 lies within one disc diameter of the fovea, grade 1 within two and a half.
    ring = (0.8, 4.5) if dme.grade == 2 else (6.8, 9.5)
    centres = scatter(rng, dme.exudates, view, eye, within=ring)
    marks = [exudate_cluster(rng, c, rng.uniform(0.4, 1.5)) for c in centres]
    if dme.grade == 2 and rng.random() < 0.25:  # a confluent plaque
        n = int(rng.integers(8, 22))
        place = centres[0] + rng.normal(0, 0.6, (n, 2))
        size = np.clip(rng.lognormal(np.log(0.35), 0.5, n), 0.15, 1.3)
        marks.append(_exudates(rng, place, size))
    if dme.circinate:
        far = rng.uniform(1.5, 3.0) if dme.grade == 2 else rng.uniform(8.5, 10)
        leak = scatter(rng, 1, view, eye, within=(far, far + 0.5), margin=3.0)[0]
        marks.append(exudate_ring(rng, leak, rng.uniform(1.1, 2.2)))
    return marks


def paint_exudates(canvas: Canvas, marks: list[Spots], rng: np.random.Generator) -> None:
    """Cover the canvas with hard exudates, whose yellow varies from eye to eye."""
    tone = np.array(EXUDATE) + rng.normal(0, 1) * np.array([0.03, 0.08, 0.2])
    if marks:
        canvas.cover("hard_exudate", canvas.draw(join(marks)), tone)


def _blot_spots(rng: np.random.Generator, place: np.ndarray, size: np.ndarray) -> Spots:
    n = len(place)
    return spots(
        rng,
        place,
        size,
        stretch=rng.uniform(1, 1.6, n),
        wobble=0.22,
        soft=0.6,
        strength=rng.uniform(0.35, 1.0, n),
    )


def blots(canvas: Canvas, place: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> None:
    """Paint deep haemorrhages of given radii (degrees) at `place` [n, 2]."""
    if len(place):
        canvas.absorb("blot_haemorrhage", canvas.draw(_blot_spots(rng, place, size)), BLOT)


def flames(
    canvas: Canvas, place: np.ndarray, eye: Eye, rng: np.random.Generator, size: float = 1.0
) -> None:
    """Paint superficial haemorrhages at `place` [n, 2]: feathered streaks along nerve fibres."""
    if not len(place):
        return
    strands = 6
    n = len(place) * strands
    run = nerve_fibre_direction(place, eye).repeat(strands) + rng.normal(0, 0.10, n)
    length = (rng.lognormal(np.log(0.75), 0.35, len(place)) * size).repeat(strands)
    direction = heading(run)
    across = direction[:, ::-1] * (-1.0, 1.0) * rng.normal(0, 0.25, n)[:, None]
    along = direction * rng.normal(0, 0.45, n)[:, None]
    centre = place.repeat(strands, 0) + (across + along) * length[:, None]
    stretch = rng.uniform(4.0, 10.0, n)
    marks = spots(
        rng,
        centre,
        length / np.sqrt(stretch),
        stretch=stretch,
        angle=run,
        soft=1.0,
        wobble=0.1,
        strength=rng.uniform(0.35, 1.0, n),
    )
    canvas.absorb("flame_haemorrhage", canvas.draw(marks), FLAME)


def cotton_wool(canvas: Canvas, place: np.ndarray, eye: Eye, rng: np.random.Generator) -> None:
    """Paint cotton-wool spots at `place` [n, 2]: fluffy, whitish, a quarter of a disc across."""
    if not len(place):
        return
    tufts = 4
    n = len(place) * tufts
    run = nerve_fibre_direction(place, eye).repeat(tufts) + np.pi / 2 + rng.normal(0, 0.5, n)
    size = rng.uniform(0.35, 0.8, len(place)).repeat(tufts)
    centre = place.repeat(tufts, 0) + rng.normal(0, 0.5, (n, 2)) * size[:, None]
    marks = spots(
        rng,
        centre,
        size * rng.uniform(0.6, 1.1, n),
        stretch=1.5,
        angle=run,
        soft=1.7,
        wobble=0.15,
        strength=rng.uniform(0.45, 0.9, n),
    )
    canvas.cover("cotton_wool_spot", canvas.draw(marks), COTTON)


def _laser(canvas: Canvas, eye: Eye, n: int, rng: np.random.Generator) -> None:
    """Paint panretinal burns: pale round scars outside the arcades, many with a dark centre."""
    place = scatter(rng, n, canvas.view, eye, within=(11.0, 90.0), off_disc=1.9, margin=0.8)
    size = rng.uniform(0.3, 0.65) * rng.uniform(0.8, 1.25, n)
    pale = spots(rng, place, size, strength=rng.uniform(0.25, 0.9, n), wobble=0.15, soft=0.35)
    canvas.cover("laser_scar", canvas.draw(pale), _LASER)
    ring = rng.random(n) < rng.uniform(0.3, 0.9)
    middle = place[ring] + rng.normal(0, 0.12, (int(ring.sum()), 2))
    dark = spots(
        rng,
        middle,
        0.45 * size[ring],
        strength=rng.uniform(0.3, 0.9, len(middle)),
        wobble=0.3,
        soft=0.6,
    )
    canvas.absorb(None, canvas.draw(dark), _PIGMENT)


def _tangles(
    canvas: Canvas,
    kind: str,
    places: np.ndarray,
    size: float,
    curls: int,
    ink: float,
    rng: np.random.Generator,
) -> None:
    """Paint fine looping vessels around each place: new vessels, or the few kinks of an IRMA."""
    k = 12
    n = len(places) * curls
    start = places.repeat(curls, 0) + rng.normal(0, 0.22 * size, (n, 2))
    turn = rng.normal(0, 0.45, (n, 1)) + rng.normal(0, 0.35, (n, k))
    theta = rng.uniform(0, 6.28, (n, 1)) + np.cumsum(turn, 1)
    step = size * rng.uniform(0.06, 0.17, (n, 1))
    path = trace(start, theta, step)
    width = rng.uniform(0.07, 0.15, n) * canvas.view.scale
    pixels = np.round(canvas.view.pixels(path) * 16).astype(np.int32)
    mask = np.zeros(canvas.log.shape[1:], np.uint8)
    thick = np.maximum(np.round(width), 1).astype(int)
    value = np.clip(width / thick, 0.35, 1.0)
    for t in np.unique(thick):
        for low in (0.35, 0.6, 0.85):
            chosen = (thick == t) & (value >= low) & (value < low + 0.25)
            cv2.polylines(
                mask,
                list(pixels[chosen]),
                False,
                int(255 * min(low + 0.12, 1)),
                int(t),
                cv2.LINE_AA,
                4,
            )
    cover = mask.astype(np.float32) * np.float32(ink / 255)
    canvas.absorb(kind, cover, (-0.22, -0.75, -0.55))
    if size > 1.5:  # the fibrous veil that carries new vessels
        veil = spots(rng, places, 0.55 * size, soft=2.0, wobble=0.3, strength=rng.uniform(0.0, 0.5))
        canvas.cover(None, canvas.draw(veil), (0.18, 0.42, 0.65))


def _preretinal(canvas: Canvas, eye: Eye, rng: np.random.Generator) -> None:
    """Paint blood before the retina: boat-shaped, with a level top and a rounded bottom."""
    view = canvas.view
    centre = scatter(rng, 1, view, eye, within=(4, 16), margin=3.5)[0]
    size = rng.uniform(1.8, 4.2)
    pool = spots(
        rng, centre, size, stretch=rng.uniform(1.2, 2.2), angle=np.zeros(1), wobble=0.10, soft=0.10
    )
    mask = canvas.draw(pool)
    level = view.pixels(centre)[1] - rng.uniform(-0.2, 0.35) * size * view.scale
    tilt = rng.normal(0, 0.06)
    columns = np.arange(view.width) - view.pixels(centre)[0]
    rows = np.arange(view.height)[:, None]
    flat = np.clip((rows - level - tilt * columns) / max(1.5, 0.12 * view.scale) + 0.5, 0, 1)
    if rng.random() < 0.75:
        mask *= flat.astype(np.float32)
    mask *= np.clip(0.9 + 0.1 * noise(rng, 24, mask.shape), 0, 1)
    canvas.absorb("preretinal_haemorrhage", mask, _PRERETINAL)
