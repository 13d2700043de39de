"""What a JPEG says before its pixels: the segments from its start to the first scan (ITU-T T.81, annex B).

Read without a library, in a few microseconds: libjpeg takes ten times as long, Pillow a hundred. Part of the room
`masks`.
"""

from __future__ import annotations

from typing import NamedTuple

JPEG_START = b"\xff\xd8\xff"
_APP1, _SCAN = 0xE1, 0xDA
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2


class JpegHead(NamedTuple):
    """Size in pixels as stored, channels, whether an APP1 segment (EXIF or XMP) is there, and whether the file has one
    scan alone: a sequential frame whose first scan holds all channels. After that one libjpeg reads no other."""

    width: int
    height: int
    channels: int
    app1: bool
    one_scan: bool


def read_jpeg_head(data: bytes) -> JpegHead | None:
    """None where the segments lead to no scan, or are not those of an 8-bit frame as cameras and encoders write it."""
    at, app1, frame = 2, False, None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SCAN:
            if frame is None:
                return None
            sequential, height, width, channels = frame
            return JpegHead(width, height, channels, app1, sequential and data[at + 4] == channels)
        if marker in _SEQUENTIAL or marker == _PROGRESSIVE:
            if frame is not None or data[at + 4] != 8:
                return None
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            frame = (marker != _PROGRESSIVE, height, width, data[at + 9])
        app1 = app1 or marker == _APP1
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None
