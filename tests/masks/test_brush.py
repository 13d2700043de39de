"""segpipe/masks/brush.py beside a slow reading of the layout, bit by bit."""

from typing import Any

import numpy as np
import pytest

from segpipe.errors import BadSampleError
from segpipe.masks import decode_brush, encode_brush


def slowly(rle: list[int]) -> list[int]:
    """The values of an RGBA picture, as thi.ng/rle-pack documents them."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, size = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeats = read(1)
        count = read(lengths[read(2)]) + 1
        values += [read(size)] * count if repeats else [read(size) for _ in range(count)]
    return values


def spelled(values: list[int], *, sizes: tuple[int, ...] = (3, 4, 8, 16), total: int | None = None) -> list[int]:
    """Values one by one, in runs of at most eight that repeat nothing, as a browser writes noisy edges."""
    total = len(values) if total is None else total
    text = f"{total:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for start in range(0, len(values), 8):
        run = values[start : start + 8]
        text += f"000{len(run) - 1:0{sizes[0]}b}" + "".join(f"{value:08b}" for value in run)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (24, 36), (150, 200)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_every_mask_comes_back(shape: tuple[int, int], share: float) -> None:
    mask = (np.random.default_rng(7).random(shape) < share).astype(np.uint8)
    rle = encode_brush(mask)
    if mask.size < 1000:
        assert np.array_equal(np.array(slowly(rle)).reshape(*shape, 4)[..., 3] > 0, mask > 0)
    np.testing.assert_array_equal(decode_brush(rle, *shape), mask)
    np.testing.assert_array_equal(decode_brush(bytes(rle), *shape), mask)


def test_a_long_run_is_cut_into_several() -> None:
    mask = np.ones((200, 300), np.uint8)
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 200, 300), mask)


def test_values_one_by_one_and_alpha_alone_counts() -> None:
    values = np.random.default_rng(1).integers(0, 3, 4 * 5 * 7)
    rle = spelled(values.tolist())
    assert slowly(rle) == values.tolist()
    np.testing.assert_array_equal(decode_brush(rle, 5, 7), values.reshape(5, 7, 4)[..., 3] > 0)


GOOD = encode_brush(np.eye(5, 7))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "expected a list"),
        ("text", "expected a list"),
        ([], "0 values of 1 bits"),
        ([1.5] * 9, "whole numbers from 0 to 255"),
        ([256] * 9, "whole numbers from 0 to 255"),
        ([-1] * 9, "whole numbers from 0 to 255"),
        ([[1]] * 9, "whole numbers from 0 to 255"),
        ([255] * 40, "4294967295 values of 32 bits; expected 140 of 8, four a pixel of 5x7"),
        (GOOD[:-8], "ends after"),
        (GOOD[:7], "ends after 0 of 140"),
        (spelled([0] * 136, total=140), "ends after"),
        ([0] * 1000, "at most 613 bytes"),
    ],
)
def test_what_is_damaged_is_refused(rle: Any, message: str) -> None:
    with pytest.raises(BadSampleError, match=message) as caught:
        decode_brush(rle, 5, 7, file="x")
    assert caught.value.reason == "bad_annotation"
