"""A panoptic map as a picture: image, truth, prediction, and the pixels of what was missed, invented or misplaced.

`draw` returns PNG bytes that depend on nothing but its arguments. Segments match as panoptic quality has it.

Legend: H W size of the image in pixels, h w size of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segpipe.errors import InputError
from segpipe.metrics.segments import VOID, SegmentMatches
from segpipe.predictions import PanopticMap
from segpipe.report.drawing import Entry, Labels, Pixels, edges, hatch, panel_size, png, resize_ids
from segpipe.report.matching import segment_matches
from segpipe.report.objects import (
    FALSE,
    FOUND,
    MISSED,
    Colour,
    contour,
    patches_of_map,
    shade,
    tints,
    write_labels,
)
from segpipe.report.panels import check_image, compose, pale, photograph
from segpipe.types import ClassInfo

PANEL_WIDTH = 640  # and the greatest height of one
MISPLACED = (112, 92, 214)
BORDER = (255, 255, 255)
_OPACITY, _ERROR_OPACITY = 0.6, 0.7


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
        matches = segment_matches(prediction, truth, num_classes=len(classes), what=title)
        panels.insert(1, (f"truth: {_counts(truth, classes)}", over(shown, truth, classes)))
        caption = f"errors: {len(matches.ious)} found, {len(matches.missed)} missed, {len(matches.spurious)} false"
        panels.append((caption, _errors(shown, prediction, truth, matches)))
        entries += [("found", FOUND), ("missed", MISSED), ("false", FALSE), ("pixels of another one found", MISPLACED)]
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
    ids_hw = resize_ids(found.ids_HW, shown.size)
    patches = patches_of_map(ids_hw, [segment.segment_id for segment in found.segments])
    kinds = [classes[segment.class_id] for segment in found.segments]
    things = [n for n, info in enumerate(kinds) if info.is_thing]
    colours: list[Colour] = [info.colour for info in kinds]
    class_ids = np.array([found.segments[n].class_id for n in things], dtype=np.int64)
    for n, tint in zip(things, tints([patches[n] for n in things], class_ids, classes, by_object=False), strict=True):
        colours[n] = tint
    # A table of colours by segment id would be as long as the largest id, and COCO's have 24 bits.
    order = np.argsort([segment.segment_id for segment in found.segments])
    sorted_ids = np.array([VOID, *(found.segments[n].segment_id for n in order)])
    table = np.array([(0, 0, 0), *(colours[n] for n in order)], dtype=np.float64)
    flat_hw3 = table[np.searchsorted(sorted_ids, ids_hw)]
    grey_hw3 = np.asarray(shown.convert("L").convert("RGB"), dtype=np.float64)
    mixed_hw3 = ((1 - _OPACITY) * grey_hw3 + _OPACITY * flat_hw3).round().astype(np.uint8)
    picture_hw3 = hatch(mixed_hw3, ids_hw, VOID)
    picture_hw3[edges(ids_hw)] = BORDER
    drawn = Image.fromarray(picture_hw3)
    names = [info.name + (" (crowd)" if s.is_crowd else "") for info, s in zip(kinds, found.segments, strict=True)]
    write_labels(
        ImageDraw.Draw(drawn), sorted(zip(patches, names, strict=True), key=lambda each: -each[0].inside_hw.size)
    )
    return np.asarray(drawn)


def _errors(shown: Image.Image, prediction: PanopticMap, truth: PanopticMap, matches: SegmentMatches) -> Pixels:
    """The photograph in pale grey: what was missed, what is false (in stripes where it is both), what belongs to
    another segment that was found, too; contours of what was found. Void and crowds of the truth are hatched."""
    true_hw, ids_hw = resize_ids(truth.ids_HW, shown.size), resize_ids(prediction.ids_HW, shown.size)
    missed_hw, false_hw = np.isin(true_hw, matches.missed), np.isin(ids_hw, matches.spurious)
    uncounted = [VOID, *(t for t, is_crowd in matches.true.crowd.items() if is_crowd)]
    uncounted_hw = np.isin(true_hw, uncounted)
    right_hw = _together(true_hw, ids_hw, list(matches.ious))
    picture_hw3 = pale(shown)
    rows, columns = np.indices(true_hw.shape)
    stripe_hw = ((rows + columns) // 6) % 2 == 0
    for inside_hw, colour in (
        (~right_hw & ~missed_hw & ~false_hw, MISPLACED),
        (missed_hw & ~(false_hw & stripe_hw), MISSED),
        (false_hw & ~(missed_hw & ~stripe_hw), FALSE),
    ):
        part = picture_hw3[inside_hw]
        picture_hw3[inside_hw] = ((1 - _ERROR_OPACITY) * part + _ERROR_OPACITY * np.array(colour)).round()
    picture_hw3 = hatch(picture_hw3, np.where(uncounted_hw, VOID, 1), VOID)
    for patch in patches_of_map(ids_hw, [predicted for _, predicted in matches.ious]):
        contour(picture_hw3, patch, FOUND)
    return picture_hw3


def _together(true_hw: Labels, ids_hw: Labels, pairs: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Where truth and prediction are segments that match."""
    right_hw = np.zeros(true_hw.shape, dtype=bool)
    for patch, (_, id_) in zip(patches_of_map(true_hw, [t for t, _ in pairs]), pairs, strict=True):
        right_hw[patch.place] |= patch.inside_hw & (ids_hw[patch.place] == id_)
    return right_hw


def _present(classes: Sequence[ClassInfo], *found: PanopticMap | None) -> list[Entry]:
    """The legend: classes that occur, things with the colour that theirs are shades of."""
    present = {segment.class_id for each in found if each is not None for segment in each.segments}
    return [
        (classes[k].name, shade(classes[k].colour, 0) if classes[k].is_thing else classes[k].colour)
        for k in sorted(present)
    ]
