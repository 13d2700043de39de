"""How a sample's files are called, and maps as PNG. Part of `exports`.

Ids come from data: what they may not become is a way out of the folder, or one file for two samples.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections import Counter

from PIL import Image

from segpipe import masks
from segpipe.errors import InputError
from segpipe.types import ClassInfo, Sample

_PLAIN = re.compile(r"[\w-]([\w. -]*[\w-])?", re.ASCII)
_LONGEST, _LONGEST_PART = 800, 200  # bytes: a key of S3 has 1024, a name on a disk 255, with an ending
_SUFFIXES = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp)$")


class Stems:
    """Gives each sample of one export the name of its files, and remembers those that are not the sample's id.

    A legal name stays as it is. Signs that no file system takes, or that no list of names brings back, are written as
    %XX like in a URL; names that are too long are cut; of two that a file system or a list might take for one (A and a,
    x and x.jpg) the later one gets 8 digits of its SHA-256 behind it. `flat` puts "=" in the place of slashes,
    `reserved` are names of folders that mean something to the format.
    """

    def __init__(self, *, flat: bool = False, reserved: tuple[str, ...] = ()) -> None:
        self._flat, self._reserved = flat, reserved
        self._taken = set[tuple[str, str]]()
        self.renamed: dict[str, str] = {}

    def of(self, sample_id: str, *, within: str = "") -> str:
        """The stem of a sample's files in the folder `within`, where each id comes once. An id that begins with this
        folder, as one has that was read from such an export, goes on behind it."""
        own = sample_id.removeprefix(f"{within}/") if within else sample_id
        stem = "/".join(self._part(part) for part in own.split("/"))
        stem = stem.replace("/", "=") if self._flat else stem
        if len(stem.encode()) > _LONGEST or (self._flat and len(stem.encode()) > _LONGEST_PART):
            stem = _digest(sample_id)[:32]
        if (within, _alike(stem)) in self._taken:
            stem = f"{stem}-{_digest(sample_id)[:8]}"
        self._taken.add((within, _alike(stem)))
        if stem != own:
            self.renamed[sample_id] = stem
        return stem

    def _part(self, part: str) -> str:
        """One name between two slashes."""
        if part in self._reserved:
            return f"{part}_"
        if _PLAIN.fullmatch(part) and len(part) <= _LONGEST_PART:
            return part
        last = len(part) - 1
        signs = [_escaped(c) if _is_bad(c, ends=at in (0, last)) else c for at, c in enumerate(part)]
        if part.startswith("."):  # hidden, or one of the two that mean a folder
            signs[0] = "%2E"
        found = "".join(signs) or "%"
        return found if len(found.encode()) <= _LONGEST_PART else f"{found[:40]}-{_digest(part)[:16]}"


def _is_bad(sign: str, *, ends: bool) -> bool:
    """Whether a sign cannot be part of a name, or is lost where lists are read: spaces at the ends of a name."""
    return sign in "\\\ufeff" or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or (ends and sign.isspace())


def _escaped(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))


def _alike(stem: str) -> str:
    """The same for names that one file system or another, or a list of names, takes for one."""
    return _SUFFIXES.sub("", unicodedata.normalize("NFC", stem).casefold())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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


def classes_json(classes: tuple[ClassInfo, ...]) -> bytes:
    """The classes file of source `folder`: names, ids, colours, and which are things. A colour that two classes share
    tells none of them, and is left out."""
    times = Counter(info.colour for info in classes)
    entries = [
        {"name": info.name, "id": class_id}
        | ({"colour": list(info.colour)} if times[info.colour] == 1 else {})
        | {"thing": info.is_thing}
        for class_id, info in enumerate(classes)
    ]
    return (json.dumps(entries, indent=1) + "\n").encode()


def palette_of(classes: tuple[ClassInfo, ...]) -> list[int]:
    """The classes' colours as a PNG palette; the ignored id and what is left over are white."""
    colours = [channel for info in classes[:256] for channel in info.colour]
    return colours + [255] * (768 - len(colours))
