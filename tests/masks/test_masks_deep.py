"""PNGs of 16 bits a channel: every bit comes back, and what is no such file is refused by name."""

import numpy as np
import pytest

from segpipe import masks
from segpipe.errors import BadSampleError
from tests.fixtures.deep_png import png_rgb16
from tests.fixtures.pictures import photograph, png

VALUES = np.random.default_rng(7).integers(0, 65536, (9, 7, 3)).astype(np.uint16)


@pytest.mark.parametrize("row_filter", [0, 1, 2])
def test_every_bit_of_three_channels_comes_back(row_filter: int) -> None:
    pixels = masks.read_rgb16(png_rgb16(VALUES, row_filter=row_filter), file="a.png")
    assert pixels.dtype == np.uint16
    assert (pixels == VALUES).all()


@pytest.mark.parametrize("pixels", [VALUES, VALUES[..., 0], VALUES.astype(np.uint8), VALUES[..., 0].astype(np.uint8)])
def test_a_png_of_values_is_let_pass(pixels: np.ndarray) -> None:
    data = png_rgb16(pixels) if pixels.ndim == 3 and pixels.dtype == np.uint16 else png(pixels)
    masks.check_extra(data, file="depth.png", height=9, width=7)


DEEP = png_rgb16(VALUES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (photograph(9, 7), "format_not_allowed"),
        (png_rgb16(VALUES[:8]), "size_mismatch"),
        (DEEP[:60] + DEEP[-12:], "truncated"),
        (DEEP[:-12], "truncated"),
        (b"", "truncated"),
        (b"II*\x00 a tiff", "format_not_allowed"),
    ],
    ids=["jpeg", "size", "cut within", "cut off", "empty", "tiff"],
)
def test_what_cannot_be_an_extra_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadSampleError) as caught:
        masks.check_extra(data, file="depth.png", height=9, width=7)
    assert (caught.value.reason, caught.value.file) == (reason, "depth.png")


@pytest.mark.parametrize("data", [png(VALUES[..., 0]), png(VALUES.astype(np.uint8)), photograph(9, 7)])
def test_other_pictures_are_no_channels_of_16_bits(data: bytes) -> None:
    with pytest.raises(BadSampleError, match="3 channels of 16 bits each") as caught:
        masks.read_rgb16(data, file="a.png")
    assert caught.value.reason == "mask_mode"
