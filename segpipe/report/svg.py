"""The few charts that pages need, as inline SVG. Why no plotting library: the marks take their colours from the page's
style, so that one chart serves light, dark and print; text stays text; and a chart is 4 KB and not 100.

A chart is drawn 400 units wide: so narrow that its letters are legible on a phone, where it is as wide as the screen.
All text comes escaped. Colours of classes stand in `style`, everything else is a class of `page.css`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 36.0
# A name stands at most so far below its point, and no lower than beside a point on the axis; a letter is so wide.
FARTHEST_NAME, LOWEST_NAME, LETTER, LINE = 24.0, HEIGHT - BOTTOM + 4, 6.5, 11.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """What is told along one side, from `low` to `high`; `form` says its numbers."""

    title: str
    low: float
    high: float
    form: Callable[[float], str] = "{:g}".format
    ticks: Sequence[float] = ()

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two ends in units of the chart."""
        return start + (value - self.low) / ((self.high - self.low) or 1.0) * (end - start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Points joined; `colour` is that of a class, None the page's; `kind` a class of the style: line, thin, faint, or
    marked, which shows the points, too."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: tuple[int, int, int] | None = None
    kind: str = "line"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point with an interval of its y and a name beside it."""

    name: str
    x: float
    y: float
    low: float
    high: float
    is_first: bool = False


def css_colour(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def lines(series: Sequence[Line], x: Axis, y: Axis, *, label: str, diagonal: bool = False) -> Markup:
    """Curves. `label` says in words what they show."""
    parts = [_frame(x, y)]
    if diagonal:
        parts.append(Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(*_at(x, y, 0, 0), *_at(x, y, 1, 1)))
    for line in series:
        points = [_at(x, y, a, b) for a, b in zip(line.xs, line.ys, strict=True)]
        style = "" if line.colour is None else f"--c:{css_colour(line.colour)}"
        body = Markup('<path d="{}"/>').format("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points))
        if line.kind == "marked" or len(points) == 1:
            body += Markup("").join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(a, b) for a, b in points)
        parts.append(
            Markup('<g class="{}" style="{}"><title>{}</title>{}</g>').format(line.kind, style, line.name, body)
        )
    return _svg(parts, label)


def columns(
    counts: Sequence[int], x: Axis, *, label: str, y_title: str, marked: tuple[float, str] | None = None
) -> Markup:
    """A histogram of counts over equal parts of the axis; `marked` is a line across and its name."""
    most = max([1, *counts])
    y = Axis(title=y_title, low=0, high=most * 1.05, ticks=[t for t in ticks(0, most) if t == int(t)])
    width = (x.high - x.low) / len(counts)
    parts = [_frame(x, y)]
    for place, count in enumerate(counts):
        (left, top), (right, bottom) = (
            _at(x, y, x.low + place * width, count),
            _at(x, y, x.low + (place + 1) * width, 0),
        )
        if count:
            parts.append(
                Markup(
                    '<rect class="column" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "<title>{} to {}: {}</title></rect>"
                ).format(
                    left + 0.75,
                    top,
                    right - left - 1.5,
                    bottom - top,
                    x.form(x.low + place * width),
                    x.form(x.low + (place + 1) * width),
                    count,
                )
            )
    if marked is not None:
        across, _ = _at(x, y, marked[0], 0)
        parts.append(
            Markup('<path class="marked" d="M{:.1f} {}V{}"/><text class="note" x="{:.1f}" y="{}">{}</text>').format(
                across, TOP, HEIGHT - BOTTOM, across + 4, TOP + 10, marked[1]
            )
        )
    return _svg(parts, label)


def scatter(marks: Sequence[Mark], x: Axis, y: Axis, *, label: str) -> Markup:
    """Points with whiskers, named beside them. Names that would lie on each other move down a little; for whom there is
    no place, the name shows under the pointer alone. The highest points are named first."""
    parts, taken = [_frame(x, y)], list[tuple[float, float, float]]()
    for mark in sorted(marks, key=lambda each: each.y, reverse=True):
        (a, b), (_, low), (_, high) = (_at(x, y, mark.x, value) for value in (mark.y, mark.low, mark.high))
        is_right = a > WIDTH * 0.62
        text_x, text_y = a + (-7 if is_right else 7), b + 4
        short = mark.name if len(mark.name) <= 24 else mark.name[:23] + "…"
        start = text_x - LETTER * len(short) * is_right
        end = start + LETTER * len(short)
        while any(start < right and left < end and abs(text_y - other) < LINE for left, right, other in taken):
            text_y += 3
        name = Markup("")
        if text_y <= min(b + FARTHEST_NAME, LOWEST_NAME):
            taken.append((start, end, text_y))
            name = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                text_x,
                text_y,
                "end" if is_right else "start",
                short,
            )
        parts.append(
            Markup(
                '<g class="mark{}"><title>{}</title><path d="M{:.1f} {:.1f}V{:.1f}"/>'
                '<circle cx="{:.1f}" cy="{:.1f}" r="4"/>{}</g>'
            ).format(
                " first" if mark.is_first else "",
                f"{mark.name}: {y.form(mark.y)} ({y.form(mark.low)} to {y.form(mark.high)}) at {x.form(mark.x)}",
                a,
                low,
                high,
                a,
                b,
                name,
            )
        )
    return _svg(parts, label)


def _frame(x: Axis, y: Axis) -> Markup:
    parts = []
    for value in y.ticks:
        _, b = _at(x, y, x.low, value)
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT, b, WIDTH - RIGHT, LEFT - 6, b + 4, y.form(value)
            )
        )
    for value in x.ticks:
        a, _ = _at(x, y, value, y.low)
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                a, HEIGHT - BOTTOM + 15, x.form(value)
            )
        )
    titles = Markup('<text class="title" x="{}" y="{}" text-anchor="end">{}</text>').format(
        WIDTH - RIGHT, HEIGHT - 5, x.title
    )
    titles += Markup('<text class="title" x="{}" y="{}">{}</text>').format(4, TOP - 2, y.title)
    base = Markup('<path class="base" d="M{} {}H{}"/>').format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT)
    return Markup("").join(parts) + base + titles


def _at(x: Axis, y: Axis, a: float, b: float) -> tuple[float, float]:
    return (
        round(x.place(a, LEFT, WIDTH - RIGHT), 1),
        round(y.place(b, HEIGHT - BOTTOM, TOP + 6), 1),
    )


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(map(escape, parts))
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two bounds, at most about as many."""
    raw = ((high - low) or 1.0) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(each * magnitude for each in (1, 2, 2.5, 5, 10) if each * magnitude >= raw)
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
