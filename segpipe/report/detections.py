"""Detected objects as a picture: image, truth, prediction, and what was found, missed and invented. Numpy and Pillow.

`draw` returns PNG bytes that depend on nothing but its arguments. A detector lists its doubts, too: what it gives a
score below `SURE_SCORE` is counted in a caption and neither drawn nor matched.

Legend: N objects, H W size of the image in pixels, h w size of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segpipe.errors import InputError
from segpipe.metrics.matching import MATCH_IOU, matches
from segpipe.predictions import SURE_SCORE, Detections, surest
from segpipe.report.drawing import Entry, Pixels, panel_size, png
from segpipe.report.objects import (
    FALSE,
    FOUND,
    MISSED,
    Patch,
    contour,
    fill,
    one_class,
    patches_of,
    shade,
    tints,
    write_labels,
)
from segpipe.report.panels import check_image, compose, pale, photograph
from segpipe.types import ClassInfo

PANEL_WIDTH = 640  # and the greatest height of one: more than a label map has, since a nucleus is small
_OPACITY, _FAINT_OPACITY = 0.55, 0.3
_MOST_LABELLED = 40


def draw(
    image_HW3: Pixels,
    prediction: Detections,
    truth: Detections | None,
    *,
    classes: Sequence[ClassInfo],
    title: str,
) -> bytes:
    """A PNG of one prediction.

    `image_HW3` is uint8 RGB; without a truth it and the matches are left out. Raises InputError when sizes, ids or
    lengths do not fit together, and where a mask does not decode.
    """
    check_image(image_HW3, title)
    for what, found in (("prediction", prediction), ("truth", truth)):
        if found is not None:
            _check(found, image_HW3.shape[:2], len(classes), f"{title}: {what}")
    height, width = image_HW3.shape[:2]
    size = panel_size(width, height, PANEL_WIDTH)
    shown = photograph(image_HW3, size)
    drawn = surest(prediction, SURE_SCORE)
    patches = patches_of(drawn, size, what=f"{title}: prediction")
    panels = [
        ("image", np.asarray(shown)),
        (_caption(prediction, drawn), over(shown, drawn, patches, classes, scores=True)),
    ]
    entries: list[Entry] = _present(classes, drawn, truth)
    if truth is not None:
        true_patches = patches_of(truth, size, what=f"{title}: truth")
        caption = f"truth: {_count(len(truth), 'object')}"
        panels.insert(1, (caption, over(shown, truth, true_patches, classes, scores=False)))
        panels.append(_matched(shown, drawn, truth, patches, true_patches))
        entries += [("found", FOUND), ("missed", MISSED), ("false", FALSE)]
    return png(compose(panels, entries, f"{title}   {width} x {height}"))


def _check(found: Detections, size: tuple[int, int], num_classes: int, what: str) -> None:
    if tuple(found.size) != tuple(size):
        raise InputError(f"{what} is of {tuple(found.size)}, the image of {tuple(size)}; they must be equal")
    lengths = {
        "scores": found.scores_N.shape,
        "boxes": found.boxes_N4.shape[:1],
        "masks": (len(found.class_ids_N if found.masks is None else found.masks),),
    }
    for name, shape in lengths.items():
        if shape != (len(found),):
            raise InputError(f"{what} has {len(found)} class ids and {name} of {shape}; expected as many of each")
    if len(found) and not 0 <= int(found.class_ids_N.min()) <= int(found.class_ids_N.max()) < num_classes:
        bad = next(int(k) for k in found.class_ids_N if not 0 <= k < num_classes)
        raise InputError(f"{what} holds class {bad}; expected class ids 0 to {num_classes - 1}")
    if not np.isfinite(found.scores_N).all() or not np.isfinite(found.boxes_N4).all():
        raise InputError(f"{what} holds scores or boxes that are no finite numbers")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _caption(prediction: Detections, drawn: Detections) -> str:
    left_out = len(prediction) - len(drawn)
    if not left_out:
        return f"prediction: {_count(len(drawn), 'object')}"
    if not len(drawn):
        return f"prediction: none of {len(prediction)} scores {SURE_SCORE}; the best {prediction.scores_N.max():.2f}"
    return f"prediction: {_count(len(drawn), 'object')} (and {left_out} of scores below {SURE_SCORE})"


def over(
    shown: Image.Image, found: Detections, patches: Sequence[Patch], classes: Sequence[ClassInfo], *, scores: bool
) -> Pixels:
    """The photograph in grey with each object in its tint, large ones below small ones; in a detector of boxes, the
    boxes. Where there are not too many, each says its class (if the set has several) and its score."""
    picture_hw3 = np.array(shown.convert("L").convert("RGB"))
    colours = tints(patches, found.class_ids_N, classes, by_object=one_class(classes))
    for n in sorted(range(len(patches)), key=lambda n: -patches[n].inside_hw.size):
        if found.masks is not None:
            fill(picture_hw3, patches[n], colours[n], _OPACITY)
        contour(picture_hw3, patches[n], colours[n], thickness=1 if found.masks is not None else 2)
    drawn = Image.fromarray(picture_hw3)
    if len(found) <= _MOST_LABELLED:
        texts = [
            " ".join([classes[k].name] * (not one_class(classes)) + [f"{score:.2f}"] * scores)
            for k, score in zip(found.class_ids_N, found.scores_N, strict=True)
        ]
        write_labels(ImageDraw.Draw(drawn), [(p, text) for p, text in zip(patches, texts, strict=True) if text])
    return np.asarray(drawn)


def _matched(
    shown: Image.Image,
    drawn: Detections,
    truth: Detections,
    patches: Sequence[Patch],
    true_patches: Sequence[Patch],
) -> tuple[str, Pixels]:
    """The photograph in pale grey: contours of what was found, what was missed (of the truth) and what is false."""
    taken = matches(drawn, truth).tolist()
    missed = [patch for m, patch in enumerate(true_patches) if m not in taken]
    false = [patch for patch, m in zip(patches, taken, strict=True) if m < 0]
    found = [patch for patch, m in zip(patches, taken, strict=True) if m >= 0]
    picture_hw3 = pale(shown)
    if drawn.masks is not None and truth.masks is not None:
        for patch, colour in (*((patch, MISSED) for patch in missed), *((patch, FALSE) for patch in false)):
            fill(picture_hw3, patch, colour, _FAINT_OPACITY)
    # All contours above all fills: what is wrong must not be hidden by what lies beside it.
    for kind, colour in ((found, FOUND), (missed, MISSED), (false, FALSE)):
        for patch in kind:
            contour(picture_hw3, patch, colour, thickness=2)
    caption = f"at IoU {MATCH_IOU}: {len(found)} found, {len(missed)} missed, {len(false)} false"
    return caption, picture_hw3


def _present(classes: Sequence[ClassInfo], *found: Detections | None) -> list[Entry]:
    """The legend: classes that occur, with the colours that their objects are shades of; nothing where colours tell
    objects apart and not classes."""
    if one_class(classes):
        return []
    present = {int(k) for each in found if each is not None for k in each.class_ids_N}
    return [(classes[k].name, shade(classes[k].colour, 0)) for k in sorted(present)]
