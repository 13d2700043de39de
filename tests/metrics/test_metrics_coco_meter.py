"""The meter of detections: for any number of workers the bits of the evaluator that sees all images at once."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.metrics import DetectionMeter, coco_average_precision
from tests.fixtures.random_coco import HEIGHT, WIDTH, random_coco
from tests.metrics.test_metrics_coco import MINI, mini_detections

CASES = [
    ("segm", True),
    ("segm", False),
    ("boundary", True),
    ("boundary", False),
    ("bbox", True),
    ("bbox", False),
    ("keypoints", True),
]


def by_workers(
    truth: dict[str, Any], detections: list[dict[str, Any]], workers: int, iou_type: Any, use_categories: bool
) -> DetectionMeter:
    """Images dealt out in a drawn order, each worker's meter sent through a pickle."""
    categories = [category["id"] for category in truth["categories"]]
    meters = [DetectionMeter(categories, iou_type, use_categories=use_categories) for _ in range(workers)]
    images = [image["id"] for image in truth["images"]]
    random.Random(workers).shuffle(images)
    for at, image in enumerate(images):
        mine = [[entry for entry in kind if entry["image_id"] == image] for kind in (truth["annotations"], detections)]
        meters[at % workers].update(image, (HEIGHT, WIDTH), *mine)
    whole, *others = [pickle.loads(pickle.dumps(meter)) for meter in meters]
    for other in others:
        whole.merge(other)
    return whole


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("iou_type", "use_categories"), CASES)
def test_any_number_of_workers_gives_the_evaluators_bits(iou_type: Any, use_categories: bool, seed: int) -> None:
    truth, detections = random_coco(seed, iou_type)
    expected = coco_average_precision(truth, detections, iou_type, use_categories=use_categories)
    assert expected["AP"] > 0
    for workers in (1, 2, 5, 9):
        assert by_workers(truth, detections, workers, iou_type, use_categories).scores() == expected


@pytest.mark.parametrize("iou_type", ["segm", "boundary"])
def test_real_photographs_give_the_evaluators_bits_too(iou_type: Any) -> None:
    """COCO mini where it is there, else a larger drawn document."""
    truth, detections = mini_detections(3) if MINI.is_dir() else random_coco(7, iou_type, num_images=30)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    meter = DetectionMeter([category["id"] for category in truth["categories"]], iou_type)
    for image, size in sizes.items():
        mine = [[entry for entry in kind if entry["image_id"] == image] for kind in (truth["annotations"], detections)]
        meter.update(image, size, *mine)
    assert meter.scores() == coco_average_precision(truth, detections, iou_type)
    assert f"ap/coco/{iou_type}" in meter.metrics()


def test_no_images_and_empty_images_have_no_score() -> None:
    meter = DetectionMeter([3, 1], "bbox")
    assert meter.metrics() == {}
    meter.update("a", (10, 10), [], [])
    assert meter.scores() == coco_average_precision(
        {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 3}, {"id": 1}]}, [], "bbox"
    )


BOX = {"id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}


def test_metric_names_say_the_protocol() -> None:
    meter = DetectionMeter([1], "bbox")
    meter.update("frame 7", (10, 10), [BOX], [{**BOX, "score": 0.5}])
    assert meter.metrics() == {
        f"{name}/coco/bbox": 1.0 for name in ("ap", "ap50", "ap75", "aps", "ar1", "ar10", "ar100", "ars")
    }
    agnostic = DetectionMeter([1, 2], "bbox", use_categories=False)
    agnostic.update("frame 7", (10, 10), [BOX], [{**BOX, "category_id": 2, "score": 0.5}])
    assert agnostic.metrics()["ap50/coco/bbox/class-agnostic"] == 1.0


def test_the_curve_tells_what_a_threshold_buys() -> None:
    meter = DetectionMeter([1, 2], "bbox")
    crowd = {"id": 9, "category_id": 1, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 1}
    boxes = [(0, 0.9, 1), (60, 0.8, 1), (30, 0.7, 1), (0, 0.6, 2)]  # right, on the crowd, nowhere, of the wrong class
    found = [{"bbox": [x, x, 9, 9], "score": score, "category_id": category} for x, score, category in boxes]
    meter.update("a", (100, 100), [BOX, crowd], found)
    meter.update("b", (100, 100), [BOX], [{**BOX, "score": 0.7}])
    curve = meter.curve(1)
    assert curve.thresholds.tolist() == [0.9, 0.7]
    assert curve.precision.tolist() == [1.0, 2 / 3]
    assert curve.recall.tolist() == [0.5, 1.0]
    everything = meter.curve(iou_threshold=0.95)
    assert everything.thresholds.tolist() == [0.9, 0.7, 0.6]
    assert everything.precision.tolist() == [1.0, 2 / 3, 0.5]
    assert np.isnan(meter.curve(2).recall).all()
    assert DetectionMeter([1]).curve().thresholds.size == 0
    with pytest.raises(InputError, match=r"iou_threshold 0\.33; expected one of"):
        meter.curve(iou_threshold=0.33)
    with pytest.raises(InputError, match=r"category 7 is not told apart; it has \[1, 2\]"):
        meter.curve(7)


def test_what_is_kept_of_an_image_is_small() -> None:
    truth, detections = random_coco(1, "segm")
    kept = by_workers(truth, detections, 1, "segm", True).images.values()
    rows = sum(len(image.scores) for image in kept)
    size = sum(getattr(image, name).nbytes for image in kept for name in ("categories", "scores", "matched", "ignored"))
    assert rows > 100
    assert size == rows * (4 + 8 + 8 + 8)
    assert all(np.diff(image.categories).min(initial=0) >= 0 for image in kept)


def test_an_image_counts_once_and_refused_ones_not_at_all() -> None:
    meter, other = DetectionMeter([1], "bbox"), DetectionMeter([1], "bbox")
    meter.update(5, (10, 10), [BOX], [])
    other.update(5, (10, 10), [], [])
    for repeat in (lambda: meter.update(5, (10, 10), [], []), lambda: meter.merge(other)):
        with pytest.raises(InputError, match=r"image 5 is counted twice .*exactly once"):
            repeat()
    with pytest.raises(InputError, match=r"image 6: COCO detections\[0\].*: score is None"):
        meter.update(6, (10, 10), [], [BOX])
    with pytest.raises(InputError, match="image 6: entry 0 is of image 7"):
        meter.update(6, (10, 10), [{**BOX, "image_id": 7}], [])
    assert list(meter.images) == [5]
    assert meter.scores()["AP"] == 0.0


@pytest.mark.parametrize(
    "other", [DetectionMeter([1]), DetectionMeter([1, 2], "bbox"), DetectionMeter([1], "bbox", use_categories=False)]
)
def test_other_measures_do_not_merge(other: DetectionMeter) -> None:
    with pytest.raises(InputError, match="meter: parts of a split must be measured alike"):
        DetectionMeter([1], "bbox").merge(other)
    with pytest.raises(InputError, match="measured by category only"):
        DetectionMeter([1], "keypoints", use_categories=False)
    with pytest.raises(InputError, match=r"categories\[1\] \(id 1\): this id was met before"):
        DetectionMeter([1, 1])
