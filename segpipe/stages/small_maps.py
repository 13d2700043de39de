"""The label maps of all images of an evaluation, as small as pages show them: `predictions.zip` beside the report.

Written by `evaluate.py`, read by whoever makes a page: which images are the worst, or what a challenger changed, is
known when all are counted, and no model need be asked again. Some 4 KB an image.

Legend: h w size of a map in pixels.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from segpipe import masks, storage
from segpipe.errors import CorruptError

FILE = "predictions.zip"
_TIME = (1980, 1, 1, 0, 0, 0)  # the same maps give the same bytes


def write(folder: str, small: Mapping[str, bytes], sample_ids: Sequence[str]) -> None:
    """Stores the maps (PNG by sample id) by their place among `sample_ids`; nothing where there are none."""
    if not small:
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        for row, sample_id in enumerate(sample_ids):
            packed.writestr(zipfile.ZipInfo(_name(row), _TIME), small[sample_id])
    storage.write_once(storage.join(folder, FILE), buffer.getvalue())


def read(folder: str, rows: Sequence[int]) -> dict[int, Any]:
    """The maps (h, w) of class ids of images, by their places in the report; none where the task makes no label maps.

    Raises CorruptError for a damaged file.
    """
    path = storage.join(folder, FILE)
    if not storage.exists(path):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(storage.read_bytes(path))) as packed:
            found = {row: packed.read(_name(row)) for row in rows}
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise CorruptError(f"{path}: is damaged ({error}); delete its folder and evaluate again") from None
    return {row: masks.read_label_image(png, file=path) for row, png in found.items()}


def _name(row: int) -> str:
    return f"{row:06d}.png"
