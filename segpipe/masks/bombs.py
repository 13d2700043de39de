"""Image files that cost far more to decode than they weigh, and animations: told by their structure, not by decoding.

Called by `headers.py` with what the header says. Part of the room `masks`. Measured on one core with Pillow 12: a JPEG
of 94 kB in 1,000 scans of 16 Mpx takes 38 s; a PNG of 0.6 MB makes 196 Mpx, a gigabyte; a million chunks take 13 s.
"""

from __future__ import annotations

import re
import struct

from segpipe.errors import BadSampleError

# Photographs unpack to 10 to 80 times their bytes, scanned pages to 40, a JPEG of one colour to 190 and more, a PNG of
# one colour to a thousand. A mask may be that empty: it must have the size of a photograph that was let pass.
CHEAP_PIXELS, MOST_TIMES = 16_000_000, 150
_PIXEL_BITS = {"1": 1, "L": 8, "P": 8, "LA": 16, "RGB": 24, "RGBA": 32}
MAX_SCANS = 40  # cameras and encoders write 1 to 15
MAX_CHUNKS = 100_000  # encoders write chunks of 8 kB and more: this many are 800 MB
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def refuse_empty_vastness(data: bytes, pixels: int, mode: str, file: str) -> None:
    """Raises BadSampleError(too_large) for a large photograph that is nearly nothing; `mode` is Pillow's."""
    times = pixels * _PIXEL_BITS[mode] // 8 / len(data)
    if pixels > CHEAP_PIXELS and times > MOST_TIMES:
        detail = f"{pixels} pixels in {len(data)} bytes, which unpack {times:.0f}-fold, are no photograph"
        raise BadSampleError("too_large", file, f"{detail} (at most {MOST_TIMES}-fold): scale it down or cut it up")


def refuse_endless_jpeg(data: bytes, file: str) -> None:
    """Raises BadSampleError(too_large) for a JPEG of more scans than any encoder makes; one of a single scan need not
    be asked."""
    # Counted roughly first, since this is fast; thumbnails and films behind the image may hold the same two bytes.
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    at, scans = 2, 0
    while (found := _MARKER.search(data, at)) and data[found.start() + 1] != _END_OF_IMAGE:
        scans += data[found.start() + 1] == _START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    if scans > MAX_SCANS:
        raise BadSampleError(
            "too_large", file, f"a JPEG of {scans} scans; at most {MAX_SCANS}: save it as baseline JPEG"
        )


def refuse_endless_png(data: bytes, file: str) -> None:
    """Raises BadSampleError: too_large for a PNG of countless chunks, format_not_allowed for an animation."""
    at, chunks = 8, 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL" and (frames := int.from_bytes(data[at + 8 : at + 12], "big")) > 1:
            raise BadSampleError(
                "format_not_allowed", file, f"an animation of {frames} frames; expected one picture: save one frame"
            )
        at, chunks = at + 12 + length, chunks + 1
        if chunks > MAX_CHUNKS:
            raise BadSampleError("too_large", file, f"a PNG of more than {MAX_CHUNKS} chunks: save it again")
