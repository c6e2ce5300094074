"""The gate: refuse pictures that are not fundus photographs, or that are too poor to judge.

A model answers every picture: one class is the most probable even for a blank page. The gate
measures simple optics on a small copy of the picture, and uses no model:

- the field of view of a fundus camera has a round outline on a dark ground, or fills the picture;
- blood and pigment let red light pass: red is brighter than green everywhere, and at vessels and
  lesions green falls more than red, while shadow and relief darken both alike;
- vessels are dark lines of limited contrast, a few long ones rather than many short ones;
- a picture out of focus shows few vessels.

`LIMITS` holds the limits, and `gate.json` the coefficients of a logistic regression on drawn
photographs. `python benchmarks/gate.py` measures both, and `--fit` writes the coefficients.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import cv2
import numpy as np

NOT_FUNDUS: Final = "not a fundus photograph"
TOO_DARK: Final = "too dark"
TOO_BRIGHT: Final = "too bright"
OUT_OF_FOCUS: Final = "out of focus"
FIELD_CUT: Final = "field cut"
DISC_ONLY: Final = "disc only"
REASONS: Final = (NOT_FUNDUS, TOO_DARK, TOO_BRIGHT, OUT_OF_FOCUS, FIELD_CUT, DISC_ONLY)

_SIDE: Final = 192
"""The longest side of the small copy, in pixels."""
_OFFSET: Final = 12.0
"""The level that is added before logarithms, so that noise in the dark counts little."""
_SCALES: Final = (0.005, 0.01, 0.02, 0.04)
"""Standard deviations of Gaussian windows, as shares of the field's diameter: the middle ones are
those of small and of large vessels."""
_DISC_CONTRAST: Final = 0.3
"""The least contrast of the optic disc against the retina."""
_LOG: Final = np.log(np.arange(256) + _OFFSET).astype(np.float32)


@dataclass(frozen=True)
class Measures:
    """The measures of a picture.

    Lengths are shares of the field's diameter; contrasts are differences of natural logarithms.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.data.images import gate
        >>> gate.measure(np.zeros((64, 64, 3), np.uint8)).light
        0.0
    """

    light: float
    """Median of the brightest channel in the field, 0 to 255."""
    white: float
    """Share of the field where a channel has 250 or more of 255."""
    outline: float
    """Share of the picture that is dark ground around the field; 0 for a filled picture."""
    round: float
    """Share of the outline within 3 % of the radius of one circle, or of one upright ellipse, which
    is a circle in a squashed photograph."""
    arc: float
    """Share of the circle's turn that the outline covers, 0 to 1."""
    visible: float
    """Share of the circle's area that is in the picture and lit."""
    red: float
    """Mean red over mean green in the field."""
    redder: float
    """Share of the field where red is at least as bright as green."""
    border: float
    """Share of the picture's lit border where red is brighter than green by a tenth; 1 for a dark
    border. A filled picture shows retina up to its border."""
    shade: float
    """Slope of red on green, both in logarithms, at the scale of vessels; 1 for shadows."""
    sharp: float
    """Contrast of green between 1 and 2 % of the field's diameter."""
    finest: float
    """Contrast of green between 0.5 and 1 % of the field's diameter."""
    lines: float
    """The 95 % quantile of the strength of dark lines."""
    strongest: float
    """The 99 % quantile of the strength of dark lines."""
    length: float
    """Sum of the extents of the five largest connected dark lines."""
    long: float
    """Share of the area of dark lines that belongs to lines longer than 0.15."""
    flat: float
    """Share of neighbouring pixels that are equal, as in drawings."""
    edges: float
    """Share of neighbouring pixels that differ by more than 40 levels."""
    spot: float
    """Diameter of the brightest spot; the optic disc has 0.1 to 0.2 in fields of 30 to 60
    degrees."""


def measure(rgb: np.ndarray) -> Measures:
    """Measure a picture.

    Args:
        rgb: uint8 RGB `[height, width, 3]`.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.data.images import gate
        >>> gate.measure(np.full((64, 64, 3), 255, np.uint8)).white
        1.0
    """
    small = _small(rgb)
    red, green, blue = cv2.split(small)
    brightest = cv2.max(cv2.max(red, green), blue)
    field, outline, circle = _field(cv2.medianBlur(brightest, 5))
    diameter = _diameter(field, circle)
    inner = _inner(field, diameter)
    inside = inner > 0
    reds, greens, top = (plane[inside] for plane in (red, green, brightest))
    fine, less, coarse, coarsest = (_seen(green, field, part * diameter) for part in _SCALES)
    middle = cv2.subtract(less, coarsest)
    of_red = cv2.subtract(
        _seen(red, field, _SCALES[1] * diameter), _seen(red, field, _SCALES[3] * diameter)
    )
    lines, strongest, length, long = _lines(middle, inner, diameter)
    steps = cv2.absdiff(small[:, 1:], small[:, :-1]).max(axis=2)[inside[:, 1:] & inside[:, :-1]]
    return Measures(
        light=float(np.median(top)),
        white=float(np.mean(top >= 250)),
        outline=outline,
        round=circle.share,
        arc=circle.arc,
        visible=_visible(field, circle),
        red=float((reds.mean() + 2) / (greens.mean() + 2)),
        redder=float(np.mean(reds >= greens)),
        border=_border(red, green, field),
        shade=_slope(of_red[inside], middle[inside]),
        sharp=_deviation(cv2.subtract(less, coarse)[inside]),
        finest=_deviation(cv2.subtract(fine, less)[inside]),
        lines=lines,
        strongest=strongest,
        length=length,
        long=long,
        flat=float(np.mean(steps == 0)),
        edges=float(np.mean(steps > 40)),
        spot=_spot(green, inner, diameter),
    )


# --- The field of view.


@dataclass(frozen=True)
class _Circle:
    """The circle that fits an outline, in pixels; share and arc are 0 without an outline."""

    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    """The horizontal radius; the vertical radius is `stretch` times as long."""
    stretch: float = 1.0
    share: float = 0.0
    arc: float = 0.0

    @property
    def fits(self) -> bool:
        """Return whether most of the outline lies on the circle."""
        return self.share > 0.5


def _small(rgb: np.ndarray) -> np.ndarray:
    scale = min(1.0, _SIDE / max(rgb.shape[:2]))
    height, width = (max(8, round(side * scale)) for side in rgb.shape[:2])
    if (height, width) == rgb.shape[:2]:
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)


def _field(brightest: np.ndarray) -> tuple[np.ndarray, float, _Circle]:
    """Return the mask of the lit field (0 and 1), the share of dark ground, and the circle."""
    ground, bright = _quantiles(brightest.ravel(), 0.02, 0.90)
    whole = np.ones_like(brightest)
    if bright - ground < 16 or ground > 0.25 * bright:  # the field fills the picture
        return whole, 0.0, _Circle()
    lit = (brightest > ground + 0.15 * (bright - ground)).astype(np.uint8)
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    field = np.zeros_like(brightest)
    cv2.drawContours(field, [largest], -1, 1, -1)
    return field, float(1 - field.mean()), _fit(largest[:, 0].astype(np.float64), lit.shape)


def _fit(points: np.ndarray, shape: tuple[int, ...]) -> _Circle:
    """Fit a circle to an outline, or an upright ellipse if that fits far better.

    Points at the picture's border do not count.
    """
    height, width = shape
    x, y = points.T
    free = points[(x > 2) & (x < width - 3) & (y > 2) & (y < height - 3)]
    if len(free) < 12:
        return _Circle()
    free = free[:: max(1, len(free) // 180)]
    circle = _through(free, shape)
    if circle.share > 0.8:
        return circle
    ellipse = _through(free, shape, squashed=True)
    return ellipse if ellipse.share > circle.share + 0.15 else circle


def _through(free: np.ndarray, shape: tuple[int, ...], *, squashed: bool = False) -> _Circle:
    """Fit by least squares, then three times more to the points near the last fit."""
    kept, k = free, 1.0
    for _ in range(4):
        # Kåsa's fit: x^2 = 2 a x + 2 k b y + c - k y^2 is linear in a, k b, c and k.
        columns = [2 * kept, np.ones(len(kept))]
        wanted = np.square(kept[:, 0])
        if squashed:
            columns.append(-np.square(kept[:, 1]))
        else:
            wanted = wanted + np.square(kept[:, 1])
        design = np.column_stack(columns)
        normal = design.T @ design + 1e-9 * np.eye(design.shape[1])
        a, kb, c, *rest = np.linalg.solve(normal, design.T @ wanted)
        k = float(np.clip(rest[0], 0.25, 4)) if rest else 1.0
        b = kb / k
        radius = float(np.sqrt(max(c + a * a + k * b * b, 1e-6)))
        away = (free - (a, b)) * (1, np.sqrt(k))
        off = np.abs(np.hypot(*away.T) - radius)
        kept = free[off <= max(_quantiles(off, 0.85)[0], 0.01 * radius)]
    if not 0.1 * max(shape) < radius < 1.5 * max(shape):
        return _Circle()
    near = off < 0.03 * radius
    turns = np.arctan2(*away[near].T[::-1])
    bins = np.unique(np.floor((turns + np.pi) / (2 * np.pi) * 72).clip(0, 71))
    share = float(near.mean())
    return _Circle(float(a), float(b), radius, float(k**-0.5), share, len(bins) / 72)


def _diameter(field: np.ndarray, circle: _Circle) -> float:
    if circle.fits:
        return 2 * circle.radius * circle.stretch**0.5
    _, _, width, height = cv2.boundingRect(field)
    return float(max(width, height, 8))


def _inner(field: np.ndarray, diameter: float) -> np.ndarray:
    """Return the field without its rim, which has a gradient of its own."""
    reach = max(1, round(0.035 * diameter))
    inner = cv2.erode(field, np.ones((2 * reach + 1,) * 2, np.uint8), borderValue=1)
    return inner if inner.sum() >= 64 else np.ones_like(field)


def _border(red: np.ndarray, green: np.ndarray, field: np.ndarray) -> float:
    width = max(1, round(0.02 * max(field.shape)))
    strip = field.astype(bool)
    strip[width:-width, width:-width] = False
    if strip.sum() < 0.1 * 4 * width * min(field.shape):  # only a corner of the field
        return 1.0
    return float(np.mean(red[strip] > 1.1 * green[strip]))


def _visible(field: np.ndarray, circle: _Circle) -> float:
    """Return the lit share of the circle; 1 without a circle."""
    if not circle.fits:
        return 1.0
    drawn = np.zeros_like(field)
    axes = (round(circle.radius), round(circle.radius * circle.stretch))
    cv2.ellipse(drawn, (round(circle.x), round(circle.y)), axes, 0, 0, 360, 1, -1)
    return float((drawn & field).sum() / (np.pi * circle.radius**2 * circle.stretch))


# --- Light and lines within the field.


def _seen(plane: np.ndarray, field: np.ndarray, sigma: float) -> np.ndarray:
    """Return the logarithm of a channel through a Gaussian window, float32 `[h, w]`.

    The means use lit pixels only; otherwise the field's rim would be the strongest line.
    """
    mask = field.astype(np.float32)
    sums, weights = (
        cv2.GaussianBlur(values, (0, 0), max(sigma, 0.3))
        for values in (cv2.multiply(cv2.LUT(plane, _LOG), mask), mask)
    )
    return cv2.divide(sums, np.maximum(weights, 1e-3))


def _deviation(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _slope(red: np.ndarray, green: np.ndarray) -> float:
    """Return the slope of the changes of red on those of green, by least squares."""
    return float(np.mean(red * green) / max(np.mean(green * green), 1e-9))


def _quantiles(values: np.ndarray, *shares: float) -> list[float]:
    """Return the order statistics of a flat array at these shares."""
    places = [int(share * (values.size - 1)) for share in shares]
    ordered = np.partition(values, places)
    return [float(ordered[place]) for place in places]


def _lines(
    contrast: np.ndarray, inner: np.ndarray, diameter: float
) -> tuple[float, float, float, float]:
    """Return `lines`, `strongest`, `length` and `long` of `Measures`.

    On a dark line the second derivative across is positive and far larger than that along (A.
    Frangi et al., Multiscale vessel enhancement filtering, MICCAI 1998).
    """
    xx, yy, xy = (
        cv2.Sobel(contrast, cv2.CV_32F, *order, ksize=3, scale=scale)
        for order, scale in (((2, 0), 1 / 4), ((0, 2), 1 / 4), ((1, 1), 1 / 4))
    )
    middle, spread = (xx + yy) / 2, np.sqrt(np.square(xx - yy) / 4 + np.square(xy))
    across, along = middle + spread, middle - spread
    dark = np.where(across > 1.5 * np.abs(along), across, 0) * np.float32(0.01 * diameter) ** 2
    inside = inner > 0
    usual, lines, strongest = _quantiles(dark[inside], 0.88, 0.95, 0.99)
    threshold = max(usual, 0.006)
    marks = ((dark > threshold) & inside).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    parts = stats[1:]
    if not len(parts):
        return lines, strongest, 0.0, 0.0
    extents = np.hypot(parts[:, cv2.CC_STAT_WIDTH], parts[:, cv2.CC_STAT_HEIGHT]) / diameter
    areas = parts[:, cv2.CC_STAT_AREA]
    length = float(np.sort(extents)[-5:].sum())
    return lines, strongest, length, float(areas[extents > 0.15].sum() / areas.sum())


def _spot(green: np.ndarray, inner: np.ndarray, diameter: float) -> float:
    """Return the diameter of a disc with the area of the brightest spot of green, over the field's.

    The diameter is 0 if the spot is not much brighter than the rest, as under uneven light.
    """
    soft = cv2.GaussianBlur(green.astype(np.float32), (0, 0), 0.02 * diameter)
    inside = inner > 0
    usual, most = _quantiles(soft[inside], 0.4, 0.995)
    if np.log((most + _OFFSET) / (usual + _OFFSET)) < _DISC_CONTRAST:
        return 0.0
    marks = ((soft > (usual + most) / 2) & inside).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    area = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    return float(2 * np.sqrt(area / np.pi) / diameter)


# --- The reasons.


@dataclass(frozen=True)
class Limits:
    """The limits of the measures; a picture beyond a limit is refused.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.data.images import gate
        >>> strict = gate.Limits(least_light=80)
        >>> measures = gate.measure(np.full((64, 64, 3), 60, np.uint8))
        >>> gate.TOO_DARK in gate.reasons_of(measures, strict)
        True
    """

    least_light: float = 40
    most_white: float = 0.6
    least_red: float = 1.2
    least_redder: float = 0.8
    least_border: float = 0.5
    most_shade: float = 0.93
    most_lines: float = 0.15
    most_strongest: float = 0.25
    """A darker line is ink, not blood."""
    least_ground: float = 0.03
    """The least share of dark ground that counts as an outline."""
    least_round: float = 0.35
    least_visible: float = 0.6
    most_spot: float = 0.28
    """The limit for a filled picture, which shows little besides a larger optic disc."""
    least_long: float = 0.15
    least_texture: float = 0.012
    """The contrast (`finest`) above which an unreadable picture is not a fundus photograph."""


LIMITS: Final = Limits()


def judge(rgb: np.ndarray) -> tuple[str, ...]:
    """Return the reasons to refuse a picture, a part of `REASONS`; `()` for a good one.

    Args:
        rgb: uint8 `[height, width, 3]`.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.data.images import gate
        >>> gate.TOO_DARK in gate.judge(np.zeros((64, 64, 3), np.uint8))
        True
    """
    return reasons_of(measure(rgb))


def reasons_of(m: Measures, limits: Limits = LIMITS) -> tuple[str, ...]:
    """Return the reasons that follow from measures, see `judge`."""
    unreadable = readable(m) < fitted().least or m.long < limits.least_long
    outlined = m.outline > limits.least_ground
    found = {
        NOT_FUNDUS: (
            m.red < limits.least_red
            or m.redder < limits.least_redder
            or m.border < limits.least_border
            or m.shade > limits.most_shade
            or m.lines > limits.most_lines
            or m.strongest > limits.most_strongest
            or (unreadable and m.finest > limits.least_texture)
        ),
        TOO_DARK: m.light < limits.least_light,
        TOO_BRIGHT: m.white > limits.most_white,
        OUT_OF_FOCUS: unreadable and m.finest <= limits.least_texture,
        FIELD_CUT: outlined and (m.round < limits.least_round or m.visible < limits.least_visible),
        DISC_ONLY: not outlined and m.spot > limits.most_spot,
    }
    return tuple(reason for reason in REASONS if found[reason])


def features(m: Measures) -> tuple[float, float, float, float]:
    """Return the inputs of the regression in `readable`."""
    return (
        float(np.log(m.finest + 0.002)),
        float(np.log(m.lines + 0.002)),
        m.length,
        min(max(m.shade, -0.5), 1.5),
    )


def readable(m: Measures) -> float:
    """Return the probability that the retina is readable, by logistic regression.

    `python benchmarks/gate.py --fit` fits the coefficients to the renderer's labels.
    """
    regression = fitted()
    score = sum(w * x for w, x in zip(regression.weights, features(m), strict=True))
    score += regression.intercept
    return float(1 / (1 + np.exp(-score)))


@dataclass(frozen=True)
class Fitted:
    """The logistic regression of `readable`, and its limit."""

    weights: tuple[float, ...]
    intercept: float
    least: float
    """The probability below which a retina is not readable: one in a hundred readable drawn
    photographs has less."""


@cache
def fitted() -> Fitted:
    """Return the content of `gate.json`."""
    path = resources.files("vclip_jax.data.images").joinpath("gate.json")
    content = json.loads(path.read_text("utf-8"))
    return Fitted(tuple(content["weights"]), content["intercept"], content["least"])


def as_bits(reasons: Iterable[str]) -> int:
    """Return reasons as a number: bit i stands for `REASONS[i]`."""
    return sum(1 << REASONS.index(reason) for reason in set(reasons))


def of_bits(bits: int) -> tuple[str, ...]:
    """Return the reasons of a number from `as_bits`."""
    return tuple(reason for place, reason in enumerate(REASONS) if bits >> place & 1)
