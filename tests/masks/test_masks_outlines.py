"""Outlines: any mask comes back from its one polygon, pixel for pixel, holes and separate parts with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from segpipe.errors import CorruptError
from segpipe.masks import encode_rle, ids_type, mask_of, polygon_of_mask, polygon_to_mask, read_map, stored
from segpipe.types import Sample, Segment
from tests.fixtures.pictures import png


def filled(points: np.ndarray, shape: tuple[int, int], digits: int | None = None) -> np.ndarray:
    """The mask of a polygon, after its numbers went through a text of so many digits of 0..1."""
    if digits is not None:
        size = np.array(shape[::-1])
        points = np.array([[float(f"{v:.{digits}f}") for v in point] for point in points / size]) * size
    return polygon_to_mask([points], *shape)


@given(npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)))
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    points = polygon_of_mask(mask)
    if not mask.any():
        assert points.shape == (0, 2)
        return
    assert len(points) >= 4
    assert (points >= 0).all()
    assert (points <= np.array(mask.shape[::-1])).all()
    np.testing.assert_array_equal(filled(points, mask.shape), mask)
    np.testing.assert_array_equal(filled(points, mask.shape, digits=6), mask)


@given(st.integers(0, 2**32 - 1))
def test_so_do_large_shapes_with_holes_and_parts(seed: int) -> None:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:300, 0:500]
    mask = np.zeros((300, 500), dtype=bool)
    for radius in random.integers(3, 90, 8):
        x0, y0 = random.integers(0, 500), random.integers(0, 300)
        mask ^= (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
    np.testing.assert_array_equal(filled(polygon_of_mask(mask), mask.shape, digits=6), mask)


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((9, 12))
    mask[2:5, 3:10] = 1
    assert {tuple(point) for point in polygon_of_mask(mask).tolist()} == {(3, 2), (10, 2), (10, 5), (3, 5)}
    assert len(polygon_of_mask(mask)) == 5, "closed: the first corner comes again"


def sample(**changes: object) -> Sample:
    image = png(np.zeros((2, 3, 3), np.uint8))
    return Sample(**{"sample_id": "a", "image": image, "height": 2, "width": 3, "group": "a", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["u1", "<u2", "<u4"])
def test_maps_of_every_width_are_read(kind: str) -> None:
    ids = np.array([[0, 1, 2], [2, 2, 7]])
    data = ids.astype(kind).tobytes()
    np.testing.assert_array_equal(read_map(data, sample()), ids)
    np.testing.assert_array_equal(
        mask_of(Segment(segment_id=2, class_id=0, area=3), sample(segment_map=data)), ids == 2
    )
    for wrong in (data[:-1], b"", data * 3):
        with pytest.raises(CorruptError, match=r"sample a: a map of .* expected 1, 2 or 4 for each: ingest again"):
            read_map(wrong, sample())


def test_run_lengths_come_before_the_map() -> None:
    rle = encode_rle([[0, 1, 1], [0, 0, 1]])["counts"]
    segment = Segment(segment_id=1, class_id=0, area=3, rle=rle)
    np.testing.assert_array_equal(mask_of(segment, sample()), [[0, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(mask_of(segment, sample(), columns=(1, 2)), [[1], [0]])
    with pytest.raises(CorruptError, match=r"sample a, segment 1: the stored mask does not decode .*ingest again"):
        mask_of(segment, sample(height=3))


def test_columns_of_a_map_are_cut_as_those_of_run_lengths() -> None:
    stored = sample(segment_map=bytes([0, 4, 4, 0, 0, 4]))
    segment = Segment(segment_id=4, class_id=0, area=3)
    np.testing.assert_array_equal(mask_of(segment, stored, columns=(1, 3)), [[1, 1], [0, 1]])
    np.testing.assert_array_equal(mask_of(segment, stored), [[0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("kind", [">u2", "<u4", "u1"])
def test_ids_are_stored_as_they_are_read_back(kind: str) -> None:
    ids_HW = np.arange(6, dtype=kind).reshape(3, 2).T  # not row-major
    data = stored(ids_HW)
    assert len(data) == 6 * ids_HW.itemsize
    np.testing.assert_array_equal(read_map(data, sample()), ids_HW)


def test_ids_are_as_wide_as_their_classes_and_one_id_more() -> None:
    assert [ids_type(num_classes) for num_classes in (2, 255, 256)] == [np.uint8, np.uint8, np.uint16]
