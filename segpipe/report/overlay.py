"""One prediction as a picture: image, truth, prediction and errors beside each other, with a legend. Numpy and Pillow.

`draw` returns PNG bytes that depend on nothing but its arguments. Panels are scaled to a readable size: photographs
smoothly, label maps without mixing classes.

Legend: H W size of the image in pixels, h w size of a panel, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segpipe.errors import InputError
from segpipe.report.drawing import (
    FAINT_INK,
    GAP,
    INK,
    MARGIN,
    PAPER,
    TEXT_SIZE,
    TITLE_SIZE,
    Entry,
    Labels,
    Pixels,
    draw_legend_row,
    fit,
    font,
    hatch,
    legend_rows,
    panel_size,
    png,
    resize_ids,
)
from segpipe.types import ClassInfo

PANEL_WIDTH = 480  # and the greatest height of one
# MLflow shows pictures in narrow frames, where a row of four wide panels shrinks to stamps.
COLUMNS_WIDE, COLUMNS_TALL = 2, 4
WRONG = (230, 57, 70)


def draw(
    image_HW3: Pixels,
    prediction_HW: Labels,
    labels_HW: Labels | None,
    *,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    title: str,
) -> bytes:
    """A PNG of one prediction.

    `image_HW3` is uint8 RGB; `prediction_HW` and `labels_HW` hold class ids, the labels also `ignore_index`; without
    labels the truth and the errors are left out. Raises InputError when the sizes or ids do not fit together.
    """
    _check(image_HW3, prediction_HW, labels_HW, len(classes), ignore_index, title)
    height, width = image_HW3.shape[:2]
    size = panel_size(width, height, PANEL_WIDTH)
    photograph = Image.fromarray(image_HW3).resize(
        size, Image.Resampling.NEAREST if size[0] > width else Image.Resampling.LANCZOS
    )
    prediction_hw = resize_ids(prediction_HW, size)
    colours = np.array([info.colour for info in classes], dtype=np.uint8)
    panels = [("image", np.asarray(photograph)), ("prediction", colours[prediction_hw])]
    extra: list[Entry] = []
    if labels_HW is not None:
        labels_hw = resize_ids(labels_HW, size)
        valid_HW = labels_HW != ignore_index
        num_wrong, num_valid = int(((prediction_HW != labels_HW) & valid_HW).sum()), int(valid_HW.sum())
        share = f"{100 * num_wrong / num_valid:.1f} % wrong" if num_valid else "nothing is labelled"
        panels.insert(
            1, ("truth", hatch(colours[np.where(labels_hw == ignore_index, 0, labels_hw)], labels_hw, ignore_index))
        )
        panels.append((f"errors: {share}", _errors(photograph, prediction_hw, labels_hw, ignore_index)))
        panels[2] = ("prediction (IoU of each class below)", panels[2][1])
        extra = [("wrong", WRONG)] + ([("not labelled", None)] if num_valid < labels_HW.size else [])
    entries = [*_present(prediction_HW, labels_HW, classes, ignore_index), *extra]
    return png(_compose(panels, entries, f"{title}   {width} x {height}"))


def _check(
    image_HW3: Pixels, prediction_HW: Labels, labels_HW: Labels | None, num_classes: int, ignore_index: int, title: str
) -> None:
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise InputError(f"{title}: image is {image_HW3.dtype} {image_HW3.shape}; expected uint8 (H, W, 3)")
    for what, ids_HW in (("prediction", prediction_HW), ("truth", labels_HW)):
        if ids_HW is None:
            continue
        if ids_HW.shape != image_HW3.shape[:2]:
            raise InputError(f"{title}: {what} is {ids_HW.shape}, the image {image_HW3.shape[:2]}; they must be equal")
        counted = ids_HW[ids_HW != ignore_index] if what == "truth" else ids_HW
        if counted.size and not 0 <= int(counted.min()) <= int(counted.max()) < num_classes:
            bad = int(counted.max() if counted.max() >= num_classes else counted.min())
            raise InputError(f"{title}: {what} holds {bad}; expected class ids 0 to {num_classes - 1}")


def _errors(photograph: Image.Image, prediction_hw: Labels, labels_hw: Labels, ignore_index: int) -> Pixels:
    """The photograph in pale grey, wrong pixels in red."""
    grey_hw = np.asarray(photograph.convert("L"), dtype=np.float32)
    pale_hw3 = np.repeat((120 + 0.5 * grey_hw)[..., None], 3, axis=2)
    wrong_hw = (prediction_hw != labels_hw) & (labels_hw != ignore_index)
    pale_hw3[wrong_hw] = 0.85 * np.array(WRONG) + 0.15 * grey_hw[wrong_hw][:, None]
    return hatch(pale_hw3.astype(np.uint8), labels_hw, ignore_index)


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


def _compose(
    panels: Sequence[tuple[str, Pixels]],
    entries: Sequence[Entry],
    title: str,
) -> Image.Image:
    h, w = panels[0][1].shape[:2]
    columns = min(len(panels), COLUMNS_WIDE if 4 * w >= 3 * h else COLUMNS_TALL)
    room, panel_step = columns * w + (columns - 1) * GAP, TEXT_SIZE + 6 + h + GAP
    rows = legend_rows(entries, room)
    top = MARGIN + TITLE_SIZE + 10
    legend_top = top + -(-len(panels) // columns) * panel_step + 6
    sheet = Image.new("RGB", (room + 2 * MARGIN, legend_top + len(rows) * (TEXT_SIZE + 10) + MARGIN - 10), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fit(title, room, TITLE_SIZE), INK, font(TITLE_SIZE), anchor="lt")
    for i, (caption, panel) in enumerate(panels):
        left, above = MARGIN + i % columns * (w + GAP), top + i // columns * panel_step
        pen.text((left, above + TEXT_SIZE), fit(caption, w, TEXT_SIZE), FAINT_INK, font(TEXT_SIZE), anchor="ld")
        sheet.paste(Image.fromarray(panel), (left, above + TEXT_SIZE + 6))
    for line, row in enumerate(rows):
        draw_legend_row(sheet, row, legend_top + line * (TEXT_SIZE + 10))
    return sheet
