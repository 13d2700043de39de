"""What every picture of this room is drawn with: text that fits, legends, label maps scaled without mixing classes.

Legend: h w size of a panel in pixels.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segpipe.predictions import nearest

Pixels = NDArray[np.uint8]
Labels = NDArray[Any]
# The name and colour of one class; None is hatched, for what is not labelled.
Entry = tuple[str, tuple[int, int, int] | None]

MARGIN, GAP = 16, 8
TITLE_SIZE, TEXT_SIZE = 18, 14
PAPER, INK, FAINT_INK = (255, 255, 255), (32, 36, 42), (105, 113, 124)
_DRAWN = frozenset(map(chr, range(32, 127))) | frozenset("©«°±´·»‘’“”…")
_IGNORED_DARK, _IGNORED_LIGHT = (52, 55, 61), (88, 92, 99)


def resize_ids(ids_HW: Labels, size: tuple[int, int]) -> Labels:
    """Nearest neighbour by index, because Pillow has no mode for every integer type."""
    rows, columns = nearest(ids_HW.shape[0], size[1]), nearest(ids_HW.shape[1], size[0])
    ids_hw: Labels = ids_HW[rows[:, None], columns[None, :]]
    return ids_hw


def panel_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """(w, h) of a panel that is at most `longest` either way: tiny images grow by whole multiples, so that every pixel
    stays a square."""
    scale = min(longest / width, longest / height)
    scale = int(scale) if scale > 2 else scale
    return max(1, round(width * scale)), max(1, round(height * scale))


def hatch(picture_hw3: Pixels, labels_hw: Labels, ignore_index: int) -> Pixels:
    """`picture_hw3` with diagonal dark stripes where nothing is labelled."""
    rows, columns = np.indices(labels_hw.shape)
    stripe_hw = ((rows + columns) // 4) % 3 == 0
    pattern_hw3 = np.where(stripe_hw[..., None], np.array(_IGNORED_LIGHT, np.uint8), np.array(_IGNORED_DARK, np.uint8))
    return np.where((labels_hw == ignore_index)[..., None], pattern_hw3, picture_hw3)


def edges(objects_hw: Labels) -> Labels:
    """Where an object meets another one or nothing: a line of one pixel."""
    edge_hw = np.zeros(objects_hw.shape, dtype=bool)
    across, down = objects_hw[:, 1:] != objects_hw[:, :-1], objects_hw[1:] != objects_hw[:-1]
    edge_hw[:, 1:] |= across
    edge_hw[1:] |= down
    return edge_hw


def legend_rows(entries: Sequence[Entry], room: int) -> list[list[Entry]]:
    """The entries dealt to lines of at most `room` pixels."""
    rows: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        length = _entry_width(entry[0])
        if rows[-1] and used + length > room:
            rows.append([])
            used = 0
        rows[-1].append(entry)
        used += length
    return rows


def draw_legend_row(sheet: Image.Image, row: Sequence[Entry], top: int) -> None:
    """Draws one line of a legend with its upper edge at `top`."""
    pen, left = ImageDraw.Draw(sheet), MARGIN
    for name, colour in row:
        swatch = np.zeros((TEXT_SIZE, TEXT_SIZE, 3), dtype=np.uint8)
        swatch[:] = colour or 0
        if colour is None:
            swatch = hatch(swatch, np.zeros((TEXT_SIZE, TEXT_SIZE), dtype=np.uint8), 0)
        sheet.paste(Image.fromarray(swatch), (left, top))
        pen.rectangle((left, top, left + TEXT_SIZE - 1, top + TEXT_SIZE - 1), outline=FAINT_INK)
        middle = top + TEXT_SIZE // 2
        pen.text((left + TEXT_SIZE + 6, middle), legible(name), INK, font(TEXT_SIZE), anchor="lm")
        left += _entry_width(name)


def _entry_width(name: str) -> int:
    return TEXT_SIZE + 6 + int(font(TEXT_SIZE).getlength(legible(name))) + 18


def legible(text: str) -> str:
    """`text` in the signs that the font has, which draws all others as one and the same box: letters lose their
    accents, and of a sign that is no Latin letter its number stands, as <5C4B>."""
    return text if text.isascii() else "".join(c if c in _DRAWN else _latin(c) for c in text)


def _latin(sign: str) -> str:
    letters = "".join(c for c in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(c))
    return letters if letters.isascii() else f"<{ord(sign):04X}>"


def fit(text: str, room: int, size: int) -> str:
    """`text`, legible, cut at its front (ids differ at their end) until it is at most `room` pixels wide."""
    text, letters = legible(text), font(size)
    if letters.getlength(text) <= room:
        return text
    while text and letters.getlength(f"...{text}") > room:
        text = text[1:]
    return f"...{text}"


def font(size: int) -> Any:
    """Pillow's own font, so that a picture depends on no font of the machine."""
    return ImageFont.load_default(size)


def png(image: Image.Image) -> bytes:
    """The image as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
