"""One prediction as a picture: image, truth, prediction and errors beside each other, with a legend. Numpy and Pillow.

`draw` returns PNG bytes that depend on nothing but its arguments. Panels are scaled to a readable size: photographs
smoothly, label maps without mixing classes.

Legend: H W size of the image in pixels, h w size of a panel, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segpipe.errors import InputError
from segpipe.predictions import Floats
from segpipe.report.drawing import (
    Entry,
    Labels,
    Pixels,
    hatch,
    panel_size,
    png,
    resize_ids,
)
from segpipe.report.panels import check_image, compose, pale, photograph
from segpipe.types import ClassInfo

PANEL_WIDTH = 480  # and the greatest height of one
WRONG = (230, 57, 70)


def draw(
    image_HW3: Pixels,
    prediction_HW: Labels,
    labels_HW: Labels | None,
    *,
    uncertainty_HW: Floats | None = None,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    title: str,
) -> bytes:
    """A PNG of one prediction.

    `image_HW3` is uint8 RGB; `prediction_HW` and `labels_HW` hold class ids, the labels also `ignore_index`; without
    labels the truth and the errors are left out. `uncertainty_HW`, at least 0, is a panel more. Raises InputError when
    the sizes or ids do not fit together.
    """
    _check(image_HW3, prediction_HW, labels_HW, len(classes), ignore_index, title)
    if uncertainty_HW is not None and uncertainty_HW.shape != image_HW3.shape[:2]:
        raise InputError(
            f"{title}: uncertainty is {uncertainty_HW.shape}, the image {image_HW3.shape[:2]}; they must be equal"
        )
    height, width = image_HW3.shape[:2]
    size = panel_size(width, height, PANEL_WIDTH)
    shown = photograph(image_HW3, size)
    prediction_hw = resize_ids(prediction_HW, size)
    colours = np.array([info.colour for info in classes], dtype=np.uint8)
    panels = [("image", np.asarray(shown)), ("prediction", colours[prediction_hw])]
    extra: list[Entry] = []
    if labels_HW is not None:
        labels_hw = resize_ids(labels_HW, size)
        valid_HW = labels_HW != ignore_index
        num_wrong, num_valid = int(((prediction_HW != labels_HW) & valid_HW).sum()), int(valid_HW.sum())
        share = f"{100 * num_wrong / num_valid:.1f} % wrong" if num_valid else "nothing is labelled"
        panels.insert(
            1, ("truth", hatch(colours[np.where(labels_hw == ignore_index, 0, labels_hw)], labels_hw, ignore_index))
        )
        panels.append((f"errors: {share}", error_map(shown, prediction_hw, labels_hw, ignore_index)))
        panels[2] = ("prediction (IoU of each class below)", panels[2][1])
        extra = [("wrong", WRONG)] + ([("not labelled", None)] if num_valid < labels_HW.size else [])
    if uncertainty_HW is not None:
        panels.append((f"uncertainty: black 0, white {uncertainty_HW.max():.2g}", _glow(uncertainty_HW, size)))
    entries = [*_present(prediction_HW, labels_HW, classes, ignore_index), *extra]
    return png(compose(panels, entries, f"{title}   {width} x {height}"))


def _check(
    image_HW3: Pixels, prediction_HW: Labels, labels_HW: Labels | None, num_classes: int, ignore_index: int, title: str
) -> None:
    check_image(image_HW3, title)
    for what, ids_HW in (("prediction", prediction_HW), ("truth", labels_HW)):
        if ids_HW is None:
            continue
        if ids_HW.shape != image_HW3.shape[:2]:
            raise InputError(f"{title}: {what} is {ids_HW.shape}, the image {image_HW3.shape[:2]}; they must be equal")
        counted = ids_HW[ids_HW != ignore_index] if what == "truth" else ids_HW
        if counted.size and not 0 <= int(counted.min()) <= int(counted.max()) < num_classes:
            bad = int(counted.max() if counted.max() >= num_classes else counted.min())
            raise InputError(f"{title}: {what} holds {bad}; expected class ids 0 to {num_classes - 1}")


def error_map(shown: Image.Image, prediction_hw: Labels, labels_hw: Labels, ignore_index: int) -> Pixels:
    """The photograph in pale grey, wrong pixels in red."""
    grey_hw3 = np.asarray(shown.convert("L").convert("RGB"), dtype=np.float32)
    wrong_hw = (prediction_hw != labels_hw) & (labels_hw != ignore_index)
    errors_hw3 = pale(shown)
    errors_hw3[wrong_hw] = (0.85 * np.array(WRONG) + 0.15 * grey_hw3[wrong_hw]).astype(np.uint8)
    return hatch(errors_hw3, labels_hw, ignore_index)


def _glow(values_HW: Floats, size: tuple[int, int]) -> Pixels:
    """Values at least 0 at the `size` (w, h) of a panel, from black by red and yellow to white, which is the greatest.

    A pixel that shows several shows their mean: of an uncertain edge, thinner than a pixel, something must be left.
    """
    greatest = float(values_HW.max())
    shares_HW = (values_HW / greatest if greatest > 0 else values_HW).astype(np.float32)
    smooth = size[0] <= values_HW.shape[1]
    shown = Image.fromarray(shares_HW).resize(size, Image.Resampling.BOX if smooth else Image.Resampling.NEAREST)
    glow_hw3 = 3 * np.asarray(shown)[..., None] - np.arange(3)
    return (255 * glow_hw3.clip(0, 1)).astype(np.uint8)


def _present(
    prediction_HW: Labels, labels_HW: Labels | None, classes: Sequence[ClassInfo], ignore_index: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """The legend: classes of the truth or the prediction, in class order, with this image's IoU."""
    entries = []
    for k, info in enumerate(classes):
        predicted_HW = prediction_HW == k
        if labels_HW is None:
            if predicted_HW.any():
                entries.append((info.name, info.colour))
            continue
        truth_HW = labels_HW == k
        union = int(((predicted_HW & (labels_HW != ignore_index)) | truth_HW).sum())
        if union:
            entries.append((f"{info.name} {int((predicted_HW & truth_HW).sum()) / union:.2f}", info.colour))
    return entries
