"""Run lengths and boxes of objects against painting each one's mask on an image of its own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe import masks
from segpipe.data.decode import decode_objects
from segpipe.errors import CorruptError
from segpipe.masks import box_of_runs, crop_of_runs, encode_crop, encode_rle, pixels_of_runs, rle_runs, segment_runs
from segpipe.types import Sample, Segment


def sample_of(ids_HW: np.ndarray, *segments: Segment) -> Sample:
    height, width = ids_HW.shape
    return Sample(
        sample_id="s",
        image=b"x",
        height=height,
        width=width,
        group="s",
        segment_map=ids_HW.tobytes(),
        segments=segments,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_a_crop_is_encoded_as_the_image_around_it(
    crop: tuple[int, int], before: tuple[int, int], after: tuple[int, int], filled: float, seed: int
) -> None:
    mask_hw = np.random.default_rng(seed).random(crop) < filled
    whole = np.pad(mask_hw, tuple(zip(before, after, strict=True)))
    counts = encode_crop(mask_hw, top=before[0], left=before[1], size=whole.shape)
    assert counts == encode_rle(whole)["counts"]
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows.size else (0, 0, 0, 0)
    runs = rle_runs(counts, *whole.shape)
    assert box_of_runs(runs, len(whole)) == box
    top, left, inside_hw = crop_of_runs(runs, len(whole))
    assert np.array_equal(inside_hw, whole[box[1] : box[3], box[0] : box[2]])
    assert (left, top) == box[:2]
    assert pixels_of_runs(runs).tolist() == np.flatnonzero(whole.T).tolist()


def test_a_crop_that_leaves_the_image_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"2 x 3 at \(4, 0\) does not lie in \(5, 5\)"):
        encode_crop(np.ones((2, 3)), top=4, left=0, size=(5, 5))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_the_runs_of_a_map_are_those_of_each_mask(kind: type) -> None:
    ids_HW = np.random.default_rng(3).integers(0, 6, (11, 7)).astype(kind)
    stated = encode_rle(ids_HW == 0)["counts"]
    wanted = [*(Segment(segment_id=n, class_id=0, area=1) for n in (5, 1, 9, 2))]
    sample = sample_of(ids_HW, *wanted, Segment(segment_id=70, class_id=0, area=1, rle=stated))
    found = list(segment_runs(sample))
    assert [segment for segment, _ in found] == list(sample.segments)
    for segment, runs in found:
        mask = masks.mask_of(segment, sample)
        assert runs.tolist() == rle_runs(encode_rle(mask), 11, 7).tolist()
    shown = decode_objects(sample)  # without segment 9, of which the map has no pixel
    boxes = [box_of_runs(runs, 11) for segment, runs in found if segment.segment_id != 9]
    assert boxes == [tuple(box) for box in shown.boxes_N4.int().tolist()]


def test_what_does_not_decode_names_the_segment() -> None:
    sample = sample_of(np.zeros((2, 2), np.uint8), Segment(segment_id=3, class_id=0, area=1, rle=b"9"))
    with pytest.raises(CorruptError, match=r"sample s, segment 3: the stored mask does not decode .*ingest again"):
        list(segment_runs(sample))
    assert list(segment_runs(replace(sample, segments=()))) == []
