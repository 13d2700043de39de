"""COCO's average precision: pycocotools' own numbers on made and real data, the edges of its rules, and bad input.

The golden numbers were printed by pycocotools 2.0.11. $SEGPIPE_DATA/coco_mini is measured where it is there.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.masks import encode_rle
from segpipe.metrics import coco_average_precision
from tests.fixtures.coco_mini import MINI, mini_detections
from tests.fixtures.random_coco import random_coco

BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
JOINTS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")

# fmt: off
GOLDEN: list[tuple[str, bool, int, list[float]]] = [
    ("segm", True, 3, [0.27431802794677407, 0.33790157769257323, 0.2324261227966114, 0.428261211096479,
        0.32477780064605305, 0.0, 0.1819444444444444, 0.4888888888888888, 0.5513888888888888,
        0.6166666666666667, 0.55, 0.0]),
    ("segm", False, 4, [0.054453845421635345, 0.06048330682799944, 0.05724853483961433, 0.03366336633663366,
        0.08671315761713157, -1.0, 0.1357142857142857, 0.39999999999999997, 0.5428571428571429, 0.2333333333333333,
        0.6272727272727273, -1.0]),
    ("bbox", True, 3, [0.3010139142740808, 0.37899388849955773, 0.33576334739701075, 0.4396064781371893,
        0.21689768976897683, 0.5, 0.1944444444444444, 0.5013888888888888, 0.5680555555555554,
        0.6277777777777779, 0.4, 0.5]),
    ("bbox", False, 3, [0.30226039293198154, 0.43153052022469796, 0.29679349681594847, 0.40251749260252456,
        0.25525066792393525, 0.2906231799650554, 0.08666666666666667, 0.5466666666666666, 0.7133333333333334, 0.7875,
        0.48, 0.6666666666666667]),
    ("keypoints", True, 3, [0.3267958897339009, 0.3770974539909234, 0.3561306514283142, 0.2982948294829483,
        0.6948294829482947, 0.5898268398268398, 0.6614718614718614, 0.6311688311688312, 0.5888888888888887,
        0.7866666666666667]),
    ("keypoints", True, 4, [0.1508850885088509, 0.15369036903690372, 0.15369036903690372, 0.21291843470061292, 1.0,
        0.5888888888888888, 0.611111111111111, 0.611111111111111, 0.7555555555555554, 1.0]),
]
# fmt: on


def names(iou_type: str) -> tuple[str, ...]:
    return JOINTS if iou_type == "keypoints" else BOXES


@pytest.mark.parametrize(("iou_type", "use_categories", "seed", "expected"), GOLDEN)
def test_the_numbers_are_those_of_pycocotools(
    iou_type: Any, use_categories: bool, seed: int, expected: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    truth, detections = random_coco(seed, iou_type)
    before = copy.deepcopy((truth, detections))
    scores = coco_average_precision(truth, detections, iou_type, use_categories=use_categories)
    assert tuple(scores) == (*names(iou_type), "per_class")
    assert [scores[name] for name in names(iou_type)] == pytest.approx(expected, abs=1e-14)
    defined = [value for value in scores["per_class"].values() if value > -1]
    assert list(scores["per_class"]) == ([1, 3, 7, 90] if use_categories else [])
    assert not use_categories or scores["AP"] == pytest.approx(np.mean(defined))
    assert (truth, detections) == before, "the arguments were changed"
    assert capfd.readouterr() == ("", "")


def published_results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's own example of a results file, and the objects it would be right about: the best of each image."""
    results = json.loads((MINI / "results_format_sample/instances_val2014_fakesegm100_results.json").read_text())
    best: dict[int, dict[str, Any]] = {}
    for entry in results:
        if entry["score"] > best.get(entry["image_id"], {"score": -1})["score"]:
            best[entry["image_id"]] = entry
    images = [{"id": image, "height": e["segmentation"]["size"][0]} for image, e in best.items()]
    for image in images:
        image["width"] = best[image["id"]]["segmentation"]["size"][1]
    categories = [{"id": category} for category in sorted({entry["category_id"] for entry in results})]
    annotations = [{**entry, "id": place, "area": 2000, "iscrowd": 0} for place, entry in enumerate(best.values(), 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


Known = tuple[Callable[[], tuple[dict[str, Any], list[dict[str, Any]]]], str, dict[str, float]]
PERFECT = {"AP": 1.0, "AP50": 1.0, "AR100": 1.0, "APs": 1.0, "APm": 1.0, "APl": 1.0}
MINI_SCORES: list[Known] = [
    (lambda: mini_detections(0), "segm", PERFECT | {"AR1": 0.7080, "AR10": 0.9891}),
    (lambda: mini_detections(3), "segm", {"AP": 0.5789, "AP50": 0.8066, "APs": 0.2152, "APm": 0.7034, "APl": 0.9139}),
    (published_results, "segm", {"AP": 0.7869, "APm": 0.9120, "APs": -1.0, "AR1": 1.0}),
    (lambda: mini_detections(3), "bbox", {"AP": 0.7259, "AP50": 0.9439, "AP75": 0.7489}),
]


def squares(*columns: int) -> dict[str, Any]:
    """One 100 x 100 image with a 20 x 20 object of class 5 at each column; image 2 and class 6 have none."""
    objects = [
        {"id": place, "image_id": 1, "category_id": 5, "bbox": [column, 10, 20, 20], "area": 400, "iscrowd": 0}
        | {"segmentation": [[column, 10, column + 20, 10, column + 20, 30, column, 30]]}
        for place, column in enumerate(columns)
    ]
    images = [{"id": image, "height": 100, "width": 100} for image in (1, 2)]
    return {"images": images, "annotations": objects, "categories": [{"id": 5}, {"id": 6}]}


def square(column: float, score: float = 0.5, *, image: int = 1, category: int = 5) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "score": score, "bbox": [column, 10, 20, 20]} | {
        "segmentation": [[column, 10, column + 20, 10, column + 20, 30, column, 30]]
    }


MADE_SCORES: list[Known] = [
    (lambda: (squares(0, 40), [square(0), square(40)]), "segm", {"AP": 1.0, "APm": -1.0, "AR1": 0.5, "AR10": 1.0}),
    (lambda: (squares(0, 40), [square(5), square(45)]), "bbox", {"AP": 0.3, "AP50": 1.0, "AP75": 0.0}),  # IoU 0.6
    (lambda: (squares(0, 40), []), "segm", {"AP": 0.0, "AR100": 0.0, "APl": -1.0}),
    (lambda: (squares(), [square(0)]), "segm", {"AP": -1.0, "AR1": -1.0}),
    (lambda: (squares(), []), "bbox", {"AP": -1.0, "AR1": -1.0}),
    (lambda: ({"images": [], "annotations": [], "categories": []}, []), "bbox", {"AP": -1.0}),
    # On the image without objects: wrong by a higher score, harmless by a lower one.
    (lambda: (squares(0), [square(0, 0.5), square(0, 0.9, image=2)]), "bbox", {"AP": 0.5}),
    (lambda: (squares(0), [square(0, 0.5), square(0, 0.4, image=2)]), "bbox", {"AP": 1.0}),
    # Equal scores keep their order.
    (lambda: (squares(0), [square(0), square(60)]), "bbox", {"AP": 1.0}),
    (lambda: (squares(0), [square(60), square(0)]), "bbox", {"AP": 0.5}),
    # The hundredth of a class and image counts, the next does not.
    (lambda: (squares(0), [square(60, 0.9)] * 99 + [square(0, 0.1)]), "bbox", {"AP": 0.01, "AR10": 0.0, "AR100": 1.0}),
    (lambda: (squares(0), [square(60, 0.9)] * 100 + [square(0, 0.1)]), "bbox", {"AP": 0.0, "AR100": 0.0}),
]  # fmt: skip


def test_boundaries_find_fault_where_masks_hardly_do() -> None:
    """In 100 x 100 a boundary is 3 wide: of a square of 20 it is 400 - 14 * 14 = 204 pixels.

    Moved by one, masks have 380 of 420 in common. Of the boundaries it is 19 x 3 above and below, and in the 14 rows
    between them 2 columns on each side: 2 * 57 + 14 * 4 = 170 of 2 * 204 - 170 = 238.
    """
    assert coco_average_precision(squares(0), [square(1)])["AP"] == pytest.approx(0.9), "380 / 420 = 0.905"
    assert coco_average_precision(squares(0), [square(1)], "boundary")["AP"] == pytest.approx(0.5), "170 / 238 = 0.714"
    assert coco_average_precision(squares(0), [square(0)], "boundary")["AP"] == 1.0
    crowd = squares(40, 0)
    crowd["annotations"][1]["iscrowd"] = 1
    scores = coco_average_precision(crowd, [square(40, 0.5), square(1, 0.9)], "boundary")
    assert scores["AP"] == 1.0, "19 of 20 columns lie on the crowd"


@pytest.mark.parametrize(("made", "iou_type", "expected"), MADE_SCORES + (MINI_SCORES if MINI.is_dir() else []))
def test_known_scores(made: Callable[[], Any], iou_type: Any, expected: dict[str, float]) -> None:
    scores = coco_average_precision(*made(), iou_type)
    found = {name: round(scores[name], 4) for name in expected}
    assert found == expected


def test_a_crowd_is_neither_found_nor_missed() -> None:
    truth = squares(0, 40)
    truth["annotations"][1]["iscrowd"] = 1
    inside = [square(0, 0.5), square(40, 0.9), square(40, 0.8), square(50, 0.7)]
    assert coco_average_precision(truth, inside[:3], "bbox")["AP"] == 1.0
    # A crowd is matched by the share of the detection inside it: here a half, enough at the first threshold only.
    assert coco_average_precision(truth, inside, "bbox")["AP"] == pytest.approx((1 + 9 * 0.5) / 10)


def test_without_categories_a_wrong_class_is_right() -> None:
    truth, wrong = squares(0), [square(0, category=6)]
    apart = coco_average_precision(truth, wrong)
    assert (apart["AP"], apart["per_class"]) == (0.0, {5: 0.0, 6: -1.0})
    together = coco_average_precision(truth, wrong, use_categories=False)
    assert (together["AP"], together["per_class"]) == (1.0, {})


def test_a_bbox_decides_whether_a_mask_is_large() -> None:
    # A thin diagonal: few pixels, large box. pycocotools sizes it by the box where a detection has one.
    truth = squares(0)
    wide = square(60) | {"segmentation": [[60, 0, 99, 90, 99, 99, 60, 9]], "bbox": [60, 0, 39, 99]}
    found = [square(0, 0.5), wide | {"score": 0.9}]
    assert coco_average_precision(truth, found)["APs"] == 1.0
    for entry in found:
        del entry["bbox"]
    assert coco_average_precision(truth, found)["APs"] == 0.5


def test_runs_without_length_change_no_score() -> None:
    # Both masks as 3 runs, and with empty runs at one place: there pycocotools would stop counting their overlap.
    truth, found = squares(0), square(0)
    for runs in ([1000, 2000, 7000], [1000, 500, 0, 1500, 7000], [0, 0, 1000, 500, 0, 0, 0, 1500, 7000, 0]):
        rle = {"size": [100, 100], "counts": runs}
        truth["annotations"][0]["segmentation"] = found["segmentation"] = rle
        assert coco_average_precision(truth, [found])["AP"] == 1.0


def test_ids_may_be_any_whole_numbers() -> None:
    truth = squares(0, 40)
    images, classes = {1: 10**30, 2: -4}, {5: 0, 6: -(2**70)}
    for entry in truth["images"]:
        entry["id"] = images[entry["id"]]
    for entry in truth["categories"]:
        entry["id"] = classes[entry["id"]]
    found = [square(0), square(40)]
    for entry in (*truth["annotations"], *found):
        entry |= {"image_id": np.int64(-4) if entry["image_id"] == 2 else 10**30, "category_id": np.uint8(0)}
    assert coco_average_precision(truth, found)["per_class"] == {-(2**70): -1.0, 0: 1.0}


def bad_document(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    truth = squares(0, 40)
    change(truth)
    return truth


JOINT = {"image_id": 1, "category_id": 5, "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": math.nan}, r"COCO detections\[1\]: score is nan; expected a finite number"),
        ({"score": None}, r"score is None"),
        ({"score": 10**400}, r"score is 1000.*; expected a finite number"),
        ({"score": True}, r"score is True"),
        ({"image_id": 3}, r"COCO detections\[1\]: image_id 3 is none of the 2 images"),
        ({"image_id": "1"}, r"image_id is '1'; expected a whole number"),
        ({"category_id": 8}, r"category_id 8 is none of the ground truth's; it has \[5, 6\]"),
        ({"bbox": [0, 0, -1, 5]}, r"COCO detections\[1\]: bbox \[0\.0, 0\.0, -1\.0, 5\.0\] has a negative extent"),
        ({"bbox": [0, 0, 1]}, "expected 4 numbers"),
        ({"bbox": [0, 0, 1, math.inf]}, "expected 4 numbers within 1e"),
        ({"bbox": [0, 0, 1e300, 1e300]}, "expected 4 numbers within 1e"),
        ({"bbox": [0, 0, "1", 1]}, "expected 4 numbers"),
        ({"segmentation": None}, "segmentation is None; expected polygons or run lengths"),
        ({"segmentation": []}, "segmentation is \\[\\]"),
        ({"segmentation": "abc"}, "segmentation is 'abc'"),
        ({"segmentation": {"counts": b"04"}}, "expected polygons or run lengths with size"),
        ({"segmentation": [[0, 0, 5, 5]]}, r"\[1\]: segmentation: polygon 0 has 2 points"),
        ({"segmentation": [[0, 0, 5, 5, math.nan, 1]]}, "polygon 0"),
        ({"segmentation": [[0, 0, 5, 5, 1e9, 1]]}, "within 1e"),
        ({"segmentation": {"size": [99, 100], "counts": [9900]}}, r"for size \[100, 100\], got size \[99, 100\]"),
        ({"segmentation": {"size": [100, 100], "counts": [9999]}}, "the runs cover 9999 pixels"),
        ({"segmentation": {"size": [100, 100], "counts": [-1, 10001]}}, "a run of -1 pixels"),
        ({"segmentation": {"size": [100, 100], "counts": "~~~~"}}, "malformed compressed counts"),
        ({"segmentation": {"size": [100, 100], "counts": b"\xff\x00"}}, "malformed compressed counts"),
        ({"segmentation": {"size": [100, 100], "counts": b"oooooooooooo0"}}, "characters in compressed counts"),
        ({"segmentation": {"size": [100, 100], "counts": [0.5]}}, "whole numbers"),
    ],
)  # fmt: skip
def test_a_bad_detection_is_named_before_compiled_code_sees_it(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        coco_average_precision(squares(0, 40), [square(0), square(40) | change])


def test_no_bytes_reach_compiled_code_unchecked() -> None:
    """Counts drawn at random, or good ones with a few characters changed: scored, or refused by name."""
    draw = random.Random(0)
    good = encode_rle(np.random.default_rng(0).integers(0, 2, (100, 100)))["counts"]
    messages, scores = [], []
    for _ in range(400):
        counts = bytearray(good if draw.random() < 0.6 else draw.randbytes(draw.randint(1, 40)))
        for _ in range(draw.randint(0, 3)):
            counts[draw.randrange(len(counts))] = draw.randint(40, 120)
        text = bytes(counts) if draw.random() < 0.5 else counts.decode("latin-1")
        changed = square(0) | {"segmentation": {"size": [100, 100], "counts": text}}
        try:
            scores.append(coco_average_precision(squares(0), [changed])["AP"])
        except InputError as error:
            messages.append(str(error))
    assert len(scores) > 30
    assert len(messages) > 200
    assert all(0 <= score <= 1 for score in scores)
    assert all("COCO detections[0]: segmentation: run lengths: " in message for message in messages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda truth: truth["images"][1].update(id=1), r"COCO images\[1\] \(id 1\): this id was met before"),
        (lambda truth: truth["categories"][1].update(id=5), r"COCO categories\[1\] \(id 5\): this id was met before"),
        (lambda truth: truth["annotations"][1].update(id=0), r"COCO annotations\[1\] \(id 0\): this id was met before"),
        (lambda truth: truth["annotations"][1].pop("id"), r"COCO annotations\[1\]: id is None"),
        (lambda truth: truth["annotations"][1].update(image_id=9), r"annotations\[1\] \(id 1\): image_id 9 is none"),
        (lambda truth: truth["annotations"][1].update(category_id=1), "category_id 1 is none"),
        (lambda truth: truth["annotations"][1].update(iscrowd=2), "iscrowd 2; expected 0 or 1"),
        (lambda truth: truth["annotations"][1].pop("area"), "area is None"),
        (lambda truth: truth["annotations"][1].update(area=-1), r"area -1\.0; expected pixels"),
        (lambda truth: truth["annotations"][1].update(segmentation=[[1, 2]]), "polygon 0 has 1 points"),
        (lambda truth: truth["images"][0].update(height=0), "size 0 x 100; expected 1 to"),
        (lambda truth: truth["images"][0].update(height=10**7, width=10**7), "expected 1 to 200000000 pixels"),
        (lambda truth: truth["images"][0].pop("width"), "width is None"),
        (lambda truth: truth.pop("categories"), "expected a dict with a list of categories"),
        (lambda truth: truth["images"].append(7), r"images\[2\]: expected a dict, found 7"),
    ],
)
def test_a_bad_ground_truth_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        coco_average_precision(bad_document(change), [square(0)])


@pytest.mark.parametrize(
    ("detections", "options", "message"),
    [
        ({}, {}, "COCO detections: expected a list, found dict"),
        ([square(0)], {"iou_type": "mask"}, "iou_type 'mask'; expected one of segm, boundary, bbox, keypoints"),
        ([square(0)], {"iou_type": "keypoints", "use_categories": False}, "keypoints are measured by category only"),
        ([square(0), {k: v for k, v in square(0).items() if k != "bbox"}], {}, "some detections have a bbox and some"),
        ([JOINT], {"iou_type": "bbox"}, "bbox is None; expected 4 numbers"),
    ],
)
def test_wrong_use_is_named(detections: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        coco_average_precision(squares(0), detections, **options)


def test_a_person_has_seventeen_joints() -> None:
    truth, detections = random_coco(3, "keypoints")
    with pytest.raises(InputError, match=r"detections\[0\]: keypoints is .*; expected 51 numbers"):
        coco_average_precision(truth, [detections[0] | {"keypoints": [1, 2, 3]}], "keypoints")
    del truth["annotations"][2]["num_keypoints"]
    with pytest.raises(InputError, match=r"annotations\[2\] \(id 16\): num_keypoints is None"):
        coco_average_precision(truth, detections, "keypoints")
