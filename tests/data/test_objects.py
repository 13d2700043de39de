"""Objects of an image or of a part of it: the same from run lengths and from an id map, in boxes that fit."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torchvision.ops import masks_to_boxes

from segpipe.data.decode import decode
from segpipe.data.objects import Region, boxes_of, decode_objects, visible
from segpipe.errors import CorruptError
from segpipe.masks import encode_rle
from segpipe.types import Keypoints, Sample, Segment
from tests.fixtures.cells import cells


@given(masks_NHW=npst.arrays(np.bool_, npst.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)))
def test_boxes_are_those_of_torchvision_one_wider(masks_NHW: np.ndarray) -> None:
    boxes_N4 = boxes_of(torch.from_numpy(masks_NHW))
    some_N = masks_NHW.any((1, 2))
    theirs_N4 = masks_to_boxes(torch.from_numpy(masks_NHW[some_N])) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(boxes_N4[torch.from_numpy(some_N)], theirs_N4)
    assert not boxes_N4[torch.from_numpy(~some_N)].any()
    assert boxes_N4.dtype == torch.float32


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    masks=st.sampled_from(["map", "rle"]),
)
def test_a_region_holds_what_the_whole_holds_there(
    height: int, width: int, corners: tuple[float, ...], masks: str
) -> None:
    sample = cells(height, width, cell=5, masks=masks, crowds=True)
    top, left = int(corners[0] * (height - 1)), int(corners[1] * (width - 1))
    bottom, right = top + 1 + int(corners[2] * (height - top - 1)), left + 1 + int(corners[3] * (width - left - 1))
    whole, part = decode_objects(sample), decode_objects(sample, Region(top, bottom, left, right))
    assert whole.segment_ids_N.tolist() == [segment.segment_id for segment in sample.segments]
    assert whole.class_ids_N.tolist() == [segment.class_id for segment in sample.segments]
    assert whole.is_crowd_N.tolist() == [segment.is_crowd for segment in sample.segments]
    cut_NHW = whole.masks_NHW[:, top:bottom, left:right]
    there_N = cut_NHW.any(2).any(1)
    assert torch.equal(part.masks_NHW, cut_NHW[there_N])
    assert torch.equal(part.segment_ids_N, whole.segment_ids_N[there_N])
    assert torch.equal(part.boxes_N4, boxes_of(part.masks_NHW))
    assert part.keypoints_NP3 is not None
    assert whole.keypoints_NP3 is not None
    assert torch.equal(part.keypoints_NP3, whole.keypoints_NP3[there_N] - torch.tensor([left, top, 0.0]))


def test_overlapping_run_lengths_lie_beside_an_id_map() -> None:
    band_HW = np.zeros((20, 20), np.bool_)
    band_HW[4:9] = True
    sample = cells(20, 20, cell=10)
    crowd = Segment(segment_id=1 << 40, class_id=2, area=100, is_crowd=True, rle=encode_rle(band_HW)["counts"])
    objects = decode_objects(dataclasses.replace(sample, segments=(*sample.segments, crowd)))
    assert objects.segment_ids_N.tolist() == [1, 2, 3, 4, 1 << 40]
    assert torch.equal(objects.masks_NHW[4], torch.from_numpy(band_HW))
    assert objects.boxes_N4[4].tolist() == [0, 4, 20, 9]
    assert objects.is_crowd_N.tolist() == [False] * 4 + [True]


def test_more_objects_than_a_byte_counts_and_each_of_one_pixel() -> None:
    objects = decode_objects(cells(20, 20, cell=1))
    assert len(objects) == 400
    assert objects.masks_NHW.sum((1, 2)).tolist() == [1] * 400
    assert objects.boxes_N4[399].tolist() == [19, 19, 20, 20]


def test_objects_with_and_without_keypoints_are_filled_up() -> None:
    sample = cells(10, 20, cell=10)
    some = (Keypoints(segment_id=2, points=((12.0, 3.0, 2), (19.0, 9.0, 1), (0.0, 0.0, 0))),)
    keypoints_NP3 = decode_objects(dataclasses.replace(sample, keypoints=some)).keypoints_NP3
    assert keypoints_NP3 is not None
    assert keypoints_NP3.tolist() == [[[0, 0, 0]] * 3, [[12, 3, 2], [19, 9, 1], [0, 0, 0]]]
    assert decode_objects(dataclasses.replace(sample, keypoints=())).keypoints_NP3 is None
    empty = (Keypoints(segment_id=1, points=()),)
    assert decode_objects(dataclasses.replace(sample, keypoints=empty)).keypoints_NP3 is None


def test_an_image_without_objects_has_none_of_them() -> None:
    objects = decode_objects(dataclasses.replace(cells(6, 7), segments=(), segment_map=None, keypoints=()))
    assert len(objects) == 0
    assert objects.masks_NHW.shape == (0, 6, 7)
    assert objects.boxes_N4.shape == (0, 4)
    assert len(visible(objects, min_area=1)) == 0


def test_the_whole_image_has_objects_if_asked_for() -> None:
    sample = cells(12, 9)
    assert decode(sample).objects is None
    objects = decode(sample, objects=True).objects
    assert objects is not None
    assert torch.equal(objects.masks_NHW, decode_objects(sample).masks_NHW)


def test_small_objects_go_and_crowds_stay_to_the_last_pixel() -> None:
    sample = cells(8, 24, cell=8, crowds=True)
    objects = decode_objects(sample, Region(0, 1, 7, 17))  # one pixel, eight, one; the third is a crowd
    assert visible(objects, min_area=1).segment_ids_N.tolist() == [1, 2, 3]
    assert visible(objects, min_area=2).segment_ids_N.tolist() == [2, 3]
    assert visible(objects, min_area=9).segment_ids_N.tolist() == [3]


def test_a_keypoint_outside_is_one_that_is_not_labelled() -> None:
    sample = cells(8, 8)
    points = ((-0.5, 0.0, 2), (-0.51, 0.0, 2), (7.49, 7.0, 1), (7.5, 7.0, 1), (3.0, 7.5, 2), (3.0, 4.0, 0))
    objects = decode_objects(dataclasses.replace(sample, keypoints=(Keypoints(segment_id=1, points=points),)))
    keypoints_NP3 = visible(objects, min_area=1).keypoints_NP3
    assert keypoints_NP3 is not None
    seen = [[round(value, 2) for value in point] for point in keypoints_NP3[0].tolist()]
    assert seen == [[-0.5, 0, 2], [0, 0, 0], [7.49, 7, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            {"segment_map": bytes(15)},
            r"sample cells: a segment map of 15 bytes for 8 x 8 pixels; expected 1, 2 or 4 for each: ingest again",
        ),
        (
            {"segments": (Segment(segment_id=3, class_id=0, area=1, rle=b"\xff"),)},
            r"sample cells, segment 3: the stored mask does not decode \(.*malformed.*8 x 8 pixels: ingest again",
        ),
        (
            {"segments": (Segment(segment_id=3, class_id=0, area=1, rle=encode_rle(np.ones((8, 9)))["counts"]),)},
            r"sample cells, segment 3: the stored mask does not decode \(.*72.*8 x 8 pixels: ingest again",
        ),
    ],
)
def test_stored_masks_that_do_not_fit_name_their_sample(damage: dict[str, object], message: str) -> None:
    sample: Sample = dataclasses.replace(cells(8, 8), **damage)  # type: ignore[arg-type]
    with pytest.raises(CorruptError, match=message):
        decode_objects(sample)
