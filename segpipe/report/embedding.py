"""Pictures inside of a page: data URIs of photographs, maps and errors, small enough that a page can be mailed.

Photographs are JPEG, maps PNG with a palette, in which what is not labelled is clear: the page hatches what is behind.
A page holds a bounded number of them, none larger than `predictions.SMALL_SIDE` either way. Pictures that a task has
drawn, with panels and letters, are larger: their bytes are bounded.

Legend: h w size of a picture in pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from segpipe.report.drawing import Labels, Pixels

QUALITY = 78
DRAWN_SIDE, DRAWN_BYTES = 1000, 250_000  # of a picture with several panels; of photographs one has about 200,000


def photograph(image_hw3: Pixels) -> str:
    """A photograph as a data URI."""
    return _uri(Image.fromarray(image_hw3), "JPEG", quality=QUALITY, optimize=True)


def id_map(ids_hw: Labels, colours: Sequence[tuple[int, int, int]]) -> str:
    """A map of ids in their colours; an id that has none, such as the ignored one, is clear."""
    if len(colours) > 255:
        table = np.zeros((len(colours) + 1, 4), dtype=np.uint8)
        table[:-1] = [(*colour, 255) for colour in colours]
        return _uri(Image.fromarray(table[np.minimum(ids_hw, len(colours))]), "PNG", optimize=True)
    picture = Image.fromarray(np.where(ids_hw < len(colours), ids_hw, 255).astype(np.uint8))
    palette = [channel for colour in colours for channel in colour]
    picture.putpalette(palette + [0] * (768 - len(palette)))
    return _uri(picture, "PNG", transparency=255, optimize=True)


def painted(picture_hw3: Pixels) -> str:
    """A photograph that is painted over: colours have to stay sharp."""
    return _uri(Image.fromarray(picture_hw3), "JPEG", quality=70, subsampling=0, optimize=True)


def drawn(png: bytes) -> tuple[str, int, int]:
    """A picture of this room (`pictures.draw`) as a JPEG with its width and height: of at most `DRAWN_SIDE`, or what
    `DRAWN_BYTES` are enough for."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    side = DRAWN_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        uri = _uri(picture, "JPEG", quality=QUALITY, optimize=True)
        if len(uri) <= DRAWN_BYTES:
            return uri, *picture.size
        side = int(0.85 * side)


def _uri(picture: Image.Image, form: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
