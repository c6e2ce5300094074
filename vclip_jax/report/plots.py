"""Small charts as inline SVG, which take their colours from the page and need no library.

A chart is drawn for a column about 340 px wide, where one unit of its view box is one pixel; the
page lays charts out in as many columns as fit. Colours are the classes `c0` to `c6` of the style
sheet, which has rules for light, dark and print.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

Floats = npt.NDArray[np.float64]

COLOURS = 7
_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 24
_COUNTS = 40
"""The height of the counts below a reliability diagram."""
_BUCKETS = 160
"""The largest number of points; more are drawn as means of equal spans, with a band of the range.
"""


@dataclass(frozen=True)
class Series:
    """A line: values at steps, both float64 `[n]`, ordered by step, all finite."""

    label: str
    steps: Floats
    values: Floats
    colour: int | None = None
    """The number of its colour; None for its position in the chart."""


@dataclass(frozen=True)
class Axis:
    """A map from values to positions between two pixels; `log` needs positive bounds."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, values: Floats | Sequence[float]) -> Floats:
        """Map values `[n]` to positions `[n]` in pixels."""
        at, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            at, low, high = np.log10(at), math.log10(low), math.log10(high)
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def line_chart(
    series: Sequence[Series],
    title: str,
    *,
    from_zero: bool = False,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Markup:
    """Draw a chart of values by step.

    Args:
      series: at least one line, each with at least one point.
      title: the title for the accessible description; it is not drawn.
      from_zero: start the value axis at zero.
      limits: fixed ends of the value axis.
      log: make the value axis logarithmic, if all values are positive.
    """
    steps = np.concatenate([s.steps for s in series])
    values = np.concatenate([s.values for s in series])
    x = _steps(float(steps.min()), float(steps.max()))
    bottom, top = _HEIGHT - _BOTTOM, _TOP
    if log and values.min() >= 1e-300:  # smaller values would round to zero
        y = _logarithmic(float(values.min()), float(values.max()), bottom, top)
    else:
        low, high = limits or (float(values.min()), float(values.max()))
        low = min(low, 0.0) if from_zero else low
        y = _linear(low, high, bottom, top, count=5 if limits else 4, tight=limits is not None)
    parts = [_grid(x, y)]
    for index, one in enumerate(series):
        colour = index if one.colour is None else one.colour
        parts.append(_line(one, x, y, f"c{colour % COLOURS}"))
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}</svg>'
    ).format(_WIDTH, _HEIGHT, _describe(series, title), Markup("").join(parts))


def interval(value: float, low: float, high: float, marks: Sequence[float]) -> Markup:
    """Draw a point with its confidence interval on a line from 0 to 1; `marks` are thin ticks.

    The picture repeats written numbers, so it is hidden from screen readers.
    """
    width, middle = 132, 9

    def at(share: float) -> float:
        return 4 + share * (width - 8)

    ticks = Markup("").join(
        Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="2" y2="16"/>').format(at(mark))
        for mark in marks
    )
    return Markup(
        '<svg viewBox="0 0 {} 18" width="{}" height="18" aria-hidden="true" class="interval">'
        '<line class="base" x1="4" x2="{:.1f}" y1="{}" y2="{}"/>{}'
        '<line class="range" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
        '<circle cx="{:.1f}" cy="{}" r="3.5"/></svg>'
    ).format(
        width,
        width,
        at(1),
        middle,
        middle,
        ticks,
        at(low),
        at(high),
        middle,
        middle,
        at(value),
        middle,
    )


def reliability(bins: Sequence[Mapping[str, Any]], title: str) -> Markup:
    """Draw accuracy over confidence in equal bins, with the diagonal where both agree.

    Light bars reach up to the accuracy. A dot lies at the bin's mean confidence, and its line to
    the diagonal is the calibration error. Bars below show the number of images in each bin.

    Args:
      bins: dicts of `n`, `confidence` and `accuracy`, from 0 to 1; at least one with images.
      title: the title for the accessible description.
    """
    x = _linear(0, 1, _LEFT, _WIDTH - _RIGHT, count=5, tight=True)
    y = _linear(0, 1, _HEIGHT - _BOTTOM, _TOP, count=5, tight=True)
    floor, base = _HEIGHT - _BOTTOM, _HEIGHT + _COUNTS
    most = max(entry["n"] for entry in bins)
    edges = x(np.linspace(0, 1, len(bins) + 1))
    bar = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    parts = [_grid(x, y)]
    for left, right, entry in zip(edges[:-1], edges[1:], bins, strict=True):
        if not entry["n"]:
            continue
        at, top, even = (
            float(v[0])
            for v in (x([entry["confidence"]]), y([entry["accuracy"]]), y([entry["confidence"]]))
        )
        tall = max(1.0, entry["n"] / most * (_COUNTS - 12))
        parts += [
            bar.format("bar c0", left + 0.5, top, right - left - 1, floor - top),
            bar.format("bar c6", left + 0.5, base - tall, right - left - 1, tall),
            Markup(
                '<line class="gap" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
            ).format(at, even, top),
            Markup('<circle class="c0" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(at, top),
        ]
    parts += [
        Markup('<line class="even" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            x.start, x.end, y.start, y.end
        ),
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - _RIGHT, base, base
        ),
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            _LEFT - 6, base - _COUNTS + 16, compact(most)
        ),
    ]
    description = "; ".join(
        f"{entry['n']} images, confidence {entry['confidence']:.2f}, accuracy "
        f"{entry['accuracy']:.2f}"
        for entry in bins
        if entry["n"]
    )
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}</svg>'
    ).format(_WIDTH, base + 2, f"{title}: {description}.", Markup("").join(parts))


def compact(value: float) -> str:
    """Format a number for an axis, as short as possible: 0.25, 12k, 1.5M, 3e−5."""
    size = abs(value)
    if size == 0:
        return "0"
    for bound, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= bound:
            return f"{value / (1e3 if suffix == 'k' else bound):.6g}{suffix}".replace("-", "−")
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


def nice_step(span: float, count: int) -> float:
    """Return the least 1, 2 or 5 times a power of ten that gives at most `count` parts."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def _steps(first: float, last: float) -> Axis:
    """Return the axis of steps; a single step is in the middle."""
    if first == last:
        return Axis(first - 1, first + 1, _LEFT, _WIDTH - _RIGHT, (first,))
    return _linear(first, last, _LEFT, _WIDTH - _RIGHT, count=4, tight=True)


def _linear(
    low: float, high: float, start: float, end: float, *, count: int = 4, tight: bool = False
) -> Axis:
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):  # a flat line, or one point
        pad = abs(low) * 0.5 or 0.5
        low, high = low - (0 if tight else pad), high + pad
    step = nice_step(high - low, count)
    if not tight:  # let the axis end on ticks
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))
    return Axis(low, high, start, end, ticks)


def _logarithmic(low: float, high: float, start: float, end: float) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 5))
    ticks = tuple(10.0**i for i in range(first, last + 1, every))
    return Axis(10.0**first, 10.0**last, start, end, ticks, log=True)


def _grid(x: Axis, y: Axis) -> Markup:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for tick, at in zip(y.ticks, y(y.ticks), strict=True):
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, at, at, _LEFT - 6, at + 3.5, compact(tick))
        )
    for tick, at in zip(x.ticks, x(x.ticks), strict=True):
        anchor = "end" if at > _WIDTH - _RIGHT - 14 else "middle"
        parts.append(
            Markup(
                '<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text x="{0:.1f}" y="{3}" text-anchor="{4}">{5}</text>'
            ).format(at, bottom, bottom + 4, bottom + 17, anchor, compact(tick))
        )
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - _RIGHT, bottom, bottom
        )
    )
    return Markup("").join(parts)


def _line(series: Series, x: Axis, y: Axis, colour: str) -> Markup:
    steps, values, low, high = bucket(series.steps, series.values)
    across = x(steps)
    if len(steps) == 1:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
            colour, across[0], y(values)[0]
        )
    band = Markup("")
    if low is not None and high is not None:
        points = _points(np.append(across, across[::-1]), np.append(y(high), y(low)[::-1]))
        band = Markup('<polygon class="band {}" points="{}"/>').format(colour, points)
    return band + Markup('<polyline class="{}" points="{}"/>').format(
        colour, _points(across, y(values))
    )


def bucket(steps: Floats, values: Floats) -> tuple[Floats, Floats, Floats | None, Floats | None]:
    """Return (steps, means, minima, maxima) of equal runs of points; a few points stay as they are.

    Minima and maxima are None then.
    """
    if len(steps) <= _BUCKETS:
        return steps, values, None, None
    starts = np.linspace(0, len(steps), _BUCKETS, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, len(steps)))
    return (
        np.add.reduceat(steps, starts) / sizes,
        np.add.reduceat(values, starts) / sizes,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


def _points(x: Floats, y: Floats) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _describe(series: Sequence[Series], title: str) -> str:
    texts = [
        f"{s.label}: {compact(float(s.values[0]))} at step {int(s.steps[0]):,}, "
        f"{compact(float(s.values[-1]))} at step {int(s.steps[-1]):,}, "
        f"least {compact(float(s.values.min()))}, greatest {compact(float(s.values.max()))}"
        for s in series
    ]
    return f"{title} by step. " + "; ".join(texts) + "."


def legend(labels: Sequence[str]) -> Markup:
    """Draw the legend of a chart of several series."""
    items = Markup("").join(
        Markup(
            '<li><svg class="chart key" viewBox="0 0 24 6" aria-hidden="true">'
            '<polyline class="c{}" points="0,3 24,3"/></svg>{}</li>'
        ).format(index % COLOURS, label)
        for index, label in enumerate(labels)
    )
    return Markup('<ul class="legend">{}</ul>').format(items)
