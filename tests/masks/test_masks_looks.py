"""Looks of images: sums against numpy, a hash that survives re-encoding and tells different images apart."""

import io

import numpy as np
import pytest
from PIL import Image

from segpipe.masks import check_image, look_at, near_copies
from segpipe.masks.looks import COPY_DISTANCE
from tests.fixtures.pictures import png


def scene(number: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Blobs of colour and shade, different for each number."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_the_sums_are_those_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    look = check_image(png(pixels), file="a")
    flat = pixels.reshape(-1, 3).astype(np.int64)
    assert look.rgb_sum == tuple(flat.sum(axis=0).tolist())
    assert look.rgb_square_sum == tuple((flat**2).sum(axis=0).tolist())


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_every_mode_is_looked_at_as_rgb(mode: str) -> None:
    image = scene(1).convert(mode)
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(np.int64)
    assert look_at(image).rgb_sum == tuple(pixels.sum(axis=0).tolist())


def test_copies_that_were_encoded_again_or_scaled_are_found_and_others_are_not() -> None:
    """Row A11 of the goal sheet: at least 95 of 100."""
    originals = [scene(number) for number in range(100)]
    hashes = [look_at(image).perceptual_hash for image in originals]
    for change in (
        lambda image: Image.open(io.BytesIO(encoded(image, 40))),
        lambda image: image.resize((80, 60), Image.Resampling.BILINEAR),
        lambda image: Image.open(io.BytesIO(encoded(image.resize((240, 180)), 75))),
    ):
        copies = [look_at(change(image)).perceptual_hash for image in originals]
        pairs = near_copies(hashes, copies)
        assert sum(i == j for i, j in pairs) >= 95
        assert not [pair for pair in pairs if pair[0] != pair[1]]


def test_pairs_are_those_of_an_obvious_loop() -> None:
    random = np.random.default_rng(3)
    first = [int(value) for value in random.integers(0, 2**63, 1500, dtype=np.uint64)]
    second = [value ^ int(random.integers(0, 256)) for value in first[::7]] + [0]
    slow = [
        (i, j) for i, a in enumerate(first) for j, b in enumerate(second) if a and b and distance(a, b) <= COPY_DISTANCE
    ]
    assert near_copies(first, second) == list({i: (i, j) for i, j in reversed(slow)}.values())[::-1]
    assert near_copies([], second) == []


def test_an_image_without_structure_is_like_no_other() -> None:
    flat = look_at(Image.new("RGB", (40, 30), (9, 90, 200))).perceptual_hash
    assert flat == 0
    assert near_copies([flat], [flat]) == []
