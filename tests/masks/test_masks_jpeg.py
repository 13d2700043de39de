"""The segments of a JPEG before its pixels, against Pillow's reading of the same files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segpipe.masks.jpeg import JPEG_START, JpegHead, read_jpeg_head


def encoded(mode: str = "RGB", **options: object) -> bytes:
    to = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).convert(mode).save(to, "JPEG", **options)
    return to.getvalue()


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(exif=exif)


@pytest.mark.parametrize(
    ("data", "head"),
    [
        pytest.param(encoded(), JpegHead(17, 11, 3, False, True), id="baseline"),
        pytest.param(encoded("L"), JpegHead(17, 11, 1, False, True), id="grey"),
        pytest.param(encoded("CMYK"), JpegHead(17, 11, 4, False, True), id="cmyk"),
        pytest.param(encoded(progressive=True), JpegHead(17, 11, 3, False, False), id="progressive"),
        pytest.param(encoded(optimize=True, comment=b"\xff\xda" * 99), JpegHead(17, 11, 3, False, True), id="comment"),
        pytest.param(with_exif(), JpegHead(17, 11, 3, True, True), id="exif"),
    ],
)
def test_a_head_says_what_pillow_reads(data: bytes, head: JpegHead) -> None:
    assert data.startswith(JPEG_START)
    assert read_jpeg_head(data) == head
    with Image.open(io.BytesIO(data)) as image:
        assert (image.width, image.height, len(image.getbands())) == (head.width, head.height, head.channels)
        assert bool(image.info.get("progressive")) != head.one_scan


def test_a_first_scan_of_one_channel_announces_others() -> None:
    data = bytearray(encoded())
    data[data.index(b"\xff\xda") + 4] = 1
    head = read_jpeg_head(bytes(data))
    assert head is not None
    assert not head.one_scan


def test_what_leads_to_no_scan_has_no_head() -> None:
    data = encoded()
    scan, frame = data.index(b"\xff\xda"), data.index(b"\xff\xc0")
    for length in range(scan + 5):
        assert read_jpeg_head(data[:length]) is None, length
    twelve_bits = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    two_frames = data[:scan] + data[frame:]
    no_frame = data[:frame] + data[scan:]
    for damaged in (twelve_bits, two_frames, no_frame):
        assert read_jpeg_head(damaged) is None
