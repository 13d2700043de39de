"""The sketches of all images of an evaluation: `predictions.zip` beside the report.

Written by `evaluate.py`, read by whoever makes a page: which images are the worst, or what a challenger changed, is
known when all are counted, and no model need be asked again. Some 4 KB an image: its map as a PNG and, where the map
has objects, these as JSON.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

from segpipe import reports, storage
from segpipe.errors import CorruptError
from segpipe.sketches import Objects, Packed, Sketch, unpack

FILE = "predictions.zip"
_TIME = (1980, 1, 1, 0, 0, 0)  # the same maps give the same bytes


def write(folder: str, small: Mapping[str, Packed], sample_ids: Sequence[str]) -> None:
    """Stores the sketches, which are given by sample id, by their place among `sample_ids`; nothing where there are
    none."""
    if not small:
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        for row, sample_id in enumerate(sample_ids):
            png, objects = small[sample_id]
            packed.writestr(zipfile.ZipInfo(_map(row), _TIME), png)
            if objects is not None:
                told = storage.canonical_json(reports.to_plain(objects))
                packed.writestr(zipfile.ZipInfo(_objects(row), _TIME), told, zipfile.ZIP_DEFLATED)
    storage.write_once(storage.join(folder, FILE), buffer.getvalue())


def read(folder: str, rows: Sequence[int]) -> dict[int, Sketch]:
    """The sketches of images, by their places in the report; none where the task has no such, or an earlier segpipe had
    none of it.

    Raises CorruptError for a damaged file.
    """
    path = storage.join(folder, FILE)
    if not storage.exists(path):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(storage.read_bytes(path))) as packed:
            with_objects = set(packed.namelist())
            found = {
                row: (packed.read(_map(row)), packed.read(_objects(row)) if _objects(row) in with_objects else None)
                for row in rows
            }
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise CorruptError(f"{path}: is damaged ({error}); delete its folder and evaluate again") from None
    return {
        row: unpack(Packed(png, None if told is None else _read(told, path)), file=path)
        for row, (png, told) in found.items()
    }


def _read(told: bytes, path: str) -> Objects:
    return reports.from_plain(Objects, storage.parse_json(told, where=path), origin=path)


def _map(row: int) -> str:
    return f"{row:06d}.png"


def _objects(row: int) -> str:
    return f"{row:06d}.json"
