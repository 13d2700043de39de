"""What a JSON of labelme says, and the pixels of a shape. Part of `labelme`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import is_number, read_document, without_root

# labelme's own: a line is ten pixels wide, a point is a disc of radius five.
LINE_WIDTH, POINT_RADIUS = 10, 5
_NUM_POINTS = {"polygon": (3, 10**6), "rectangle": (2, 2), "circle": (2, 2), "line": (2, 2), "linestrip": (2, 10**6)}
_NUM_POINTS["point"] = (1, 1)


class Drawing(NamedTuple):
    """What a file says: its shapes as plain data, and the [height, width] that they were drawn on, if it tells."""

    shapes: Sequence[Mapping[str, Any]]
    size: list[int] | None


@functools.lru_cache(maxsize=100_000)
def parsed(root: str, path: str, stamp: str) -> Drawing | str:
    """The drawing of a file, or why it cannot be used. Asked twice: for the classes and for the index."""
    try:
        document = read_document(root, path)
    except InputError as error:
        return without_root(error, root, path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        return f"shapes is {shapes!r:.60}; expected a list: save the file with labelme again"
    found = []
    for place, shape in enumerate(shapes):
        label, kind, points = (
            shape.get(k) if isinstance(shape, dict) else None for k in ("label", "shape_type", "points")
        )
        kind = "polygon" if kind is None else kind
        low, high = _NUM_POINTS.get(kind, (1, 0)) if isinstance(kind, str) else (1, 0)
        if not isinstance(label, str) or not label or not isinstance(points, list) or not low <= len(points) <= high:
            return f"shapes[{place}] is {shape!r:.100}; expected a label and points of a {', '.join(_NUM_POINTS)}"
        if not all(_is_point(point) for point in points):
            return f"shapes[{place}].points is {points!r:.80}; expected pairs of finite numbers: draw it again"
        group = shape.get("group_id")
        found.append(
            {"label": label, "kind": kind, "points": points, "group": group if isinstance(group, int) else None}
        )
    size = [document.get("imageHeight"), document.get("imageWidth")]
    return Drawing(found, size if all(isinstance(side, int) for side in size) else None)


def paint(shape: Mapping[str, Any], height: int, width: int, where: str) -> npt.NDArray[np.bool_]:
    """The pixels (H, W) of a shape, its outline with it."""
    canvas = Image.new("L", (width, height))
    pen, kind = ImageDraw.Draw(canvas), shape["kind"]
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "polygon":
        pen.polygon(points, outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        pen.line(points, fill=1, width=LINE_WIDTH)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    else:
        (x, y), edge = points[0], points[-1]
        radius = POINT_RADIUS if kind == "point" else math.dist((x, y), edge)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    inside = np.asarray(canvas) > 0
    if not inside.any():
        raise BadSampleError("bad_annotation", where, f"no pixel of {width}x{height} is inside: draw it again")
    return inside


def _is_point(point: object) -> bool:
    if not isinstance(point, list) or len(point) != 2:
        return False
    return all(is_number(value) and abs(value) < 1e6 for value in point)
