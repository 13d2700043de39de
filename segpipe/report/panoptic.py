"""A panoptic map as a picture: image, truth, prediction, and the pixels of what was missed, invented or misplaced.

`draw` returns PNG bytes that depend on nothing but its arguments. Segments match as panoptic quality has it.

Legend: H W size of the image in pixels, h w size of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segpipe.errors import InputError
from segpipe.metrics.segments import VOID
from segpipe.predictions import PanopticMap
from segpipe.report import mistakes
from segpipe.report.drawing import Entry, Pixels, edges, hatch, panel_size, png, resize_ids
from segpipe.report.objects import colours_of, patches_of_map, shade, write_labels
from segpipe.report.panels import check_image, compose, photograph
from segpipe.sketches import numbered, segments_of
from segpipe.types import ClassInfo

PANEL_WIDTH = 640  # and the greatest height of one
BORDER = (255, 255, 255)
_OPACITY = 0.6


def draw(
    image_HW3: Pixels,
    prediction: PanopticMap,
    truth: PanopticMap | None,
    *,
    classes: Sequence[ClassInfo],
    title: str,
) -> bytes:
    """A PNG of one prediction.

    `image_HW3` is uint8 RGB; without a truth it and the errors are left out. Raises InputError when sizes, ids or
    segments do not fit together.
    """
    check_image(image_HW3, title)
    for what, found in (("prediction", prediction), ("truth", truth)):
        if found is not None:
            _check(found, image_HW3.shape[:2], len(classes), f"{title}: {what}")
    height, width = image_HW3.shape[:2]
    size = panel_size(width, height, PANEL_WIDTH)
    shown = photograph(image_HW3, size)
    panels = [
        ("image", np.asarray(shown)),
        (f"prediction: {_counts(prediction, classes)}", over(shown, prediction, classes)),
    ]
    entries = _present(classes, prediction, truth)
    hatched = ["nothing said"] * bool((prediction.ids_HW == VOID).any())
    if truth is not None:
        said = segments_of(prediction, truth, num_classes=len(classes), what=title)
        panels.insert(1, (f"truth: {_counts(truth, classes)}", over(shown, truth, classes)))
        true_hw, said_hw = (numbered(resize_ids(each.ids_HW, size), each) for each in (truth, prediction))
        caption = f"errors: {len(said.found)} found, {len(said.missed)} missed, {len(said.false)} false"
        panels.append((caption, mistakes.paint(shown, true_hw, said_hw, said, is_whole=True)))
        entries += mistakes.NAMES.items()
        hatched += ["not labelled"] * bool((truth.ids_HW == VOID).any())
        hatched += ["a crowd"] * any(segment.is_crowd for segment in truth.segments)
    if hatched:
        entries.append((" or ".join(hatched), None))
    return png(compose(panels, entries, f"{title}   {width} x {height}"))


def _check(found: PanopticMap, size: tuple[int, int], num_classes: int, what: str) -> None:
    if found.ids_HW.shape != tuple(size):
        raise InputError(f"{what} is of {found.ids_HW.shape}, the image of {tuple(size)}; they must be equal")
    for segment in found.segments:
        if not 0 <= segment.class_id < num_classes:
            raise InputError(
                f"{what}: segment {segment.segment_id} is of class {segment.class_id}; expected 0 to {num_classes - 1}"
            )
    named, drawn = {segment.segment_id for segment in found.segments}, set(np.unique(found.ids_HW).tolist())
    if odd := sorted((drawn ^ named) - {VOID}):
        raise InputError(f"{what}: segment {odd[0]} is in its map or among its segments, and not in both")


def _counts(found: PanopticMap, classes: Sequence[ClassInfo]) -> str:
    things = sum(classes[segment.class_id].is_thing for segment in found.segments)
    stuff = len(found.segments) - things
    return f"{things} thing{'' if things == 1 else 's'}, {stuff} of stuff"


def over(shown: Image.Image, found: PanopticMap, classes: Sequence[ClassInfo]) -> Pixels:
    """The segments over the photograph in grey: stuff in the colour of its class, each thing in a shade of it, a line
    between any two, the names of those that have room for one. Where nothing is said, it is hatched."""
    numbers_hw = numbered(resize_ids(found.ids_HW, shown.size), found)
    class_ids = [segment.class_id for segment in found.segments]
    patches = patches_of_map(numbers_hw, range(1, len(class_ids) + 1))
    colours = colours_of(patches, class_ids, classes, by_object=False)
    flat_hw3 = np.array([(0, 0, 0), *colours], dtype=np.float64)[numbers_hw]
    grey_hw3 = np.asarray(shown.convert("L").convert("RGB"), dtype=np.float64)
    mixed_hw3 = ((1 - _OPACITY) * grey_hw3 + _OPACITY * flat_hw3).round().astype(np.uint8)
    picture_hw3 = hatch(mixed_hw3, numbers_hw, VOID)
    picture_hw3[edges(numbers_hw)] = BORDER
    drawn = Image.fromarray(picture_hw3)
    names = [classes[segment.class_id].name + " (crowd)" * segment.is_crowd for segment in found.segments]
    write_labels(
        ImageDraw.Draw(drawn), sorted(zip(patches, names, strict=True), key=lambda each: -each[0].inside_hw.size)
    )
    return np.asarray(drawn)


def _present(classes: Sequence[ClassInfo], *found: PanopticMap | None) -> list[Entry]:
    """The legend: classes that occur, things with the colour that theirs are shades of."""
    present = {segment.class_id for each in found if each is not None for segment in each.segments}
    return [
        (classes[k].name, shade(classes[k].colour, 0) if classes[k].is_thing else classes[k].colour)
        for k in sorted(present)
    ]
