"""Keypoints as a picture: image, truth, prediction, and how far each keypoint lies from where it should. Pillow.

`draw` returns PNG bytes that depend on nothing but its arguments. With 17 keypoints they are COCO's, and drawn as a
person's limbs; other sets are dots, each of its own colour until these begin again. A keypoint that a model hardly sees
(below `DOUBT`) is left out.

Legend: N objects, P keypoints, H W size of the image in pixels, h w size of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segpipe.errors import InputError
from segpipe.metrics import pck
from segpipe.metrics.keypoints import COCO_JOINTS, DECIDING, DOUBT, THRESHOLDS
from segpipe.predictions import Floats, Poses
from segpipe.report.drawing import INK, PAPER, Entry, Pixels, panel_size, png
from segpipe.report.objects import FOUND, MISSED, OBJECT_COLOURS, Colour
from segpipe.report.panels import check_image, compose, pale, photograph
from segpipe.types import ClassInfo

PANEL_WIDTH = 640  # and the greatest height of one
ALPHA = THRESHOLDS[DECIDING]  # of the longer side of the box: as far off as a keypoint may be
BOX = (225, 229, 234)
# COCO's edges, by the side of the person that they are of: left, right, and between.
LIMBS: dict[Colour, tuple[tuple[int, int], ...]] = {
    (66, 165, 245): ((5, 7), (7, 9), (11, 13), (13, 15), (0, 1), (1, 3), (3, 5)),
    (255, 160, 60): ((6, 8), (8, 10), (12, 14), (14, 16), (0, 2), (2, 4), (4, 6)),
    (190, 120, 240): ((5, 6), (11, 12), (5, 11), (6, 12), (1, 2)),
}
SIDES = ("left", "right", "between")


def draw(
    image_HW3: Pixels, prediction: Poses, truth: Poses | None, *, classes: Sequence[ClassInfo], title: str
) -> bytes:
    """A PNG of one prediction; without a truth it and the distances are left out.

    `image_HW3` is uint8 RGB. Raises InputError when sizes, ids or lengths do not fit together.
    """
    check_image(image_HW3, title)
    for what, found in (("prediction", prediction), ("truth", truth)):
        if found is not None:
            _check(found, image_HW3.shape[:2], len(classes), f"{title}: {what}")
    height, width = image_HW3.shape[:2]
    size = panel_size(width, height, PANEL_WIDTH)
    scale = size[0] / width
    shown = photograph(image_HW3, size)
    panels = [
        ("image", np.asarray(shown)),
        (f"prediction: {_count(prediction)}", over(shown, prediction, scale, least=DOUBT)),
    ]
    persons = prediction.points_NP3.shape[1] == COCO_JOINTS
    if persons:
        entries: list[Entry] = [(side, colour) for side, colour in zip(SIDES, LIMBS, strict=True)]
    else:
        entries = [
            (f"keypoint {p}", OBJECT_COLOURS[p])
            for p in range(min(prediction.points_NP3.shape[1], len(OBJECT_COLOURS)))
        ]
    if truth is not None:
        panels.insert(1, (f"truth: {_count(truth)}", over(shown, truth, scale, least=0)))
        if len(truth) == len(prediction):
            panels.append(_distances(shown, prediction, truth, scale))
            entries += [(f"within {ALPHA:g} of the box", FOUND), ("further off", MISSED)]
    return png(compose(panels, entries, f"{title}   {width} x {height}"))


def _check(found: Poses, size: tuple[int, int], num_classes: int, what: str) -> None:
    if tuple(found.size) != tuple(size):
        raise InputError(f"{what} is of {tuple(found.size)}, the image of {tuple(size)}; they must be equal")
    shapes = (found.scores_N.shape, found.boxes_N4.shape, found.points_NP3.shape[::2])
    if shapes != ((len(found),), (len(found), 4), (len(found), 3)):
        raise InputError(f"{what} has {len(found)} class ids, and scores, boxes and points of {shapes}; they must fit")
    if any(not 0 <= k < num_classes for k in found.class_ids_N.tolist()):
        raise InputError(
            f"{what} holds classes {sorted(set(found.class_ids_N.tolist()))}; expected 0 to {num_classes - 1}"
        )
    if not np.isfinite(found.points_NP3).all() or not np.isfinite(found.boxes_N4).all():
        raise InputError(f"{what} holds points or boxes that are no finite numbers")


def _count(found: Poses) -> str:
    return f"{len(found)} object{'' if len(found) == 1 else 's'}"


def over(shown: Image.Image, found: Poses, scale: float, *, least: float) -> Pixels:
    """The photograph in grey with boxes, limbs and dots; a hidden keypoint of a truth is a ring."""
    picture = shown.convert("L").convert("RGB")
    pen = ImageDraw.Draw(picture)
    for box in found.boxes_N4:
        pen.rectangle([v * scale for v in _ordered(box)], outline=BOX)
    thick = _thickness(found, scale)
    for points_P3 in found.points_NP3:
        places = (points_P3[:, :2] + 0.5) * scale
        seen = points_P3[:, 2] > least
        if len(points_P3) == COCO_JOINTS:
            for colour, edges in LIMBS.items():
                for a, b in edges:
                    if seen[a] and seen[b]:
                        pen.line([*places[a], *places[b]], colour, width=thick)
        for p in np.flatnonzero(seen):
            jointed = len(points_P3) == COCO_JOINTS
            colour = PAPER if jointed else OBJECT_COLOURS[p % len(OBJECT_COLOURS)]
            hidden = least == 0 and points_P3[p, 2] == 1
            radius = thick if jointed else thick + 2
            _dot(pen, places[p], radius, None if hidden else colour, colour if hidden else INK)
    return np.asarray(picture)


def _distances(shown: Image.Image, prediction: Poses, truth: Poses, scale: float) -> tuple[str, Pixels]:
    """The photograph in pale grey, and from each labelled keypoint a line to where it was said to be."""
    picture = Image.fromarray(pale(shown))
    pen, thick = ImageDraw.Draw(picture), _thickness(truth, scale)
    num_points = min(truth.points_NP3.shape[1], prediction.points_NP3.shape[1])
    truths_NP3, points_NP2 = truth.points_NP3[:, :num_points], prediction.points_NP3[:, :num_points, :2]
    lengths_N = (truth.boxes_N4[:, 2:] - truth.boxes_N4[:, :2]).max(axis=1, initial=1)
    counted = pck(points_NP2, truths_NP3, lengths_N, alpha=ALPHA)
    for n, p in np.argwhere(counted["labelled"]):
        colour = FOUND if counted["correct"][n, p] else MISSED
        start, end = ((each + 0.5) * scale for each in (truths_NP3[n, p, :2], points_NP2[n, p]))
        pen.line([*start, *end], colour, width=max(1, thick // 2))
        _dot(pen, end, max(2, thick // 2), colour, colour)
    right, labelled = int(counted["correct"].sum()), int(counted["labelled"].sum())
    return f"{right} of {labelled} within {ALPHA:g} of the box", np.asarray(picture)


def _dot(pen: ImageDraw.ImageDraw, place: Floats, radius: float, fill: Colour | None, outline: Colour) -> None:
    x, y = place
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill, outline)


def _thickness(found: Poses, scale: float) -> int:
    """Of lines, in pixels of a panel: thinner where objects are small."""
    if not len(found):
        return 2
    longest = float(np.median((found.boxes_N4[:, 2:] - found.boxes_N4[:, :2]).max(axis=1))) * scale
    return int(np.clip(longest / 60, 1, 4))


def _ordered(box: Floats) -> list[float]:
    x0, y0, x1, y1 = box.tolist()
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
