"""The background of the fundus: pigment, macula, choroidal vessels, sheen of the nerve fibres.

Healthy eyes differ in the background more than early disease changes it. They differ in the
macula's darkness and hue, in the visibility of the choroid and in the sheen of the inner surface.
"""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, View, clamp, length, stream, trace
from vclip_jax.datasets.synthetic.marks import Canvas, noise

_COARSE, _FINER = 36, 48
"""Number of cells of the grids of smooth fields and of the sheen."""
_INTERSPACE = (-0.10, -0.12, -0.10)
_SHEEN = (0.16, 0.34, 0.45)


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
    # Melanin of choroid and epithelium, then differences of hue.
    melanin, hue = (float(v) for v in 0.11 * np.abs(rng.standard_normal(2)))
    add(noise(rng, 4, x.shape), 0.03 + 0.9 * melanin, 0.04 + melanin, 0.03 + 0.8 * melanin)
    add(noise(rng, 3, x.shape), 0.3 * hue, 0.7 * hue, 1.2 * hue)
    mottling = float(rng.uniform(0.4, 2.2))
    add(noise(rng, 9, x.shape), 0.02 * mottling, 0.04 * mottling, 0.03 * mottling)

    from_fovea = x * x + y * y
    for weight, size, tone in _macula(rng, float(dark), case.age):
        bump = weight * np.exp(-from_fovea / (2 * size**2))
        add(bump, *tone)
    from_disc = np.hypot(x - eye.disc[0], y - eye.disc[1])
    # The thick fibre layer and the disc's stray light brighten its surroundings.
    halo = np.exp(-((from_disc / (rng.uniform(0.9, 3.2) * eye.disc_diameter)) ** 2))
    pale = rng.uniform(0.02, 0.36)
    add(halo, 0.4 * pale, pale, 1.1 * pale)

    youth = clamp((60 - case.age) / 40, 0, 1) * rng.uniform(0.1, 1.5)
    youth = max(youth, 0.5 * rng.uniform() ** 1.5)
    shape = canvas.log.shape[1:]
    for plane, low in zip(canvas.log, coarse, strict=True):
        cv2.resize(low, (shape[1], shape[0]), plane, interpolation=cv2.INTER_LINEAR)

    grain = noise(rng, 40, shape, smooth=False) * 0.6 + noise(rng, 90, shape, smooth=False) * 0.8
    strength = rng.uniform(0.008, 0.035)
    canvas.absorb(None, grain, (0.5 * strength, strength, 0.8 * strength))
    # The choroid's texture shows in red light.
    deep = noise(rng, 48, shape, smooth=False)
    strength = 0.05 * rng.uniform() ** 1.5
    canvas.absorb(None, deep, (strength, 0.8 * strength, -0.2 * strength))
    # A caption names a tessellated fundus from 0.3 on.
    visible = max(case.myopia.tessellation, 0.29 * rng.uniform() ** 0.7)
    if visible > 0.06:
        choroid, between = _choroidal_vessels(
            visible, from_fovea, view, stream(case, Stream.CHOROID)
        )
        # The vessels look orange over a dark choroid and yellowish over bare sclera.
        tone = (0.20, rng.uniform(0.08, 0.26), rng.uniform(-0.12, 0.10))
        canvas.absorb(None, choroid, tone)
        canvas.absorb(None, between, _INTERSPACE)
    if youth > 0.06:
        sheen = _nerve_fibre_sheen(eye, view, rng) * np.float32(youth)
        canvas.absorb(None, sheen, _SHEEN)
    _foveola(canvas, rng)
    if rng.uniform() < 0.5 and case.age < 60:
        _foveal_reflex(canvas, rng, rng.uniform(0.3, 1.6) * (1.3 - case.age / 60))


def _macula(
    rng: np.random.Generator, dark: float, age: int
) -> list[tuple[float, float, tuple[float, float, float]]]:
    """Draw the pigments of a healthy macula: strength, standard deviation in degrees, tone.

    The taller pigment epithelium darkens all colours, the xanthophyll in front of it mostly blue.
    Both differ severalfold between healthy people. The yellow lens of an old eye hides part of the
    xanthophyll.
    """
    depth = 1.25 * np.exp(0.5 * rng.standard_normal()) * (0.9 + 0.5 * dark)
    hue = np.exp(0.2 * rng.standard_normal(3))
    size = np.exp(0.25 * rng.standard_normal(2))
    yellow = rng.uniform(0, 0.5) * clamp(1.4 - age / 100, 0.4, 1.0)
    return [
        (depth, 2.0 * size[0], (-0.13 * hue[0], -0.23 * hue[1], -0.20 * hue[2])),
        (depth, 6.5 * size[1], (-0.08 * hue[0], -0.12 * hue[1], -0.13 * hue[2])),
        (yellow, 2.6 * size[0], (0.0, -0.10, -0.8)),
    ]


def _foveola(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint the small dark red or brown spot in the middle of the macula."""
    depth, size = rng.uniform(0.0, 1.0) ** 1.5, rng.uniform(0.4, 1.1)
    tone = np.array([rng.uniform(-0.25, 0.05), rng.uniform(-0.5, -0.15), rng.uniform(-0.5, -0.1)])
    canvas.absorb(None, _dot(canvas.view, size, rng.uniform(0.8, 1.3)), depth * tone)


def _dot(view: View, size: float, stretch: float = 1.0) -> np.ndarray:
    """Return a Gaussian at the fovea, [height, width] float32; `size` is in degrees."""
    px, py = view.pixels(np.zeros(2))
    wide, high = max(size * stretch * view.scale, 0.7), max(size * view.scale, 0.7)
    across = np.exp(-((np.arange(view.width) - px) ** 2) / (2 * wide * wide))
    down = np.exp(-((np.arange(view.height) - py) ** 2) / (2 * high * high))
    # A dot below a pixel keeps its light: it is drawn larger and fainter.
    weight = min(1.0, (size * view.scale) ** 2 * stretch / (wide * high))
    return np.outer(down, weight * across).astype(np.float32)


def _choroidal_vessels(
    visible: float, from_fovea: np.ndarray, view: View, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the brightening of choroidal vessels and the darkening of their interspaces.

    Both are [height, width] float32. `from_fovea` is the squared distance from the fovea on the
    coarse grid.
    """
    n, k = 400, 7
    x, y = rng.uniform(-30, 38, n), rng.uniform(-28, 28, n)
    # The vessels gather in the vortex veins, one in each quadrant beyond the field.
    theta = np.arctan2(np.where(y > 0, 42, -42) - y, np.where(x > 8, 40, -30) - x)
    theta = (theta + rng.normal(0, 0.5, n))[:, None] + np.cumsum(rng.normal(0, 0.2, (n, k)), 1)
    path = trace(np.stack([x, y], 1), theta, rng.uniform(0.8, 1.8, (n, 1)))
    width = rng.uniform(0.14, 0.42, n)
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
    cover = np.clip(0.8 + 0.4 * sectors + 0.4 * (visible - 0.3), 0, 1.2)
    # The macula's denser pigment hides the choroid.
    cover *= 1 - (0.85 - 0.4 * visible) * np.exp(-from_fovea / (2 * 5.0**2))
    cover = np.clip(cover * visible, 0, 1).astype(np.float32)
    soft = cv2.GaussianBlur(lines, (0, 0), 0.6 + 0.15 * view.scale * zoom)
    size = (view.width, view.height)
    exposed = np.asarray(cv2.resize(cover, size))
    choroid = cv2.resize(soft, size).astype(np.float32) * np.float32(1 / 255) * exposed
    return choroid, exposed - choroid


def _nerve_fibre_sheen(eye: Eye, view: View, rng: np.random.Generator) -> np.ndarray:
    """The whitish striated sheen of the nerve fibres, [height, width] float32.

    The layer is thickest in two bundles that leave the disc above and below and arch around the
    macula, along the arcades.
    """
    x, y = view.grid(_FINER, _FINER)
    dx, dy = x - np.float32(eye.disc[0]), y - np.float32(eye.disc[1])
    radius = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx)
    # The angle at which each fibre left the disc: temporal fibres bend towards the raphe.
    temporal = np.clip(np.abs(angle) - 1.2, 0, 1)
    left = np.abs(angle) - np.float32(rng.uniform(0.02, 0.035)) * temporal * radius
    peak, spread = rng.uniform(1.7, 2.2), rng.uniform(0.3, 0.6)
    bundle = np.exp(-(((left - peak) / spread) ** 2)) + rng.uniform(0.1, 0.4)
    reach = np.where(radius < 4, 1.0, np.exp(-(radius - 4) / rng.uniform(5.0, 15.0)))
    streaks = rng.standard_normal(160).astype(np.float32)
    turn = np.sign(angle) * left
    fine = np.interp(turn.ravel(), np.linspace(-3.4, 3.4, 160), streaks).reshape(turn.shape)
    # The fovea has no nerve fibres.
    bare = 1 - np.exp(-(x * x + y * y) / (2 * 3.5**2))
    sheen = (bundle * reach * bare * (1 + rng.uniform(0.1, 0.4) * fine)).astype(np.float32)
    return cv2.resize(sheen, (view.width, view.height), interpolation=cv2.INTER_CUBIC)


def paint_surface(canvas: Canvas, vessels: np.ndarray, case: Case) -> None:
    """Paint the wet-silk reflexes of a young retina: patches of light beside the vessels.

    `vessels` is their coverage [height, width] float32.
    """
    rng = stream(case, Stream.SILK)
    strength = clamp((50 - case.age) / 25, 0, 1) * rng.uniform(-0.6, 1.0)
    if strength <= 0.05:
        return
    height, width = vessels.shape
    beside = cv2.resize(vessels, (_FINER, _FINER), interpolation=cv2.INTER_AREA)
    beside = np.minimum(cv2.GaussianBlur(beside, (0, 0), 1.2) * 4, 1)
    patches = np.clip(noise(rng, 8, beside.shape) - rng.uniform(-0.2, 0.6), 0, 1.5)
    glow = cv2.resize(beside * patches * np.float32(strength), (width, height))
    canvas.absorb(None, glow, (0.18, 0.34, 0.45))


def _foveal_reflex(canvas: Canvas, rng: np.random.Generator, strength: float) -> None:
    """Paint the bright dot of a young fovea, and sometimes the oval reflex round the macula."""
    view = canvas.view
    full = _dot(view, rng.uniform(0.12, 0.3))
    if rng.uniform() < 0.5:
        x, y = view.grid(_FINER, _FINER)
        radius, angle = np.hypot(x / rng.uniform(1.0, 1.35), y), np.arctan2(y, x)
        arc = 0.5 + 0.5 * np.cos(angle - rng.uniform(0, 6.28))
        ring, width = rng.uniform(1.6, 4.5), rng.uniform(0.25, 0.9)
        glow = (rng.uniform(0, 0.5) + arc) * np.exp(-(((radius - ring) / width) ** 2))
        full += 0.4 * cv2.resize(glow.astype(np.float32), (view.width, view.height))
    canvas.absorb(None, full, (0.25 * strength, 0.4 * strength, 0.5 * strength))
