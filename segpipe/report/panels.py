"""The page of one prediction: panels beside each other under their captions, a legend below. Shared by this room.

Legend: H W size of the image in pixels, h w size of a panel.
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
    Pixels,
    draw_legend_row,
    fit,
    font,
    legend_rows,
)

# MLflow shows pictures in narrow frames, where a row of four wide panels shrinks to stamps.
COLUMNS_WIDE, COLUMNS_TALL = 2, 4


def check_image(image_HW3: Pixels, title: str) -> None:
    """Raises InputError unless the image is uint8 (H, W, 3)."""
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise InputError(f"{title}: image is {image_HW3.dtype} {image_HW3.shape}; expected uint8 (H, W, 3)")


def photograph(image_HW3: Pixels, size: tuple[int, int]) -> Image.Image:
    """The image at the `size` (w, h) of a panel: smooth when it shrinks, in squares when it grows."""
    smooth = size[0] <= image_HW3.shape[1]
    return Image.fromarray(image_HW3).resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def pale(shown: Image.Image) -> Pixels:
    """A photograph (h, w, 3) in pale grey, on which colours stand out."""
    grey_hw3 = np.asarray(shown.convert("L").convert("RGB"), dtype=np.float32)
    return (120 + 0.5 * grey_hw3).astype(np.uint8)


def compose(
    panels: Sequence[tuple[str, Pixels]], entries: Sequence[Entry], title: str, *, columns: int | None = None
) -> Image.Image:
    """The page: (caption, picture) of each panel, all of one size, and the legend; two or four a row unless said."""
    h, w = panels[0][1].shape[:2]
    columns = columns or min(len(panels), COLUMNS_WIDE if 4 * w >= 3 * h else COLUMNS_TALL)
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
