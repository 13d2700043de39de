"""All models of a night on one page: the board with its intervals, what accuracy costs, every class, and a viewer that
lays any two models' answers to one image over each other.

The page needs no network. Its viewer is the one script of this room: sketches travel as deflated bytes, so that the
page can colour them, show errors and tell what is below the pointer; of keypoints it compares drawn pictures.

Legend: h w size of a picture in pixels, K classes.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from segpipe.metrics.evidence import class_score, is_scored
from segpipe.report import embedding, names, sketched, svg
from segpipe.report.drawing import Pixels
from segpipe.report.objects import Colour
from segpipe.report.pages import named, render, ribbon, script
from segpipe.sketches import Sketch
from segpipe.types import ClassInfo, EvalReport

# Maps on a page, whatever the number of models, and images.
MOST_CELLS, FEWEST_IMAGES, MOST_IMAGES = 480, 4, 24
MOST_DRAWN, FEWEST_DRAWN = 90, 1  # of pictures, each of `embedding.DRAWN_BYTES`
MOST_BYTES = 24_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One image: what each model said of it, in the order of the reports, and how it scored. Sketches lie in `maps`, of
    one size with the image; where a task has none, `pictures` are PNG."""

    name: str
    image_hw3: Pixels | None = None
    truth: Sketch | None = None
    maps: tuple[Sketch, ...] = ()
    scores: tuple[float, ...] = ()
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NightFacts:
    """What the page is made of: `reports` best first, `champion` the label of who stands now."""

    reports: tuple[EvalReport, ...]
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    outcome: str
    reason: str
    champion: str | None
    failures: Mapping[str, str]
    images: tuple[Compared, ...]
    chosen: str


def image_budget(models: int, *, drawn: bool = False) -> int:
    """How many images a page has room for: as sketches, or as pictures that were `drawn`."""
    most, fewest = (MOST_DRAWN, FEWEST_DRAWN) if drawn else (MOST_CELLS, FEWEST_IMAGES)
    return max(fewest, min(MOST_IMAGES, most // max(models, 1)))


def render_night(facts: NightFacts) -> str:
    """The page as HTML, at most `MOST_BYTES` long for up to `MOST_DRAWN` models and their `image_budget`."""
    first, score = facts.reports[0], class_score(facts.reports[0])
    rows = [
        {**named(info), "shares": [report.per_class[info.name].get(score) for report in facts.reports]}
        for info in facts.classes
        if is_scored(first, info)
    ]
    return render(
        "side_by_side.html.j2",
        title=f"{first.experiment}: {len(facts.reports)} models side by side",
        facts=facts,
        first=first,
        ribbon=ribbon(first, facts.classes),
        charts=list(_charts(facts.reports)),
        class_rows=rows,
        score_name=names.metric(score),
        labels=[report.label for report in facts.reports],
        data=_viewer_data(facts) if facts.images else None,
        legends=_legends(facts),
        viewer=script("viewer.js"),
    )


def _charts(reports: Sequence[EvalReport]) -> Iterator[tuple[str, Markup]]:
    """Accuracy against what it costs: time, then size; each where it is known of two models or more."""
    timed = [(report, 1000 * report.latency) for report in reports if report.latency]
    alike = len({report.timed_on for report, _ in timed}) == 1
    if len(timed) > 1 and alike:
        yield f"Time for an image, on {timed[0][0].timed_on}.", _scatter(timed, "ms for an image")
    sized = [(report, report.parameters / 1e6) for report in reports if report.parameters]
    if len(sized) > 1:
        yield "Size of the model.", _scatter(sized, "million parameters")


def _scatter(costs: Sequence[tuple[EvalReport, float]], title: str) -> Markup:
    """On a scale of factors: models differ by these."""
    primary = names.metric(costs[0][0].primary)
    low, high = min(report.low for report, _ in costs), max(report.high for report, _ in costs)
    room = max(0.02, 0.12 * (high - low))
    y_ticks = svg.ticks(max(0.0, low - room), min(1.0, high + room))
    y = svg.Axis(
        title=primary, low=max(0.0, low - room), high=min(1.0, high + room), ticks=y_ticks, form="{:.3g}".format
    )
    logs = [math.log10(cost) for _, cost in costs]
    left, right = min(logs) - 0.15, max(logs) + 0.15
    x = svg.Axis(title=title, low=left, high=right, ticks=_log_ticks(left, right), form=_power)
    marks = [
        svg.Mark(name=report.label, x=log, y=report.value, low=report.low, high=report.high, is_first=not place)
        for place, ((report, _), log) in enumerate(zip(costs, logs, strict=True))
    ]
    return svg.scatter(marks, x, y, label=f"{primary} against {title} of {len(marks)} models")


def _log_ticks(left: float, right: float) -> list[float]:
    """1, 2 and 5 of every power between two logarithms; where they are close, round numbers."""
    known = [math.log10(step * 10.0**power) for power in range(-4, 7) for step in (1, 2, 5)]
    ticks = [each for each in known if left <= each <= right]
    if len(ticks) < 3:
        return [math.log10(each) for each in svg.ticks(10**left, 10**right, 4)]
    return ticks[:: max(1, len(ticks) // 6)]


def _power(log: float) -> str:
    return f"{float(f'{10**log:.3g}'):g}"  # 1000, which three digits alone would call 1e+03


def _viewer_data(facts: NightFacts) -> dict[str, Any]:
    """What the script shows."""
    known = _objects(facts.images)
    is_wide = max([len(facts.classes), *(int(each.ids_hw.max(initial=0)) for each in known)]) > 255
    return {
        "labels": [report.label for report in facts.reports],
        "classes": [named(info) for info in facts.classes],
        "wide": is_wide,
        "whole": sketched.is_whole(facts.reports[0]),
        "paints": [colour for _, colour in sketched.error_legend(objects=bool(known))],
        "images": [_image(each, facts, is_wide) for each in facts.images],
    }


def _legends(facts: NightFacts) -> list[tuple[str, list[tuple[str, Colour]]]]:
    """Titles and entries of what the viewer's colours mean; drawn pictures have legends of their own."""
    if not facts.images or facts.images[0].image_hw3 is None:
        return []
    known = _objects(facts.images)
    classes = sketched.legend(facts.classes, known, whole=sketched.is_whole(facts.reports[0]))
    return [("", classes), ("Errors:", sketched.error_legend(objects=bool(known)))]


def _objects(images: Iterable[Compared]) -> list[Sketch]:
    """The sketches that have objects."""
    every = (sketch for each in images for sketch in (each.truth, *each.maps))
    return [sketch for sketch in every if sketch is not None and sketch.objects is not None]


def _image(each: Compared, facts: NightFacts, is_wide: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": each.name, "scores": [_rounded(score) for score in each.scores]}
    if each.image_hw3 is None:
        uris, widths, heights = zip(*map(embedding.drawn, each.pictures), strict=True)
        return shown | {"pictures": uris, "width": max(widths), "height": max(heights)}
    height, width = each.image_hw3.shape[:2]
    whole = sketched.is_whole(facts.reports[0])
    colours = None if each.truth is None else sketched.colours(each.truth, facts.classes, whole=whole)
    truth = None if each.truth is None else _map(each.truth, facts.classes, is_wide, colours)
    maps = [
        _map(said, facts.classes, is_wide, sketched.colours(said, facts.classes, whole=whole, truth=colours))
        for said in each.maps
    ]
    photo = embedding.photograph(each.image_hw3)
    return shown | {"width": width, "height": height, "photo": photo, "truth": truth, "maps": maps}


def _map(
    sketch: Sketch, classes: Sequence[ClassInfo], is_wide: bool, colours: Sequence[Colour] | None
) -> dict[str, Any]:
    """A sketch as the script takes it: its ids row by row, deflated (zlib) and in base64; of a map of classes, what is
    no class is the number of classes. Objects have a class and a colour each."""
    is_map = sketch.objects is None
    ids = np.where(sketch.ids_hw < len(classes), sketch.ids_hw, len(classes)) if is_map else sketch.ids_hw
    packed = zlib.compress(ids.astype("<u2" if is_wide else "u1").tobytes(), 9)
    shown: dict[str, Any] = {"ids": base64.b64encode(packed).decode()}
    if sketch.objects is None:
        return shown
    told = {"found": sketch.objects.found, "missed": sketch.objects.missed, "false": sketch.objects.false}
    return shown | {"classes": sketch.objects.class_ids, "colours": colours, **told}


def _rounded(score: float) -> float | None:
    return round(score, 4) if math.isfinite(score) else None
