"""Run lengths and polygons: equal to pycocotools (golden strings made with version 2.0.11), and safe on bad input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from segpipe.errors import BadSampleError
from segpipe.masks import decode_rle, encode_rle, polygon_to_mask, rle_of_runs, rle_runs

TRIANGLE = [2.3, 1.1, 15.7, 4.2, 6.4, 11.9]


def disc(height: int, width: int, x0: int, y0: int, inner: int, outer: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    distance = (x - x0) ** 2 + (y - y0) ** 2
    return (distance >= inner) & (distance <= outer)


GOLDEN_MASKS = {
    "disc": (disc(40, 50, 24, 19, 0, 225), "k;1R1:I4L4M2N2N2O0O2O0O2O0000000O20N100000001N101N101N2N2N3L4L7FR<"),
    "ring": (disc(7, 9, 4, 3, 3, 10), "9332NM22000NN32N6"),
    "empty": (np.zeros((40, 50)), "`n1"),
    "full": (np.ones((40, 50)), "0`n1"),
    "large runs": (np.tile((np.arange(900) // 300) % 2 == 1, (700, 1)), "`R]6`R]6`R]6"),
}
GOLDEN_POLYGONS = {
    "triangle": ([TRIANGLE], "U13:2M2N3MO2N1O100O1O2N1OQ1"),
    "half pixels": ([[0.5, 0.5, 10.5, 0.5, 10.5, 8.5, 0.5, 8.5]], "=8400000000000000000c2"),
    "outside": ([[-6.2, -3.0, 25.0, 5.5, 12.0, 30.0]], "0932NU10kN0000001O0000001O00001O"),
    "bow tie": ([[1, 1, 14, 10, 14, 1, 1, 10]], "=94N2N101N2N=0C2N2O0O2N2^1"),
    "sliver": ([[3.2, 2.0, 3.4, 9.0, 3.3, 9.5]], "h6"),
    "repeated corner": ([[2, 2, 2, 2, 9, 2, 9, 7, 2, 7]], "j05700000000000Z3"),
    "two parts": ([TRIANGLE, [10.0, 0, 17, 0, 17, 6, 10, 6]], "U13:2M2N3MO2N1ON30O1O1O100000<"),
}


@pytest.mark.parametrize(("mask", "text"), GOLDEN_MASKS.values(), ids=GOLDEN_MASKS)
def test_encode_and_decode_equal_pycocotools(mask: np.ndarray, text: str) -> None:
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": text.encode()}
    decoded = decode_rle(text, *mask.shape)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize(("polygons", "text"), GOLDEN_POLYGONS.values(), ids=GOLDEN_POLYGONS)
def test_polygons_equal_pycocotools(polygons: list[list[float]], text: str) -> None:
    mask = polygon_to_mask(polygons, 12, 18)
    assert encode_rle(mask)["counts"].decode() == text
    as_points = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    np.testing.assert_array_equal(polygon_to_mask(as_points, 12, 18), mask)


@given(npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)))
def test_round_trip_of_any_mask_in_every_form(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    runs = [len(list(group)) for _, group in itertools.groupby([False, *mask.ravel(order="F").tolist()])]
    runs[0] -= 1  # a first False was put in front: COCO's first run counts zeros and may be empty
    for form in (rle, rle["counts"], rle["counts"].decode(), {"counts": runs, "size": list(mask.shape)}):
        np.testing.assert_array_equal(decode_rle(form, *mask.shape), mask)


@given(
    npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_columns_are_those_of_the_whole_mask(mask: np.ndarray, one: int, other: int) -> None:
    left, right = sorted(min(place, mask.shape[1]) for place in (one, other))
    strip = decode_rle(encode_rle(mask), *mask.shape, columns=(left, right))
    np.testing.assert_array_equal(strip, mask[:, left:right])
    assert strip.flags.c_contiguous


@given(st.lists(st.tuples(st.integers(-3, 20), st.integers(-3, 16)), min_size=3, max_size=7))
def test_a_polygon_covers_what_it_encloses_up_to_its_border(points: list[tuple[int, int]]) -> None:
    mask = polygon_to_mask([np.array(points, dtype=float)], 14, 18)
    for y, x in itertools.product(range(14), range(18)):
        crossings, distance = 0, np.inf
        px, py = x + 0.5, y + 0.5
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if (y0 > py) != (y1 > py) and px < x0 + (py - y0) * (x1 - x0) / (y1 - y0):
                crossings += 1
            length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
            along = min(1.0, max(0.0, ((px - x0) * (x1 - x0) + (py - y0) * (y1 - y0)) / length))
            distance = min(distance, np.hypot(x0 + along * (x1 - x0) - px, y0 + along * (y1 - y0) - py))
        if distance > 1.0:
            assert mask[y, x] == crossings % 2, (x, y)


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        (b"", "malformed"),
        (b"0`n", "malformed"),
        (b"\x07\xff", "malformed"),
        ("oooooooooooo0", "13 characters"),
        (b"11", "cover 2 pixels"),
        (b"0N0", "-2 pixels"),
        ({"counts": [3, 4]}, "cover 7 pixels"),
        ({"counts": [30, -6]}, "-6 pixels"),
        ({"counts": [30.0]}, "whole numbers"),
        ({"counts": [2**80]}, "whole numbers"),
        ({"counts": None}, "whole numbers"),
        ({"counts": [30], "size": [6, 5]}, "size [6, 5]"),
        ({"size": [5, 6]}, "expected counts"),
    ],
)
def test_bad_run_lengths_are_refused(rle: object, words: str) -> None:
    with pytest.raises(BadSampleError, match="run lengths") as caught:
        decode_rle(rle, 5, 6, file="instances.json")  # type: ignore[arg-type]
    assert caught.value.reason == "bad_annotation"
    assert caught.value.file == "instances.json"
    assert words in caught.value.detail


@pytest.mark.parametrize(
    "polygon",
    [[], [1, 2, 3, 4], [1, 2, 3], ["a", 2, 3, 4, 5, 6], [0, 0, 1, 1, float("nan"), 2], [0, 0, 9, 9, 1e9, 2], None],
)
def test_bad_polygons_are_refused(polygon: object) -> None:
    with pytest.raises(BadSampleError, match="polygon 1"):
        polygon_to_mask([[0, 0, 3, 0, 3, 3], polygon], 8, 8)


def test_a_polygon_with_an_endless_border_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(BadSampleError, match="too long"):
        polygon_to_mask([[-9e5, -9e5, 9e5, 9e5] * 20], 8, 8)


def test_encode_refuses_what_is_no_mask() -> None:
    with pytest.raises(ValueError, match="shape"):
        encode_rle(np.zeros((2, 3, 4)))


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12).filter(any),
    st.booleans(),
)
def test_runs_without_length_do_not_change_the_mask(runs: list[int], as_text: bool) -> None:
    total = sum(runs)
    rle = {"size": [total, 1], "counts": runs}
    mask = decode_rle(rle, total, 1)
    assert rle_runs(rle, total, 1).tolist() == runs
    clean = rle_of_runs(rle_runs(rle, total, 1), total, 1)
    assert clean == encode_rle(mask)
    assert rle_runs(clean["counts"].decode() if as_text else clean, total, 1)[1:].all()
