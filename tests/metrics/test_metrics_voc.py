"""VOC's average precision against the devkit's rules, written again plainly with one loop for each of its own."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.metrics import voc_average_precision


def truth(image: Any, category: Any, box: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, **more}


def found(image: Any, category: Any, box: list[float], score: float) -> dict[str, Any]:
    return truth(image, category, box, score=score)


def slow_ap(truths: list[dict[str, Any]], detections: list[dict[str, Any]], least: float, points: int | None) -> float:
    """VOCevaldet.m for one class, in the words of the development kit: tp and fp in the order of confidence."""
    positives = sum(not item.get("difficult") for item in truths)
    if not positives:
        return math.nan
    taken: set[int] = set()
    tp, fp = [], []
    for detection in sorted(detections, key=lambda item: -item["score"]):
        best, best_at = -math.inf, -1
        for at, item in enumerate(truths):
            if item["image_id"] != detection["image_id"]:
                continue
            a, b = detection["bbox"], item["bbox"]
            width = min(a[2], b[2]) - max(a[0], b[0]) + 1
            height = min(a[3], b[3]) - max(a[1], b[1]) + 1
            if width > 0 and height > 0:
                areas = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
                overlap = width * height / (areas - width * height)
                if overlap > best:
                    best, best_at = overlap, at
        hit = best >= least
        counts = not (hit and truths[best_at].get("difficult"))
        tp.append(int(hit and counts and best_at not in taken))
        fp.append(int(counts and not tp[-1]))
        if tp[-1]:
            taken.add(best_at)
    rec, prec = [], []
    for end in range(1, len(tp) + 1):
        right, wrong = sum(tp[:end]), sum(fp[:end])
        rec.append(right / positives)
        prec.append(right / (right + wrong) if right + wrong else math.nan)
    if points is not None:
        steps = [at / (points - 1) for at in range(points)]
        if points == 11:
            steps = [at * 0.1 if at <= 5 else 1 - (10 - at) * 0.1 for at in range(11)]  # as MATLAB makes 0:0.1:1
        best_to_come = [
            max((p for r, p in zip(rec, prec, strict=True) if r >= step and not math.isnan(p)), default=0)
            for step in steps
        ]
        return sum(best_to_come) / points
    mrec, mpre = [0.0, *rec, 1.0], [0.0, *(0.0 if math.isnan(p) else p for p in prec), 0.0]
    for at in range(len(mpre) - 2, -1, -1):
        mpre[at] = max(mpre[at], mpre[at + 1])
    return sum((mrec[at] - mrec[at - 1]) * mpre[at] for at in range(1, len(mrec)) if mrec[at] != mrec[at - 1])


def random_boxes(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Crowded small boxes with tied scores, so that matches, repeats, ties and difficult ones all happen."""
    draw = random.Random(seed)

    def box() -> list[float]:
        x, y = draw.randint(0, 3), draw.randint(0, 3)
        return [x, y, x + draw.randint(2, 5), y + draw.randint(2, 5)]

    truths = [
        truth(draw.randint(1, 4), draw.choice("ab"), box(), difficult=draw.random() < 0.25)
        for _ in range(draw.randint(0, 14))
    ]
    return truths, [found(draw.randint(1, 5), draw.choice("abc"), box(), draw.randint(0, 9) / 9) for _ in range(40)]


@pytest.mark.parametrize("points", [None, 5, 11])
@pytest.mark.parametrize("least", [0.3, 0.5])
def test_it_is_the_devkit_on_random_boxes(points: int | None, least: float) -> None:
    values = []
    for seed in range(25):
        truths, detections = random_boxes(seed)
        scores = voc_average_precision(truths, detections, iou_threshold=least, points=points)
        categories = {item["category_id"] for item in (*truths, *detections)}
        assert scores["per_class"].keys() == categories
        for category in categories:
            mine = [[item for item in kind if item["category_id"] == category] for kind in (truths, detections)]
            expected = slow_ap(*mine, least, points)
            assert scores["per_class"][category] == pytest.approx(expected, abs=1e-14, nan_ok=True)
        defined = [value for value in scores["per_class"].values() if not math.isnan(value)]
        assert scores["mAP"] == pytest.approx(np.mean(defined) if defined else math.nan, nan_ok=True)
        values += defined
    assert 0.02 < np.mean(values) < 0.9, "the draw decides nothing"


BOX = [10, 10, 19, 19]


@pytest.mark.parametrize(
    ("box", "least", "ap"),
    [
        ([10, 10, 19, 19], 1.0, 1.0),
        ([10, 10, 19, 14], 0.5, 1.0),  # 50 of 100 pixels, edges included: exactly half, which is enough
        ([10, 10, 19, 13], 0.5, 0.0),
        ([19, 19, 28, 28], 1 / 199, 1.0),  # boxes that share the one pixel of their corners overlap
        ([20, 20, 28, 28], 1e-9, 0.0),
    ],
)
def test_pixels_include_both_edges(box: list[float], least: float, ap: float) -> None:
    assert voc_average_precision([truth(1, 7, BOX)], [found(1, 7, box, 1)], iou_threshold=least)["mAP"] == ap


def test_the_second_on_a_truth_is_wrong_even_where_another_truth_is_free() -> None:
    near = [12, 10, 21, 19]
    truths = [truth(1, 7, BOX), truth(1, 7, near)]
    detections = [found(1, 7, BOX, 0.9), found(1, 7, [10, 10, 19, 19.5], 0.8), found(1, 7, near, 0.7)]
    assert voc_average_precision(truths, detections, points=None)["mAP"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_difficult_truths_count_neither_way() -> None:
    truths = [truth("x", "cat", BOX, difficult=1), truth("y", "cat", BOX, difficult=0)]
    twice = [found("x", "cat", BOX, 0.9), found("x", "cat", BOX, 0.8), found("y", "cat", BOX, 0.7)]
    assert voc_average_precision(truths, twice)["mAP"] == 1.0
    assert voc_average_precision(truths, twice[2:])["mAP"] == 1.0
    only = voc_average_precision(truths[:1], twice)
    assert math.isnan(only["per_class"]["cat"])
    assert math.isnan(only["mAP"])


def test_classes_without_truth_drop_out_and_images_without_truth_do_not() -> None:
    scores = voc_average_precision(
        [truth(1, 7, BOX)], [found(1, 7, BOX, 0.5), found(1, 8, BOX, 0.9), found(2, 7, BOX, 0.9)]
    )
    assert scores["per_class"][7] == 0.5
    assert math.isnan(scores["per_class"][8])
    assert scores["mAP"] == 0.5
    assert voc_average_precision([truth(1, 7, BOX)], []) == {"per_class": {7: 0.0}, "mAP": 0.0}
    nothing = voc_average_precision([], [])
    assert nothing["per_class"] == {}
    assert math.isnan(nothing["mAP"])


def test_equal_scores_keep_their_order() -> None:
    hit, miss = found(1, 7, BOX, 0.5), found(2, 7, BOX, 0.5)
    assert voc_average_precision([truth(1, 7, BOX)], [hit, miss])["mAP"] == 1.0
    assert voc_average_precision([truth(1, 7, BOX)], [miss, hit])["mAP"] == 0.5


@pytest.mark.parametrize(
    ("what", "change", "message"),
    [
        ("truth", {"bbox": [3, 3, 2, 4]}, r"ground_truth\[1\]: bbox \[3, 3, 2, 4\]; expected finite"),
        ("truth", {"bbox": [3, 3, 4]}, r"ground_truth\[1\]: bbox"),
        ("truth", {"bbox": "abcd"}, r"ground_truth\[1\]: bbox"),
        ("truth", {"bbox": None}, r"ground_truth\[1\]: bbox"),
        ("truth", {"difficult": 2}, r"ground_truth\[1\]: difficult 2; expected 0 or 1"),
        ("truth", {"image_id": [1]}, r"ground_truth\[1\]: image_id and category_id must be"),
        ("found", {"bbox": [0, 0, math.inf, 1]}, r"detections\[1\]: bbox"),
        ("found", {"score": math.nan}, r"detections\[1\]: score nan"),
        ("found", {"score": "high"}, r"detections\[1\]: score 'high'"),
        ("found", {"score": True}, r"detections\[1\]: score True"),
    ],
)
def test_a_bad_entry_is_named(what: str, change: dict[str, Any], message: str) -> None:
    truths, detections = [truth(1, 7, BOX), truth(1, 7, BOX)], [found(1, 7, BOX, 0.5), found(1, 7, BOX, 0.5)]
    (truths if what == "truth" else detections)[1].update(change)
    with pytest.raises(InputError, match=message):
        voc_average_precision(truths, detections)


def test_wrong_use_is_named() -> None:
    with pytest.raises(InputError, match=r"detections\[0\]: expected image_id, category_id, bbox, score"):
        voc_average_precision([], [truth(1, 7, BOX)])
    with pytest.raises(InputError, match=r"ground_truth\[0\]: expected image_id, category_id, bbox, found 5"):
        voc_average_precision([5], [])  # type: ignore[list-item]
    for threshold in (0, 50, math.nan, True):
        with pytest.raises(InputError, match="iou_threshold = "):
            voc_average_precision([], [], iou_threshold=threshold)
    with pytest.raises(InputError, match="points = 7"):
        voc_average_precision([truth(1, 7, BOX)], [], points=7)
