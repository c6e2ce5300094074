"""Charts of one share against another, as inline SVG: ROC, precision-recall, net benefit.

They follow `plots`: a chart is about 340 px wide, and colours are classes of the style sheet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from vclip_jax.report.plots import COLOURS, Axis, Floats, compact, nice_step

_WIDTH, _HEIGHT = 340, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 38


@dataclass(frozen=True)
class Line:
    """A curve with its band, all float64 `[m]` with x rising."""

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    marks: tuple[tuple[float, float], ...] = ()
    """Points on the curve to mark, such as operating points."""


@dataclass(frozen=True)
class Axes:
    """The words and the ends of a chart's axes."""

    x: str
    y: str
    low: float = 0.0
    """The lower end of the vertical axis."""
    high: float = 1.0
    even: tuple[tuple[float, float], ...] = field(default=())
    """The points of a dashed line of reference."""


def chart(lines: Sequence[Line], axes: Axes, title: str) -> Markup:
    """Draw curves over shares from 0 to 1.

    Args:
      lines: at least one; a band is drawn only if there is just one.
      axes: the axes.
      title: the title for the accessible description; it is not drawn.
    """
    x = Axis(0, 1, _LEFT, _WIDTH - _RIGHT, (0, 0.25, 0.5, 0.75, 1))
    y = Axis(axes.low, axes.high, _HEIGHT - _BOTTOM, _TOP, _ticks(axes.low, axes.high))
    parts = [_grid(x, y, axes)]
    if axes.even:
        ends = _points(x([p[0] for p in axes.even]), y([p[1] for p in axes.even]))
        parts.append(Markup('<polyline class="even" points="{}"/>').format(ends))
    for index, line in enumerate(lines):
        colour = f"c{index % COLOURS}"
        if len(lines) == 1 and line.low is not None and line.high is not None:
            around = _points(
                np.append(x(line.x), x(line.x)[::-1]),
                np.append(y(_cut(line.high, axes)), y(_cut(line.low, axes))[::-1]),
            )
            parts.append(Markup('<polygon class="band {}" points="{}"/>').format(colour, around))
        ends = _points(x(line.x), y(_cut(line.y, axes)))
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(colour, ends))
        for across, up in line.marks:
            parts.append(
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
                    colour, x([across])[0], y([up])[0]
                )
            )
    description = "; ".join(_described(line) for line in lines)
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}</svg>'
    ).format(_WIDTH, _HEIGHT, f"{title}: {description}.", Markup("").join(parts))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    step = nice_step(high - low, 5)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))


def _cut(values: Floats, axes: Axes) -> Floats:
    return np.clip(values, axes.low, axes.high)


def _points(x: Floats, y: Floats) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _described(line: Line) -> str:
    at = [float(np.interp(share, line.x, line.y)) for share in (0.1, 0.5, 0.9)]
    return f"{line.label}: {at[0]:.2f} at 0.1, {at[1]:.2f} at 0.5, {at[2]:.2f} at 0.9"


def _grid(x: Axis, y: Axis, axes: Axes) -> Markup:
    floor, parts = _HEIGHT - _BOTTOM, []
    for tick, at in zip(y.ticks, y(y.ticks), strict=True):
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, at, at, _LEFT - 6, at + 3.5, compact(tick))
        )
    for tick, at in zip(x.ticks, x(x.ticks), strict=True):
        anchor = "end" if at > _WIDTH - _RIGHT - 10 else "middle"
        parts.append(
            Markup(
                '<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text x="{0:.1f}" y="{3}" text-anchor="{4}">{5}</text>'
            ).format(at, floor, floor + 4, floor + 16, anchor, compact(tick))
        )
    parts.append(
        Markup(
            '<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{4}" text-anchor="middle">{5}</text>'
            '<text x="12" y="{6}" text-anchor="middle" transform="rotate(-90 12 {6})">{7}</text>'
        ).format(
            _LEFT,
            _WIDTH - _RIGHT,
            floor,
            (_LEFT + _WIDTH - _RIGHT) / 2,
            _HEIGHT - 6,
            axes.x,
            (_TOP + floor) / 2,
            axes.y,
        )
    )
    return Markup("").join(parts)
