"""What the answers of models become: files and rows of objects, panoptic maps and keypoints."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe import masks
from segpipe.errors import InputError
from segpipe.predict import counts, cutout, document, entries, instances, mask, overlay, sample_with
from segpipe.predictions import Detections, LabelMap, PanopticMap, Poses, Prediction, surest
from segpipe.report.overlays import has_class_colours
from segpipe.types import ClassInfo, Sample, Segment, Task

CLASSES = (
    ClassInfo(name="sky", colour=(10, 20, 200)),
    ClassInfo(name="car", colour=(200, 30, 30), is_thing=True),
    ClassInfo(name="dog", colour=(30, 200, 30), is_thing=True),
)
OTHERS = tuple(dataclasses.replace(info, colour=info.colour[::-1]) for info in CLASSES)
H, W = 24, 32
IMAGE = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)


def inside(top: int, left: int, bottom: int, right: int) -> np.ndarray[Any, Any]:
    found = np.zeros((H, W), dtype=np.uint8)
    found[top:bottom, left:right] = 1
    return found


# The best first; the second overlaps it, the third is a doubt.
OBJECTS = (inside(2, 2, 12, 12), inside(6, 6, 20, 16), inside(20, 24, 24, 32))
DETECTIONS = Detections(
    size=(H, W),
    class_ids_N=np.array([1, 2, 1]),
    scores_N=np.array([0.9, 0.75, 0.2]),
    boxes_N4=np.array([[2.0, 2, 12, 12], [6, 6, 16, 20], [24, 20, 32, 24]]),
    masks=tuple(masks.encode_rle(each)["counts"] for each in OBJECTS),
)
IDS = np.zeros((H, W), dtype=np.int32)
IDS[:10], IDS[12:20, 4:9], IDS[12:20, 20:25] = 7, 300, 301
PANOPTIC = PanopticMap(
    ids_HW=IDS,
    segments=(
        Segment(segment_id=300, class_id=1, area=40.0),
        Segment(segment_id=7, class_id=0, area=320.0),
        Segment(segment_id=301, class_id=1, area=40.0),
    ),
)
POSES = Poses(
    size=(H, W),
    class_ids_N=np.array([2]),
    scores_N=np.array([0.8]),
    boxes_N4=np.array([[2.0, 2, 12, 12]]),
    points_NP3=np.array([[[3.0, 4, 0.9], [8, 9, 0.1]]]),
)
SURE = surest(DETECTIONS, 0.5)
LABELS = LabelMap(ids_HW=np.where(IDS == 7, 0, 2).astype(np.uint8))


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def of_map(ids_HW: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Classes of the panoptic map, written down by hand; 3 where nothing is said."""
    found = np.full(ids_HW.shape, 3)
    found[ids_HW == 7], found[(ids_HW == 300) | (ids_HW == 301)] = 0, 1
    return found


def test_doubts_are_left_out_of_all_but_maps_and_given_objects() -> None:
    assert (SURE.scores_N.tolist(), SURE.class_ids_N.tolist(), len(SURE.boxes_N4)) == ([0.9, 0.75], [1, 2], 2)
    assert (SURE.masks, SURE.size) == ((DETECTIONS.masks or ())[:2], DETECTIONS.size)
    assert len(surest(DETECTIONS, 0.75)) == 2, "one of just that score is none"
    assert surest(dataclasses.replace(DETECTIONS, masks=None), 1.0).masks is None
    assert all(surest(each, 1.0) is each for each in (LABELS, PANOPTIC, POSES))


def test_masks_of_maps_and_of_objects() -> None:
    np.testing.assert_array_equal(pixels(mask(LABELS, classes=CLASSES)), LABELS.ids_HW)
    np.testing.assert_array_equal(pixels(mask(PANOPTIC, classes=CLASSES)), of_map(IDS))
    painted = np.full((H, W), 3)
    painted[OBJECTS[2] > 0], painted[OBJECTS[1] > 0], painted[OBJECTS[0] > 0] = 1, 2, 1
    np.testing.assert_array_equal(pixels(mask(DETECTIONS, classes=CLASSES, grey=True)), painted)
    painted[OBJECTS[2] > 0] = 3
    np.testing.assert_array_equal(pixels(mask(SURE, classes=CLASSES, grey=True)), painted)
    shown = Image.open(io.BytesIO(mask(PANOPTIC, classes=CLASSES))).convert("RGB")
    assert shown.getpixel((31, 23)) == (255, 255, 255), "of nothing"
    assert shown.getpixel((0, 0)) == CLASSES[0].colour


def test_ids_of_many_classes_take_sixteen_bits() -> None:
    many = tuple(ClassInfo(name=str(k), colour=(0, 0, 0)) for k in range(300))
    ids_HW = np.arange(H * W, dtype=np.int32).reshape(H, W) % 300
    np.testing.assert_array_equal(pixels(mask(LabelMap(ids_HW=ids_HW), classes=many, grey=True)), ids_HW)
    with pytest.raises(InputError, match="300 classes are more than the palette of a PNG holds"):
        mask(LabelMap(ids_HW=ids_HW), classes=many)
    with pytest.raises(InputError, match="256 classes and nothing are more"):
        mask(PANOPTIC, classes=many[:256])
    ids_HW = ids_HW % 256
    np.testing.assert_array_equal(pixels(mask(LabelMap(ids_HW=ids_HW), classes=many[:256])), ids_HW)


def test_objects_are_numbered_the_best_on_top() -> None:
    expected = np.zeros((H, W))
    expected[OBJECTS[1] > 0], expected[OBJECTS[0] > 0] = 2, 1
    np.testing.assert_array_equal(pixels(instances(SURE)), expected)
    expected[OBJECTS[2] > 0] = 3
    np.testing.assert_array_equal(pixels(instances(DETECTIONS)), expected)
    np.testing.assert_array_equal(pixels(instances(PANOPTIC)), IDS)
    with pytest.raises(InputError, match="65535"):
        instances(PanopticMap(ids_HW=IDS * 1000, segments=()))
    with pytest.raises(InputError, match="without masks tells no pixels"):
        instances(LABELS)


@pytest.mark.parametrize(
    ("prediction", "class_id", "expected_HW"),
    [
        (LABELS, 2, IDS != 7),
        (PANOPTIC, 1, IDS >= 300),
        (DETECTIONS, 1, (OBJECTS[0] | OBJECTS[2]) > 0),
        (SURE, 1, OBJECTS[0] > 0),  # the other car is a doubt
        (SURE, 2, OBJECTS[1] > 0),
    ],
)
def test_cutouts(prediction: Prediction, class_id: int, expected_HW: np.ndarray[Any, Any]) -> None:
    cut = cutout(IMAGE, prediction, class_id)
    assert cut is not None
    (x0, y0, x1, y1), data = cut
    rows, columns = np.nonzero(expected_HW)
    assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    part = expected_HW[y0:y1, x0:x1]
    np.testing.assert_array_equal(pixels(data)[..., 3], np.where(part, 255, 0))
    np.testing.assert_array_equal(pixels(data)[..., :3], IMAGE[y0:y1, x0:x1] * part[..., None])
    assert cutout(IMAGE, LabelMap(ids_HW=np.zeros((H, W), np.uint8)), 2) is None


def test_counts_are_pixels_of_maps_and_numbers_of_objects() -> None:
    assert counts(LABELS, CLASSES) == {"sky": 320, "dog": H * W - 320}
    assert counts(PANOPTIC, CLASSES) == {"sky": 320, "car": 80}
    assert counts(SURE, CLASSES) == {"car": 1, "dog": 1}
    assert counts(DETECTIONS, CLASSES) == {"car": 2, "dog": 1}


@pytest.mark.parametrize("prediction", [LABELS, PANOPTIC, DETECTIONS, POSES], ids=lambda each: type(each).__name__)
def test_overlays_have_the_size_of_the_image_and_show_the_colours_of_the_classes(prediction: Prediction) -> None:
    drawn = pixels(overlay(IMAGE, prediction, classes=CLASSES))
    assert drawn.shape == IMAGE.shape
    assert (drawn != IMAGE).any()
    otherwise = pixels(overlay(IMAGE, prediction, classes=OTHERS))
    assert (drawn != otherwise).any() == (prediction is not POSES)


def test_overlays_of_one_class_or_of_keypoints_are_not_coloured_by_class() -> None:
    alike = dataclasses.replace(DETECTIONS, class_ids_N=np.zeros(3, dtype=np.int64))
    assert overlay(IMAGE, alike, classes=CLASSES[1:2]) == overlay(IMAGE, alike, classes=OTHERS[1:2])
    assert not has_class_colours(Task.INSTANCE, CLASSES[1:2])
    assert has_class_colours(Task.SEMANTIC, CLASSES[:1])
    assert has_class_colours(Task.INSTANCE, CLASSES)
    assert has_class_colours(Task.PANOPTIC, CLASSES[1:2])
    assert not has_class_colours(Task.DETECTION, CLASSES[1:2])
    assert not has_class_colours(Task.KEYPOINTS, CLASSES)


def test_coco_tells_every_object_with_its_score_and_run_lengths() -> None:
    found = entries(DETECTIONS)
    assert [(each["category_id"], each["score"], each["bbox"]) for each in found] == [
        (2, 0.9, [2.0, 2.0, 10.0, 10.0]),
        (3, 0.75, [6.0, 6.0, 10.0, 14.0]),
        (2, 0.2, [24.0, 20.0, 8.0, 4.0]),
    ]
    for each, object_HW in zip(found, OBJECTS, strict=True):
        np.testing.assert_array_equal(masks.decode_rle(each["segmentation"], H, W), object_HW)
        assert each["area"] == object_HW.sum()
    assert [(each["category_id"], each["area"], each["bbox"]) for each in entries(PANOPTIC)] == [
        (2, 40, [4, 12, 5, 8]),
        (1, 320, [0, 0, 32, 10]),
        (2, 40, [20, 12, 5, 8]),
    ]
    (pose,) = entries(POSES)
    assert (pose["keypoints"], pose["num_keypoints"]) == ([3.0, 4.0, 0.9, 8.0, 9.0, 0.1], 2)
    assert "segmentation" not in pose
    image = {"file_name": "a.jpg", "height": H, "width": W}
    whole = document([{**image, "annotations": found}, {**image, "annotations": []}], classes=CLASSES, description="x")
    assert [each["id"] for each in whole["annotations"]] == [1, 2, 3]
    assert {each["image_id"] for each in whole["annotations"]} == {1}
    assert [each["isthing"] for each in whole["categories"]] == [0, 1, 1]


def test_rows_hold_what_was_predicted_and_nothing_of_the_truth() -> None:
    truth = Sample(sample_id="a", image=b"x", height=H, width=W, group="g", label_map=bytes(H * W))
    said = sample_with(truth, DETECTIONS, num_classes=3, ignore_index=255)
    assert (said.label_map, said.group, said.image) == (None, "g", b"x")
    assert [(s.segment_id, s.class_id, s.area) for s in said.segments] == [(1, 1, 100.0), (2, 2, 140.0), (3, 1, 32.0)]
    expected = np.zeros((H, W))
    expected[OBJECTS[2] > 0], expected[OBJECTS[1] > 0], expected[OBJECTS[0] > 0] = 0.8, 0.25, 0.1
    np.testing.assert_allclose(pixels(said.extras["uncertainty"]) / 65535, expected, atol=1e-5)
    said = sample_with(truth, PANOPTIC, num_classes=3, ignore_index=255)
    assert said.segments == PANOPTIC.segments
    np.testing.assert_array_equal(masks.read_map(said.segment_map or b"", said), IDS)
    labels = of_map(IDS)
    np.testing.assert_array_equal(masks.read_map(said.label_map or b"", said), np.where(labels == 3, 255, labels))
    assert said.extras == {}


SURE_HW, VARIANCE_HW = np.full((H, W), 0.75, np.float32), np.full((H, W), 0.2, np.float32)


@pytest.mark.parametrize(
    ("told", "uncertainty"),
    [
        ({}, None),
        ({"confidence_HW": SURE_HW}, 0.25),
        ({"confidence_HW": SURE_HW, "uncertainty_HW": VARIANCE_HW}, 0.2),
    ],
)
def test_the_uncertainty_of_a_map_is_that_of_its_samples_or_what_is_left_of_its_confidence(
    told: dict[str, Any], uncertainty: float | None
) -> None:
    bare = Sample(sample_id="a", image=b"x", height=H, width=W, group="g")
    said = sample_with(bare, dataclasses.replace(LABELS, **told), num_classes=3, ignore_index=255)
    np.testing.assert_array_equal(masks.read_map(said.label_map or b"", said), LABELS.ids_HW)
    stored = {name: pixels(data) for name, data in said.extras.items()}
    assert stored.keys() == (set() if uncertainty is None else {"uncertainty"})
    assert all(each == pytest.approx(uncertainty * 65535, abs=1) for each in stored.values())
