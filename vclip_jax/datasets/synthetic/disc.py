"""The optic disc: rim, cup at the case's vertical cup-to-disc ratio, crescent, and diseases."""

import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import (
    Eye,
    Stream,
    clamp,
    heading,
    nerve_fibre_direction,
    stream,
)
from vclip_jax.datasets.synthetic.marks import Canvas, Spots, Tone, noise, spots

_RIM = np.array([0.30, 0.43, 0.40], np.float32)
_CUP = np.array([0.42, 0.92, 1.10], np.float32)
_CHALK = np.array([0.36, 1.00, 1.45], np.float32)
_SWOLLEN = np.array([0.20, 0.45, 0.65], np.float32)
_SCLERA: Tone = (0.32, 0.72, 0.95)
_PIGMENT: Tone = (-0.55, -0.60, -0.55)
_BLOOD: Tone = (-0.28, -0.85, -0.65)


def paint(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint the disc with its cup and its surroundings, under the vessels."""
    rng = stream(case, Stream.DISC)
    nerve, myopia = case.optic_nerve, case.myopia
    swelling = nerve.severity if nerve.kind == "swelling" else 0.0
    swelling = max(swelling, 0.8 * case.hypertensive.disc_swelling)
    if case.vein_occlusion.kind == "central":
        swelling = max(swelling, 0.7 * case.vein_occlusion.severity)

    ring = rng.uniform(0, 1, 4)
    width = max(myopia.crescent * eye.disc_diameter, 0.30 * (ring[0] < 0.3))
    if width > 0:
        kind = "crescent" if myopia.crescent > 0 else None  # else a healthy eye's scleral ring
        _crescent(canvas, kind, eye, width, rng, pigmented=ring[1] < 0.5)
    if nerve.kind == "coloboma":
        _coloboma(canvas, eye, nerve.severity, rng)
    _disc_and_cup(canvas, case, eye, swelling, rng)
    if nerve.kind == "drusen":
        n = 8 + int(14 * nerve.severity)
        bodies = spots(
            rng,
            eye.disc + rng.normal(0, 0.42, (n, 2)) * eye.disc_radii,
            rng.uniform(0.25, 0.6, n),
            wobble=0.12,
            soft=0.6,
            strength=0.55 + 0.4 * nerve.severity,
        )
        canvas.cover("disc_drusen", canvas.draw(bodies), (0.42, 1.0, 1.0))


def _ellipse(
    canvas: Canvas, eye: Eye, reach: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Return the window around the disc and its pixels (u, v) in units of the disc's semi-axes."""
    view = canvas.view
    centre = view.pixels(eye.disc)
    half = reach * eye.disc_radii.max() * view.scale
    x0, x1 = (int(clamp(centre[0] + v, 0, view.width)) for v in (-half, half + 1))
    y0, y1 = (int(clamp(centre[1] + v, 0, view.height)) for v in (-half, half + 1))
    x = np.arange(x0, x1, dtype=np.float32) - np.float32(centre[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(centre[1])
    c, s = np.cos(eye.disc_tilt), np.sin(eye.disc_tilt)
    to_axes = np.array([[c, s], [-s, c]]) @ view.inverse
    to_axes = (to_axes / eye.disc_radii[:, None]).astype(np.float32)
    u = to_axes[0, 0] * x + to_axes[0, 1] * y
    v = to_axes[1, 0] * x + to_axes[1, 1] * y
    return (slice(y0, y1), slice(x0, x1)), u, v


def cup_shape(case: Case, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return centre (u, v) and semi-axes (a, b) of the cup in units of the disc's semi-axes.

    b is exactly the vertical cup-to-disc ratio; a notch moves the cup towards its pole.
    """
    b = clamp(case.cup_to_disc, 0, 0.97)
    a = min(b * rng.uniform(0.90, 1.08), 0.95)
    room = 0.97 - b
    lift = rng.uniform(-0.3, 0.3)
    if case.glaucoma.notch:
        lift = -1.0 if case.glaucoma.notch == "superior" else 1.0
    return -min(0.08, max(0.96 - a, 0)), room * lift, a, b


def _disc_and_cup(
    canvas: Canvas, case: Case, eye: Eye, swelling: float, rng: np.random.Generator
) -> None:
    window, u, v = _ellipse(canvas, eye, 1.7)
    cu, cv, a, b = cup_shape(case, rng)
    phase = rng.uniform(0, 2 * np.pi, 3)
    tones = rng.normal(0, 1, 4)
    # The width of the cup's wall, from a step to a saucer, and the contrast of the cup. Most cups
    # are plain: with as many faint ones, short trainings do not learn to see cups at all.
    slope = 0.08 * 7 ** (rng.random() ** 1.6)
    depth = 1.2 - 0.75 * rng.random() ** 2
    # Some healthy discs are pale, some glaucomatous discs are not.
    wan = 0.6 * rng.random() if case.glaucoma.present else 0.35 * rng.random() ** 3
    edge = 0.07 * 4 ** (rng.random() ** 1.5)
    rough = 0.14 * rng.random() ** 1.5
    if not u.size:  # out of the picture
        for kind in ("disc", "cup"):
            canvas.note(kind, canvas.blank())
        return
    pixel = np.float32(1 / (eye.disc_radii[1] * canvas.view.scale))
    r = np.hypot(u, v) + np.float32(1e-6)
    cos, sin = u / r, v / r
    outline = 1 + 0.015 * (
        cos * sin * np.cos(phase[0]) + (cos * cos - sin * sin) * np.sin(phase[0])
    )
    r = r / outline.astype(np.float32)
    edge += 0.55 * swelling
    reach = 1 + 0.30 * swelling
    disc = np.clip((reach - r) / max(edge, pixel) + 0.5, 0, 1)
    disc = disc * disc * (3 - 2 * disc)

    pale = case.optic_nerve.severity if case.optic_nerve.kind == "pallor" else 0.0
    pale = max(pale, wan)
    rim = _RIM + 0.07 * tones[0] + np.array([0.0, 0.05, 0.09], np.float32) * tones[1]
    rim = rim * (1 - pale) + _CHALK * pale
    rim = rim * (1 - swelling) + _SWOLLEN * swelling
    cup = _CUP + np.array([0.02, 0.07, 0.14], np.float32) * tones[2]
    cup = rim + (cup - rim) * min(1.0, 0.45 + 0.9 * b) * depth  # a small cup is shallow and pink
    if b > 0.02:
        q = np.hypot((u - cu) / a, (v - cv) / b)
        notch = case.glaucoma.notch is not None
        # The wall must fit into the cup and the rim.
        slope = clamp(slope, 0.08, max(min(1.2 * b, 2 * (1 - b)), 0.08))
        soft = max((min(slope, 0.25) if notch else slope) / b, pixel / b)
        cupped = np.clip((1 - q) / soft + 0.5, 0, 1) * (1 - 0.8 * swelling)
    else:
        cupped = np.zeros_like(u)
    # The temporal rim is thinner and paler than the nasal one.
    temporal = 0.4 * np.clip(-u, -1, 1)
    fade = np.float32(0.25) * np.clip(1 - r, 0, 1)
    shade = 1 + 0.5 * temporal + 0.3 * fade
    shade += np.float32(rough) * noise(rng, 7, u.shape)
    for plane, low, high in zip(canvas.log, rim, cup, strict=True):
        paint = low * shade + (high - low) * cupped
        part = plane[window]
        part += disc * (paint - part)
    full = canvas.blank()
    full[window] = disc
    canvas.note("disc", full)
    cup_mask = canvas.blank()
    cup_mask[window] = cupped / max(1 - 0.8 * swelling, 1e-6) * (disc > 0)
    canvas.note("cup", cup_mask)


def _crescent(
    canvas: Canvas,
    kind: str | None,
    eye: Eye,
    width: float,
    rng: np.random.Generator,
    pigmented: bool,
) -> None:
    """Paint peripapillary atrophy: bare sclera temporal to the disc, often with a dark border."""
    angle = np.pi + eye.disc_tilt + rng.normal(0, 0.25)
    shift = np.array([np.cos(angle), np.sin(angle)]) * width * 0.55
    radii = eye.disc_radii + width * np.array([0.5, 0.42])
    tilt = np.array([eye.disc_tilt])
    phase = rng.uniform(0, 6.28, (1, 3))

    def ellipse(grow: float, strength: float) -> Spots:
        axes = (radii + grow)[None]
        centre = (eye.disc + shift)[None]
        return Spots(centre, axes, tilt, np.array([strength]), 0.06, 0.08, phase)

    if pigmented:
        canvas.absorb(None, canvas.draw(ellipse(0.18, rng.uniform(0.3, 0.8))), _PIGMENT)
    mask = canvas.draw(ellipse(0.0, min(0.5 + 0.15 * width, 0.85)))
    canvas.cover(kind, mask, _SCLERA)


def _coloboma(canvas: Canvas, eye: Eye, severity: float, rng: np.random.Generator) -> None:
    """Paint an excavation of disc and choroid below it, bare sclera with a pigmented border."""
    centre = eye.disc + np.array([rng.normal(0, 0.4), 2.2 + 2.0 * severity])
    size = 3.6 + 2.6 * severity
    state = rng.integers(1 << 31)
    for grow, tone, kind in ((0.35, _PIGMENT, None), (0.0, (0.42, 1.15, 1.7), "coloboma")):
        shape = spots(
            np.random.default_rng(state),
            centre,
            size + grow,
            stretch=1.25,
            angle=np.full(1, 1.57),
            wobble=0.10,
            soft=0.10,
            strength=0.9,
        )
        canvas.cover(kind, canvas.draw(shape), tone)


def paint_over(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint the signs over the disc's vessels: disc haemorrhages and myelinated fibres."""
    sound = case.optic_nerve.kind == "none" and not case.hypertensive.disc_swelling
    if sound and not case.glaucoma.disc_haemorrhage:
        return
    rng = stream(case, Stream.NERVE)
    if case.glaucoma.disc_haemorrhage:
        lower = case.glaucoma.notch == "inferior" or (
            case.glaucoma.notch is None and rng.random() < 0.6
        )
        pole = (1.0 if lower else -1.0) * rng.uniform(1.75, 2.4)  # temporal: cos < 0
        run = np.array([np.cos(pole), np.sin(pole)])
        centre = eye.disc + run * eye.disc_radii * 1.05
        splinter = spots(
            rng, centre, 0.42, stretch=4.5, angle=np.full(1, pole), wobble=0.1, soft=0.5
        )
        canvas.absorb("disc_haemorrhage", canvas.draw(splinter), _BLOOD)
    nerve = case.optic_nerve
    if nerve.kind == "myelinated_fibres":
        middle = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.4)
        n = 60 + int(60 * nerve.severity)
        angle = middle + rng.normal(0, 0.42, n)
        radius = eye.disc_radii.mean() + rng.uniform(-0.5, 2.2 + 4.0 * nerve.severity, n)
        place = eye.disc + heading(angle) * radius[:, None]
        fibres = nerve_fibre_direction(place, eye)
        feathers = spots(
            rng,
            place,
            rng.uniform(0.35, 0.7, n),
            stretch=4.0,
            angle=fibres,
            soft=1.2,
            wobble=0.1,
            strength=rng.uniform(0.5, 0.95, n),
        )
        canvas.cover("myelinated_fibres", canvas.draw(feathers), (0.42, 1.05, 1.5))
    swollen = nerve.severity if nerve.kind == "swelling" else 0.8 * case.hypertensive.disc_swelling
    if swollen > 0:
        n = int(rng.poisson(5 * swollen))
        angle = rng.uniform(0, 6.28, n)
        place = eye.disc + heading(angle) * eye.disc_radii * 1.25
        blood = spots(rng, place, rng.uniform(0.2, 0.45, n), stretch=4.0, angle=angle, soft=0.6)
        canvas.absorb("disc_haemorrhage", canvas.draw(blood), _BLOOD)
