"""The background of the fundus: pigment, macula, choroidal vessels, sheen of the nerve fibres."""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, View, clamp, length, stream, trace
from vclip_jax.datasets.synthetic.marks import Canvas, noise

_COARSE = 36
_CHOROID = (0.20, 0.26, 0.08)
_INTERSPACE = (-0.10, -0.12, -0.10)


def paint(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint the background of `case` on an empty canvas."""
    rng = stream(case, Stream.BACKGROUND)
    view = canvas.view
    x, y = view.grid(_COARSE, _COARSE)
    coarse = np.zeros((3, _COARSE, _COARSE), np.float32)

    def add(field: np.ndarray, red: float, green: float, blue: float) -> None:
        coarse[0] += red * field
        coarse[1] += green * field
        coarse[2] += blue * field

    dark = np.float32(case.pigmentation - 0.25)
    coarse += dark * np.array([-0.65, -0.72, -0.60], np.float32)[:, None, None]
    add(noise(rng, 4, x.shape), 0.05, 0.07, 0.06)
    mottling = float(rng.uniform(0.4, 1.7))
    add(noise(rng, 9, x.shape), 0.02 * mottling, 0.04 * mottling, 0.03 * mottling)

    # Macular pigment and the taller pigment epithelium darken the macula; blue most.
    from_fovea = x * x + y * y
    depth = float(rng.uniform(0.6, 1.9) * (0.9 + 0.5 * dark))
    size = rng.uniform(0.8, 1.3)
    add(np.exp(-from_fovea / (2 * (2.0 * size) ** 2)), -0.17 * depth, -0.24 * depth, -0.26 * depth)
    add(np.exp(-from_fovea / (2 * (6.5 * size) ** 2)), -0.08 * depth, -0.12 * depth, -0.16 * depth)
    from_disc = np.hypot(x - eye.disc[0], y - eye.disc[1])
    # The thick fibre layer and the disc's stray light brighten its surroundings.
    halo = np.exp(-((from_disc / (rng.uniform(1.0, 2.4) * eye.disc_diameter)) ** 2))
    pale = rng.uniform(0.04, 0.34)
    add(halo, 0.4 * pale, pale, 1.1 * pale)

    youth = clamp((55 - case.age) / 35, 0, 1) * rng.uniform(0.2, 1.2)
    youth = max(youth, 0.25 * rng.uniform() ** 2)
    shape = canvas.log.shape[1:]
    for plane, low in zip(canvas.log, coarse, strict=True):
        cv2.resize(low, (shape[1], shape[0]), plane, interpolation=cv2.INTER_LINEAR)

    grain = noise(rng, 40, shape, smooth=False) * 0.6 + noise(rng, 90, shape, smooth=False) * 0.8
    strength = rng.uniform(0.012, 0.035)
    canvas.absorb(None, grain, (0.5 * strength, strength, 0.8 * strength))
    visible = max(case.myopia.tessellation, 0.35 * rng.uniform() ** 2)
    if visible > 0.07:
        choroid, between = _choroidal_vessels(
            visible, from_fovea, view, stream(case, Stream.CHOROID)
        )
        canvas.absorb(None, choroid, _CHOROID)
        canvas.absorb(None, between, _INTERSPACE)
    if youth > 0.06:
        sheen = _nerve_fibre_sheen(x, y, eye, view, rng) * np.float32(youth)
        canvas.absorb(None, sheen, (0.16, 0.34, 0.45))
    reflex = rng.uniform()
    if reflex < 0.35 and case.age < 60:
        _foveal_reflex(canvas, rng, 1.4 - case.age / 60)


def _choroidal_vessels(
    visible: float, from_fovea: np.ndarray, view: View, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the brightening of choroidal vessels and the darkening of their interspaces.

    Both are [height, width] float32. `from_fovea` is the squared distance from the fovea on the
    coarse grid.
    """
    n, k = 280, 7
    x, y = rng.uniform(-30, 38, n), rng.uniform(-28, 28, n)
    # The vessels gather in the vortex veins, one in each quadrant beyond the field.
    theta = np.arctan2(np.where(y > 0, 42, -42) - y, np.where(x > 8, 40, -30) - x)
    theta = (theta + rng.normal(0, 0.5, n))[:, None] + np.cumsum(rng.normal(0, 0.2, (n, k)), 1)
    path = trace(np.stack([x, y], 1), theta, rng.uniform(0.8, 1.8, (n, 1)))
    width = rng.uniform(0.2, 0.5, n)
    sectors = noise(rng, 4, (_COARSE, _COARSE))
    height, width_px = max(view.height // 2, 96), max(view.width // 2, 96)
    zoom = height / view.height
    lines = np.zeros((height, width_px), np.uint8)
    pixels = np.round(view.pixels(path) * zoom * 16).astype(np.int32)
    reach = length(pixels[:, k // 2] / 16 - view.centre * zoom)
    thick = np.maximum(np.round(width * view.scale * zoom), 1).astype(int)
    near = reach < 1.2 * view.radius * zoom
    for t in np.unique(thick[near]):
        cv2.polylines(lines, list(pixels[near & (thick == t)]), False, 255, int(t), cv2.LINE_AA, 4)
    cover = np.clip(0.75 + 0.55 * sectors + 0.5 * (visible - 0.3), 0, 1.3)
    # The macula's denser pigment hides the choroid.
    cover *= 1 - (0.85 - 0.4 * visible) * np.exp(-from_fovea / (2 * 5.0**2))
    cover = np.clip(cover * visible, 0, 1).astype(np.float32)
    soft = cv2.GaussianBlur(lines, (0, 0), 0.6 + 0.15 * view.scale * zoom)
    size = (view.width, view.height)
    exposed = np.asarray(cv2.resize(cover, size))
    choroid = cv2.resize(soft, size).astype(np.float32) * np.float32(1 / 255) * exposed
    return choroid, exposed - choroid


def _nerve_fibre_sheen(
    x: np.ndarray, y: np.ndarray, eye: Eye, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Return the whitish striated sheen of the fibres around a young disc, [height, width] float32.

    `x` and `y` are the retinal degrees of the coarse grid.
    """
    dx, dy = x - np.float32(eye.disc[0]), y - np.float32(eye.disc[1])
    radius = np.hypot(dx, dy)
    # Thickest above and below the disc, towards the arcades.
    bundle = np.abs(dy) / (radius + 1)
    envelope = np.exp(-(((radius - 4) / 6.5) ** 2)) * (0.25 + 0.75 * bundle)
    angle = np.arctan2(dy, dx)
    streaks = rng.standard_normal(96).astype(np.float32)
    fine = np.interp((angle + np.pi) / (2 * np.pi) * 95, np.arange(96), streaks)
    sheen = (envelope * (1 + 0.25 * fine)).astype(np.float32)
    return cv2.resize(sheen, (view.width, view.height), interpolation=cv2.INTER_CUBIC)


def _foveal_reflex(canvas: Canvas, rng: np.random.Generator, strength: float) -> None:
    """Paint the bright dot of a young fovea, and sometimes the oval reflex round the macula."""
    view = canvas.view
    x, y = view.grid(_COARSE * 2, _COARSE * 2)
    radius = np.hypot(x / 1.25, y)
    size, ring = rng.uniform(0.12, 0.3), rng.uniform(2.2, 4.0)
    glow = np.zeros_like(radius)
    if rng.uniform() < 0.4:
        arc = 0.5 + 0.5 * np.cos(np.arctan2(y, x) - rng.uniform(0, 6.28))
        glow = 0.5 * arc * np.exp(-(((radius - ring) / 0.4) ** 2))
    full = cv2.resize(glow.astype(np.float32), (view.width, view.height))
    px, py = view.pixels(np.zeros(2))
    r = max(size * view.scale, 0.7)
    rows, columns = np.ogrid[: view.height, : view.width]
    dot = np.exp(-((columns - px) ** 2) / (2 * r * r)) * np.exp(-((rows - py) ** 2) / (2 * r * r))
    weight = np.float32(min(1.0, (size * view.scale / r) ** 2))
    full = full + dot.astype(np.float32) * weight
    canvas.absorb(None, full, (0.25 * strength, 0.4 * strength, 0.5 * strength))
