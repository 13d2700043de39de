"""Predictions as small as pages show them: which object lies where, and which of the truth's it found."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.predictions import SMALL_SIDE, Detections, LabelMap, PanopticMap, Poses, Prediction
from segpipe.sketches import Objects, Packed, Sketch, numbered, pack, sketch, unpack
from tests.fixtures.panoptic_maps import SIZE, Box, panoptic_map


def detections(
    *boxes: Box, scores: tuple[float, ...] = (), size: tuple[int, int] = SIZE, masked: bool = True
) -> Detections:
    """Rectangles x0 y0 x1 y1 of class 1."""
    rles = []
    for x0, y0, x1, y1 in boxes if masked else ():
        inside_HW = np.zeros(size, np.uint8)
        inside_HW[y0:y1, x0:x1] = 1
        rles.append(masks.encode_rle(inside_HW)["counts"])
    return Detections(
        size=size,
        class_ids_N=np.ones(len(boxes), np.int64),
        scores_N=np.array(scores or [1.0] * len(boxes)),
        boxes_N4=np.array(boxes, np.float64).reshape(-1, 4),
        masks=tuple(rles) if masked else None,
    )


def of(prediction: Prediction, truth: Prediction | None = None) -> Sketch:
    found = sketch(prediction, truth, num_classes=3, what="a.png")
    assert found is not None
    return found


def test_a_label_map_is_its_classes() -> None:
    ids_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = of(LabelMap(ids_HW=ids_HW))
    assert (found.ids_hw.tolist(), found.objects) == (ids_HW.tolist(), None)


def test_objects_are_numbered_and_small_ones_lie_on_top() -> None:
    found = of(detections((2, 2, 6, 6), (0, 0, 20, 20), (50, 30, 60, 40)))
    assert found.objects == Objects(class_ids=(1, 1, 1))
    assert [int(found.ids_hw[y, x]) for y, x in ((3, 3), (10, 10), (35, 55), (39, 0))] == [1, 2, 3, 0]


def test_what_a_model_doubts_is_not_shown() -> None:
    boxes: tuple[Box, ...] = ((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    found = of(detections(*boxes, scores=(0.9, 0.5, 0.49)), detections(*boxes))
    assert found.objects == Objects(class_ids=(1, 1), found=((1, 1), (2, 2)), missed=(3,))


def test_objects_say_which_of_the_truth_they_found() -> None:
    truth = detections((0, 0, 10, 10), (20, 0, 30, 10), (40, 20, 50, 30))
    found = of(detections((20, 0, 30, 9), (0, 20, 10, 30), (0, 0, 4, 4)), truth)
    assert found.objects == Objects(class_ids=(1, 1, 1), found=((2, 1),), missed=(1, 3), false=(2, 3))
    nothing = of(detections(), truth)
    assert nothing.objects == Objects(class_ids=(), missed=(1, 2, 3))
    assert not nothing.ids_hw.any()


def test_an_object_between_the_pixels_that_are_picked_keeps_one() -> None:
    size = (3 * SMALL_SIDE, 4 * SMALL_SIDE)
    boxes: list[Box] = [(x, y, x + 2, y + 2) for x in range(0, size[1], 151) for y in range(0, size[0], 163)]
    found = of(detections(*boxes, size=size))
    assert found.ids_hw.shape == (270, 360)
    assert set(np.unique(found.ids_hw).tolist()) == set(range(len(boxes) + 1))


def test_where_there_are_no_masks_an_object_is_the_frame_of_its_box() -> None:
    found = of(detections((10, 10, 30, 30), (-5, 35, 70, 90), (20, 20, 20.4, 20.4), masked=False))  # type: ignore[arg-type]
    assert [int(found.ids_hw[y, x]) for y, x in ((10, 10), (11, 29), (15, 15), (39, 0), (20, 20))] == [1, 1, 0, 2, 3]
    large = of(detections((0, 0, 720, 360), size=(360, 720), masked=False))
    assert (large.ids_hw.shape, int((large.ids_hw > 0).sum())) == ((180, 360), 360 * 180 - 356 * 176)


TRUTH = panoptic_map((9_000_001, 0, (0, 0, 60, 20)), (7, 1, (0, 20, 20, 40)), (3, 1, (20, 20, 40, 40)), crowds=(3,))
SAID = panoptic_map((5, 1, (0, 20, 20, 39)), (4, 2, (40, 20, 60, 40)), (6, 0, (0, 0, 60, 19)), (8, 2, (20, 20, 40, 40)))


def test_segments_match_as_panoptic_quality_has_it() -> None:
    found = of(SAID, TRUTH)
    assert found.objects is not None
    assert set(found.objects.found) == {(2, 1), (1, 3)}
    assert (found.objects.class_ids, found.objects.missed) == ((1, 2, 0, 2), ())
    assert found.objects.false == (4,), "the second lies where nothing is labelled; a crowd excuses its own class alone"
    assert [int(found.ids_hw[y, x]) for y, x in ((25, 5), (25, 50), (5, 5), (25, 30), (39, 5))] == [1, 2, 3, 4, 0]
    assert of(TRUTH).objects == Objects(class_ids=(0, 1, 1))


def test_a_map_without_segments_has_no_numbers() -> None:
    nothing = PanopticMap(ids_HW=np.zeros((2, 3), np.int32), segments=())
    assert numbered(nothing.ids_HW, nothing).tolist() == [[0, 0, 0]] * 2
    assert of(nothing).objects == Objects(class_ids=())


@pytest.mark.parametrize("number", [3, 300])
def test_what_is_packed_comes_back(number: int) -> None:
    ids_hw = np.arange(number + 1).reshape(1, -1)
    for objects in (Objects(class_ids=(1,) * number, found=((1, 2),), missed=(2,), false=(3,)), None):
        stored = ids_hw if objects else ids_hw.astype(np.int32)
        again = unpack(pack(Sketch(ids_hw=stored, objects=objects)), file="a.zip")
        assert again.objects == objects
        assert again.ids_hw.tolist() == ids_hw.tolist()


def test_keypoints_have_none() -> None:
    nobody = Poses(
        size=SIZE,
        class_ids_N=np.zeros(0, np.int64),
        scores_N=np.zeros(0),
        boxes_N4=np.zeros((0, 4)),
        points_NP3=np.zeros((0, 17, 3)),
    )
    assert sketch(nobody, num_classes=1, what="a.png") is None


def test_what_is_damaged_is_named() -> None:
    broken = detections((0, 0, 10, 10))
    object.__setattr__(broken, "masks", (b"1",))
    with pytest.raises(InputError, match=r"a\.png: a mask does not decode"):
        of(broken)
    with pytest.raises(BadSampleError):
        unpack(Packed(b"no picture", None), file="a.zip")
