"""How a sample's files are called, and maps as PNG. Part of `exports`.

Ids come from data, and become names only where they are harmless.
"""

from __future__ import annotations

import hashlib
import io
import re

from PIL import Image

from segpipe import masks
from segpipe.errors import InputError
from segpipe.types import ClassInfo, Sample

_HARMLESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_LONGEST = 200


def stem_of(sample_id: str) -> str:
    """The sample id where it is a relative path of plain names, else 32 digits of its SHA-256."""
    if len(sample_id) <= _LONGEST and _HARMLESS.fullmatch(sample_id):
        return sample_id
    return hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def ending_of(image: bytes) -> str:
    """`.jpg` or `.png`, by the first bytes."""
    return ".jpg" if image.startswith(b"\xff\xd8") else ".png"


def map_to_png(stored: bytes, sample: Sample, *, palette: list[int] | None = None) -> bytes:
    """A map of ids as PNG: grey of 8 or 16 bits, or a palette image where `palette` (768 numbers) is given."""
    ids = masks.read_map(stored, sample)
    width = ids.dtype.itemsize
    if width > 2 or (palette is not None and width > 1):
        raise InputError(
            f"sample {sample.sample_id!r}: its map has {width} bytes an id, more than this format's PNG holds; "
            "export it as another format"
        )
    if palette is None:
        image = Image.fromarray(ids)
    else:
        image = Image.frombytes("P", (sample.width, sample.height), ids.tobytes())
        image.putpalette(palette)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def labels_of(sample: Sample) -> bytes:
    """The label map. Raises InputError where a sample has none, such as a frame that nobody has drawn a mask for."""
    if sample.label_map is None:
        raise InputError(
            f"sample {sample.sample_id!r} has no label map, which an export needs of each: ingest the labelled "
            "samples alone (source `frames`: option unlabelled=false)"
        )
    return sample.label_map


def palette_of(classes: tuple[ClassInfo, ...]) -> list[int]:
    """The classes' colours as a PNG palette; the ignored id and what is left over are white."""
    colours = [channel for info in classes[:256] for channel in info.colour]
    return colours + [255] * (768 - len(colours))
