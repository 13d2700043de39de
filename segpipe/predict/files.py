"""A prediction as PNG files: masks whose pixels are class ids, overlays, numbered objects, cut-outs of one class.

All are of the image's own size, but for cut-outs, which end where their class does. They show every object that they
are given: `predictions.surest` leaves out the doubts. Bytes depend on nothing but the arguments.

Legend: N objects, H W size of the image in pixels, h w size of a cut-out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe import masks
from segpipe.errors import InputError
from segpipe.predictions import Detections, Integers, LabelMap, PanopticMap, Prediction, class_map
from segpipe.report import overlays
from segpipe.report.drawing import png
from segpipe.types import ClassInfo

Pixels = npt.NDArray[np.uint8]
PALETTE_COLOURS = 256  # of a PNG


def mask(prediction: Prediction, *, classes: Sequence[ClassInfo], grey: bool = False) -> bytes:
    """Class ids of every pixel as PNG: indices of a palette of the classes' colours, or `grey`.

    Grey has 16 bits from 256 classes on. Of a panoptic map a pixel of which nothing is said, and of objects one where
    none lies, is the number of classes, in white. Raises as `check_colours`, of which grey has no need.
    """
    ids_HW = class_ids(prediction, len(classes))
    if grey:
        return masks.encode_ids(ids_HW.astype(masks.ids_type(len(classes))), None)
    check_colours(len(classes), everywhere=isinstance(prediction, LabelMap))
    return masks.encode_ids(ids_HW.astype(np.uint8), [info.colour for info in classes])


def check_colours(num_classes: int, *, everywhere: bool) -> None:
    """Raises InputError where a mask has more ids than a PNG's palette: one a class and, unless the model says a class
    `everywhere`, one of nothing."""
    if num_classes + (not everywhere) > PALETTE_COLOURS:
        ids = f"{num_classes} classes" if everywhere else f"{num_classes} classes and nothing"
        raise InputError(
            f"{ids} are more than the palette of a PNG holds, which are {PALETTE_COLOURS} colours; choose 'grey' for "
            "masks of ids without colours"
        )


def overlay(image_HW3: Pixels, prediction: Prediction, *, classes: Sequence[ClassInfo]) -> bytes:
    """What was found, drawn over the image: classes in their colours, objects with contours and names."""
    drawn_HW3 = overlays.draw(image_HW3, prediction, classes=classes)
    return masks.encode_png(drawn_HW3, quickly=True)  # a tenth larger, in a third of the time


def instances(prediction: Prediction) -> bytes:
    """The number of the object at each pixel, from 1 on, as PNG of 16 bits; 0 is none.

    Objects of detections are numbered as they come, the best first, which also lies on top; segments of a panoptic map
    by their ids. Raises InputError for another prediction, and above 65,535 objects.
    """
    numbers_HW = _numbers(prediction)
    if numbers_HW.max(initial=0) > np.iinfo(np.uint16).max:
        raise InputError(f"an object has number {int(numbers_HW.max())}; a PNG of 16 bits holds 65535")
    return masks.encode_png(numbers_HW.astype(np.uint16))


def cutout(image_HW3: Pixels, prediction: Prediction, class_id: int) -> tuple[tuple[int, int, int, int], bytes] | None:
    """(x0, y0, x1, y1) of what a class fills, and that part of the image as PNG with an alpha channel that is 0 outside
    the class; None where there is nothing of it."""
    inside_HW = class_mask(prediction, class_id)
    rows, columns = np.flatnonzero(inside_HW.any(axis=1)), np.flatnonzero(inside_HW.any(axis=0))
    if not rows.size:
        return None
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    part_hw = inside_HW[top:bottom, left:right]
    alpha_hw1 = np.where(part_hw, 255, 0).astype(np.uint8)[..., None]
    # What is outside is black, too: who drops the alpha channel must not find the whole photograph below.
    cut_hw4 = np.concatenate([image_HW3[top:bottom, left:right] * part_hw[..., None], alpha_hw1], axis=2)
    return (left, top, right, bottom), png(Image.fromarray(cut_hw4))


def counts(prediction: Prediction, classes: Sequence[ClassInfo]) -> dict[str, int]:
    """By the name of each class that was found: its pixels in a map, or its objects."""
    if isinstance(prediction, LabelMap | PanopticMap):
        found_K = np.bincount(class_ids(prediction, len(classes)).ravel(), minlength=len(classes))
    else:
        found_K = np.bincount(prediction.class_ids_N, minlength=len(classes))
    return {info.name: int(found) for info, found in zip(classes, found_K, strict=False) if found}


def class_mask(prediction: Prediction, class_id: int) -> npt.NDArray[np.bool_]:
    """(H, W) which pixels a class fills."""
    if isinstance(prediction, LabelMap):
        inside_HW: npt.NDArray[np.bool_] = prediction.ids_HW == class_id
        return inside_HW
    if isinstance(prediction, PanopticMap):
        own = [segment.segment_id for segment in prediction.segments if segment.class_id == class_id]
        return np.isin(prediction.ids_HW, own)
    found = _with_masks(prediction)
    inside_HW = np.zeros(found.size, dtype=np.bool_)
    for rle, k in zip(found.masks or (), found.class_ids_N, strict=True):
        if k == class_id:
            inside_HW |= masks.decode_rle(rle, *found.size).astype(np.bool_)
    return inside_HW


def class_ids(prediction: Prediction, num_classes: int) -> npt.NDArray[np.integer]:
    """(H, W) the class of every pixel, `num_classes` where nothing is said or no object lies. Raises InputError for
    what tells no pixels."""
    if isinstance(prediction, LabelMap):
        return prediction.ids_HW
    if isinstance(prediction, PanopticMap):
        return class_map(prediction, nothing=num_classes)
    found = _with_masks(prediction)
    ids_HW: Integers = np.append(found.class_ids_N, num_classes)[_numbers(found) - 1]  # 0 means the last one
    return ids_HW


def _numbers(prediction: Prediction) -> npt.NDArray[np.integer]:
    if isinstance(prediction, PanopticMap):
        return prediction.ids_HW
    found = _with_masks(prediction)
    numbers_HW = np.zeros(found.size, dtype=np.int64)
    for n in reversed(range(len(found))):
        numbers_HW[masks.decode_rle((found.masks or ())[n], *found.size) > 0] = n + 1
    return numbers_HW


def _with_masks(prediction: Prediction) -> Detections:
    """Raises InputError for what has no masks."""
    if isinstance(prediction, Detections) and prediction.masks is not None:
        return prediction
    raise InputError(f"a {type(prediction).__name__} without masks tells no pixels; ask for overlays or coco instead")
