"""Images that cost more than they weigh: refused by their structure, while what cameras write is let pass."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import BadSampleError
from segpipe.masks import check_image, read_id_image, read_label_image
from segpipe.masks.bombs import MAX_CHUNKS, MAX_SCANS
from tests.fixtures.hostile import animated_png, flat_jpeg, flat_png, many_chunks, many_scans, rgb_16_bit
from tests.fixtures.pictures import photograph


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (flat_png(14_000, 14_000), "too_large", "196000000 pixels in .* unpack 102.-fold, are no photograph"),
        (flat_jpeg(5_000, 5_000), "too_large", "25000000 pixels in"),
        (many_scans(64, 64, MAX_SCANS + 1), "too_large", "a JPEG of 47 scans; at most 40"),
        (many_chunks(MAX_CHUNKS), "too_large", "more than 100000 chunks"),
        (animated_png(3), "format_not_allowed", "an animation of 3 frames"),
    ],
    ids=["vast png", "vast jpeg", "scans", "chunks", "animation"],
)
def test_a_bomb_is_refused_before_it_is_decoded(data: bytes, reason: str, words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(BadSampleError, match=words) as caught:
        check_image(data, file="a")
    assert caught.value.reason == reason
    assert time.perf_counter() - started < 2


def test_what_cameras_write_is_let_pass() -> None:
    sky = np.linspace(80, 160, 5000) + np.random.default_rng(0).integers(-2, 3, (4000, 5000))
    smooth = Image.fromarray(sky.astype(np.uint8)).convert("RGB")
    for options in ({}, {"progressive": True}):
        stream = io.BytesIO()
        smooth.save(stream, "JPEG", quality=90, **options)
        check_image(stream.getvalue(), file="20 Mpx")
    film = photograph(20, 30) + b"\xff\xda" * 500  # as phones append one behind the picture
    check_image(film + b"\xff\xd9", file="film")
    check_image(animated_png(1), file="an animation of one frame")


def test_colours_of_16_bits_are_no_ids() -> None:
    """Pillow would read their upper bytes."""
    for read in (
        lambda data: read_label_image(data, file="m", palette={(1, 0, 0): 4}),
        lambda d: read_id_image(d, file="m"),
    ):
        with pytest.raises(BadSampleError, match="16 bits a channel; expected 8") as caught:
            read(rgb_16_bit(9, 7))
        assert caught.value.reason == "mask_mode"
