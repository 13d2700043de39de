"""One prediction as a picture: image, truth, prediction and errors beside each other, with a legend. Numpy and Pillow.

`draw` returns PNG bytes that depend on nothing but its arguments. Panels are scaled to a readable size: photographs
smoothly, label maps without mixing classes.

Legend: H W size of the image in pixels, h w size of a panel, K classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segpipe.errors import InputError
from segpipe.types import ClassInfo

Pixels = NDArray[np.uint8]
Labels = NDArray[Any]

PANEL_WIDTH, PANEL_MAX_HEIGHT = 480, 480
# MLflow shows pictures in narrow frames, where a row of four wide panels shrinks to stamps.
COLUMNS_WIDE, COLUMNS_TALL = 2, 4
MARGIN, GAP = 16, 8
TITLE_SIZE, TEXT_SIZE = 18, 14
PAPER, INK, FAINT_INK = (255, 255, 255), (32, 36, 42), (105, 113, 124)
WRONG = (230, 57, 70)
IGNORED_DARK, IGNORED_LIGHT = (52, 55, 61), (88, 92, 99)


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
    size = _panel_size(width, height)
    photograph = Image.fromarray(image_HW3).resize(
        size, Image.Resampling.NEAREST if size[0] > width else Image.Resampling.LANCZOS
    )
    prediction_hw = _resize(prediction_HW, size)
    colours = np.array([info.colour for info in classes], dtype=np.uint8)
    panels = [("image", np.asarray(photograph)), ("prediction", colours[prediction_hw])]
    extra: list[tuple[str, tuple[int, int, int] | None]] = []
    if labels_HW is not None:
        labels_hw = _resize(labels_HW, size)
        valid_HW = labels_HW != ignore_index
        num_wrong, num_valid = int(((prediction_HW != labels_HW) & valid_HW).sum()), int(valid_HW.sum())
        share = f"{100 * num_wrong / num_valid:.1f} % wrong" if num_valid else "nothing is labelled"
        panels.insert(
            1, ("truth", _hatch(colours[np.where(labels_hw == ignore_index, 0, labels_hw)], labels_hw, ignore_index))
        )
        panels.append((f"errors: {share}", _errors(photograph, prediction_hw, labels_hw, ignore_index)))
        panels[2] = ("prediction (IoU of each class below)", panels[2][1])
        extra = [("wrong", WRONG)] + ([("not labelled", None)] if num_valid < labels_HW.size else [])
    entries = [*_present(prediction_HW, labels_HW, classes, ignore_index), *extra]
    return _png(_compose(panels, entries, f"{title}   {width} x {height}"))


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


def _panel_size(width: int, height: int) -> tuple[int, int]:
    """(w, h) of a panel: whole multiples for tiny images, so that every pixel stays a square."""
    scale = min(PANEL_WIDTH / width, PANEL_MAX_HEIGHT / height)
    if scale > 2:
        scale = int(scale)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resize(ids_HW: Labels, size: tuple[int, int]) -> Labels:
    """Nearest neighbour by index, because Pillow has no mode for every integer type."""
    rows = (np.arange(size[1]) + 0.5) * ids_HW.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * ids_HW.shape[1] / size[0]
    ids_hw: Labels = ids_HW[rows.astype(int)[:, None], columns.astype(int)[None, :]]
    return ids_hw


def _hatch(picture_hw3: Pixels, labels_hw: Labels, ignore_index: int) -> Pixels:
    """`picture_hw3` with diagonal dark stripes where nothing is labelled."""
    rows, columns = np.indices(labels_hw.shape)
    stripe_hw = ((rows + columns) // 4) % 3 == 0
    pattern_hw3 = np.where(stripe_hw[..., None], np.array(IGNORED_LIGHT, np.uint8), np.array(IGNORED_DARK, np.uint8))
    return np.where((labels_hw == ignore_index)[..., None], pattern_hw3, picture_hw3)


def _errors(photograph: Image.Image, prediction_hw: Labels, labels_hw: Labels, ignore_index: int) -> Pixels:
    """The photograph in pale grey, wrong pixels in red."""
    grey_hw = np.asarray(photograph.convert("L"), dtype=np.float32)
    pale_hw3 = np.repeat((120 + 0.5 * grey_hw)[..., None], 3, axis=2)
    wrong_hw = (prediction_hw != labels_hw) & (labels_hw != ignore_index)
    pale_hw3[wrong_hw] = 0.85 * np.array(WRONG) + 0.15 * grey_hw[wrong_hw][:, None]
    return _hatch(pale_hw3.astype(np.uint8), labels_hw, ignore_index)


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
    entries: Sequence[tuple[str, tuple[int, int, int] | None]],
    title: str,
) -> Image.Image:
    h, w = panels[0][1].shape[:2]
    columns = min(len(panels), COLUMNS_WIDE if 4 * w >= 3 * h else COLUMNS_TALL)
    room, panel_step = columns * w + (columns - 1) * GAP, TEXT_SIZE + 6 + h + GAP
    rows = _wrap(entries, room)
    top = MARGIN + TITLE_SIZE + 10
    legend_top = top + -(-len(panels) // columns) * panel_step + 6
    sheet = Image.new("RGB", (room + 2 * MARGIN, legend_top + len(rows) * (TEXT_SIZE + 10) + MARGIN - 10), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), _fit(title, room, TITLE_SIZE), INK, _font(TITLE_SIZE), anchor="lt")
    for i, (caption, panel) in enumerate(panels):
        left, above = MARGIN + i % columns * (w + GAP), top + i // columns * panel_step
        pen.text((left, above + TEXT_SIZE), _fit(caption, w, TEXT_SIZE), FAINT_INK, _font(TEXT_SIZE), anchor="ld")
        sheet.paste(Image.fromarray(panel), (left, above + TEXT_SIZE + 6))
    for line, row in enumerate(rows):
        _legend_row(sheet, row, legend_top + line * (TEXT_SIZE + 10))
    return sheet


def _wrap(
    entries: Sequence[tuple[str, tuple[int, int, int] | None]], room: int
) -> list[list[tuple[str, tuple[int, int, int] | None]]]:
    rows: list[list[tuple[str, tuple[int, int, int] | None]]] = [[]]
    used = 0
    for entry in entries:
        length = _entry_width(entry[0])
        if rows[-1] and used + length > room:
            rows.append([])
            used = 0
        rows[-1].append(entry)
        used += length
    return rows


def _legend_row(sheet: Image.Image, row: Sequence[tuple[str, tuple[int, int, int] | None]], top: int) -> None:
    pen, left = ImageDraw.Draw(sheet), MARGIN
    for name, colour in row:
        swatch = np.zeros((TEXT_SIZE, TEXT_SIZE, 3), dtype=np.uint8)
        swatch[:] = colour or 0
        if colour is None:
            swatch = _hatch(swatch, np.zeros((TEXT_SIZE, TEXT_SIZE), dtype=np.uint8), 0)
        sheet.paste(Image.fromarray(swatch), (left, top))
        pen.rectangle((left, top, left + TEXT_SIZE - 1, top + TEXT_SIZE - 1), outline=FAINT_INK)
        middle = top + TEXT_SIZE // 2
        pen.text((left + TEXT_SIZE + 6, middle), name, INK, _font(TEXT_SIZE), anchor="lm")
        left += _entry_width(name)


def _entry_width(name: str) -> int:
    return TEXT_SIZE + 6 + int(_font(TEXT_SIZE).getlength(name)) + 18


def _fit(text: str, room: int, size: int) -> str:
    """`text` cut at its front (ids differ at their end) until it is at most `room` pixels wide."""
    font = _font(size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"...{text}") > room:
        text = text[1:]
    return f"...{text}"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
