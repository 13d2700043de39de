"""Panoptic quality against the paper's definition over sets of pixels, worked examples, and the meter's bookkeeping."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segpipe.errors import InputError
from segpipe.metrics import PanopticMeter, panoptic_quality
from segpipe.metrics.segments import count_pairs
from tests.fixtures.slow_panoptic import (
    CAR,
    CATEGORIES,
    PERSON,
    ROAD,
    SKY,
    item,
    made_split,
    slow_counts,
    slow_quality,
)


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to the last bit."""
    assert found.keys() == expected.keys() == {"all", "things", "stuff", "per_class"}
    assert found["per_class"] == expected["per_class"]
    for name in ("all", "things", "stuff"):
        assert found[name].keys() == {"pq", "sq", "rq", "n"}
        assert {k: repr(v) for k, v in found[name].items()} == {k: repr(v) for k, v in expected[name].items()}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([None, 0.02, 0.2]))
def test_scores_equal_the_papers_definition_to_the_last_bit(seed: int, ratio: float | None) -> None:
    truths, predictions = made_split(3, seed)
    found = panoptic_quality(truths, predictions, CATEGORIES, dilation_ratio=ratio)
    same(found, slow_quality(truths, predictions, ratio))


def test_what_is_made_meets_every_rule() -> None:
    """The random images above would prove little if none held a match, a crowd or an excused prediction."""
    truths, predictions = made_split(60)
    totals = [slow_counts(t, p, None) for t, p in zip(truths, predictions, strict=True)]
    assert sum(len(ious) for counts in totals for ious, _, _ in counts.values()) > 50
    assert sum(fp for counts in totals for _, fp, _ in counts.values()) > 30
    assert sum(fn for counts in totals for _, _, fn in counts.values()) > 30
    counted = sum(len(ious) + fp for counts in totals for ious, fp, _ in counts.values())
    assert counted < sum(len(p["segments_info"]) for p in predictions), "some are excused"
    assert any(s["iscrowd"] for t in truths for s in t["segments_info"])


# ---- examples worked by hand


def one(truth: dict[str, Any], prediction: dict[str, Any], category: int = PERSON) -> tuple[float, ...]:
    meter = PanopticMeter(CATEGORIES)
    meter.update([truth], [prediction])
    place = [c["id"] for c in CATEGORIES].index(category)
    return tuple(meter.counts()[0, place].tolist())


@pytest.mark.parametrize(
    ("true_row", "true_kinds", "row", "kinds", "expected"),
    [
        # 3 of 4 pixels found: IoU 3/4.
        ([5, 5, 5, 5], {5: PERSON}, [9, 9, 9, 0], {9: PERSON}, (0.75, 1, 0, 0)),
        # IoU of exactly a half is no match: one missed, one too many.
        ([5, 5, 5, 5], {5: PERSON}, [9, 9, 0, 0], {9: PERSON}, (0, 0, 1, 1)),
        # Void pixels leave the union: 2 / (4 + 2 - 2 - 2) = 1.
        ([5, 5, 0, 0], {5: PERSON}, [9, 9, 9, 9], {9: PERSON}, (1, 1, 0, 0)),
        # Void in the prediction stays in it: 2 / 3.
        ([5, 5, 5, 0], {5: PERSON}, [9, 9, 0, 0], {9: PERSON}, (2 / 3, 1, 0, 0)),
        # Another category is no match.
        ([5, 5, 5, 5], {5: PERSON}, [9, 9, 9, 9], {9: CAR}, (0, 0, 0, 1)),
        # By half in void: a false positive. By more: none.
        ([0, 0, 5, 5], {5: CAR}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 1, 0)),
        ([0, 0, 0, 5], {5: CAR}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 0, 0)),
        # A crowd is neither matched nor missed, and excuses its own category alone.
        ([5, 5, 5, 5], {5: (PERSON, 1)}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 0, 0)),
        ([5, 5, 5, 5], {5: (CAR, 1)}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 1, 0)),
        ([5, 5, 5, 5], {5: (PERSON, 1)}, [0, 0, 0, 0], {}, (0, 0, 0, 0)),
        # Void and crowd excuse together: 1/4 + 2/4.
        ([0, 5, 5, 6], {5: (PERSON, 1), 6: CAR}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 0, 0)),
        # The crowd's pixels do stay in the union: 2 / 4.
        ([5, 5, 6, 6], {5: PERSON, 6: (PERSON, 1)}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 1, 1)),
        # Of two crowds of a category panopticapi knows the last of segments_info: 1/4 is not enough, 3/4 are.
        ([5, 5, 5, 6], {5: (PERSON, 1), 6: (PERSON, 1)}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 1, 0)),
        ([5, 5, 5, 6], {6: (PERSON, 1), 5: (PERSON, 1)}, [9, 9, 9, 9], {9: PERSON}, (0, 0, 0, 0)),
        # Two halves of one segment: neither exceeds 0.5.
        ([5, 5, 5, 5], {5: PERSON}, [8, 8, 9, 9], {8: PERSON, 9: PERSON}, (0, 0, 2, 1)),
        ([0, 0], {}, [0, 0], {}, (0, 0, 0, 0)),
    ],
)
def test_each_rule_on_one_row(
    true_row: Any, true_kinds: Any, row: Any, kinds: Any, expected: tuple[float, ...]
) -> None:
    truth, prediction = item(1, [true_row], true_kinds), item(1, [row], kinds)
    assert one(truth, prediction) == expected
    ious, fp, fn = slow_counts(truth, prediction, None)[PERSON]
    assert (sum(ious), len(ious), fp, fn) == expected


def test_the_worked_example() -> None:
    truths = [
        item(1, [[1, 1, 1, 1], [2, 2, 2, 2]], {1: PERSON, 2: SKY}),
        item(2, [[1, 1, 1, 1], [2, 2, 2, 0]], {1: PERSON, 2: CAR}),
    ]
    predictions = [
        item(1, [[1, 1, 1, 0], [2, 2, 2, 2]], {1: PERSON, 2: SKY}),
        item(2, [[1, 1, 1, 1], [3, 3, 3, 3]], {1: PERSON, 3: SKY}),
    ]
    found = panoptic_quality(truths, predictions, CATEGORIES)
    # Person: 0.75 and 1. Car: missed. Sky: one right, one too many, so 1 / 1.5. Road occurs nowhere.
    assert found["per_class"] == {
        PERSON: {"pq": 0.875, "sq": 0.875, "rq": 1.0},
        CAR: {"pq": 0.0, "sq": 0.0, "rq": 0.0},
        SKY: {"pq": 1 / 1.5, "sq": 1.0, "rq": 1 / 1.5},
        ROAD: {"pq": 0.0, "sq": 0.0, "rq": 0.0},
    }
    assert found["things"] == {"pq": 0.4375, "sq": 0.4375, "rq": 0.5, "n": 2}
    assert found["stuff"] == {"pq": 1 / 1.5, "sq": 1.0, "rq": 1 / 1.5, "n": 1}
    assert found["all"] == pytest.approx(
        {"pq": (0.875 + 1 / 1.5) / 3, "sq": 1.875 / 3, "rq": (1 + 1 / 1.5) / 3, "n": 3}
    )


def test_nothing_to_average_is_nan_and_zero_categories() -> None:
    empty = item(1, [[0, 0]], {})
    found = panoptic_quality([empty], [empty], CATEGORIES)
    for name in ("all", "things", "stuff"):
        assert found[name]["n"] == 0
        assert all(math.isnan(found[name][score]) for score in ("pq", "sq", "rq"))
    things = panoptic_quality([item(1, [[4]], {4: CAR})], [item(1, [[4]], {4: CAR})], CATEGORIES)
    assert things["things"]["pq"] == things["all"]["pq"] == 1.0
    assert (things["stuff"]["n"], math.isnan(things["stuff"]["pq"])) == (0, True)


def test_boundaries_lower_the_overlap_of_what_is_large() -> None:
    """A square of 40 found as one of 36 inside it: IoU 0.81; of boundaries 2 wide (0.02 of 85) nothing is common."""
    truth, prediction = np.zeros((60, 60), dtype=np.int64), np.zeros((60, 60), dtype=np.int64)
    truth[10:50, 10:50], prediction[12:48, 12:48] = 1, 1
    truth[truth == 0] = 2
    truths = [item(1, truth, {1: PERSON, 2: SKY})]
    predictions = [item(1, prediction, {1: PERSON})]
    by_mask = panoptic_quality(truths, predictions, CATEGORIES)["per_class"][PERSON]
    by_edge = panoptic_quality(truths, predictions, CATEGORIES, dilation_ratio=0.02)["per_class"][PERSON]
    assert by_mask == {"pq": 0.81, "sq": 0.81, "rq": 1.0}
    assert by_edge == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    with pytest.raises(InputError, match="dilation_ratio must be above 0"):
        panoptic_quality(truths, predictions, CATEGORIES, dilation_ratio=0.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_maps_of_every_integer_type_and_of_torch(dtype: Any) -> None:
    rows, named = [[1, 1, 2], [0, 2, 2]], {1: CAR, 2: SKY}
    truth, prediction = item("a", rows, named, dtype), item("a", [[1, 2, 2], [1, 2, 2]], named, dtype)
    expected = slow_quality([truth], [prediction])
    same(panoptic_quality([truth], [prediction], CATEGORIES), expected)
    if dtype in (np.uint8, np.int32, np.int64):
        truth["map"], prediction["map"] = torch.from_numpy(truth["map"]), torch.from_numpy(prediction["map"])
        same(panoptic_quality([truth], [prediction], CATEGORIES), expected)


def test_pairs_equal_a_count_of_every_pixel() -> None:
    rng = np.random.default_rng(0)
    sizes = [((1, 1), 2), ((7, 9), 3), ((40, 30), 1 << 24), ((20, 20), 1 << 32)]
    for (size, high), run in itertools.product(sizes, (1, 2, 9)):
        truth, predicted = np.repeat(rng.integers(0, high, (2, *size)), run, axis=2).astype(np.uint32)
        slow: dict[tuple[int, int], int] = {}
        for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            slow[pair] = slow.get(pair, 0) + 1
        found = count_pairs(truth, predicted)
        assert list(found.items()) == sorted(slow.items())
        assert count_pairs(truth[:, ::2].T, predicted[:, ::2].T) == count_pairs(truth[:, ::2], predicted[:, ::2])
    assert count_pairs(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)) == {}


# ---- what is refused


GOOD = {"rows": [[1, 1, 2]], "segments": {1: CAR, 2: SKY}}


def entry(number: int = 1, **changes: Any) -> dict[str, Any]:
    made_item = item(number, GOOD["rows"], GOOD["segments"])  # type: ignore[arg-type]
    made_item["segments_info"][0] |= changes
    return made_item


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (
            item(7, [[1, 3]], {1: CAR}),
            item(7, [[1, 1]], {1: CAR}),
            r"image 7, truth: segment 3 has 1 pixels of the map",
        ),
        (item(7, [[1, 1]], {1: CAR}), item(7, [[1, 3]], {1: CAR}), r"image 7, prediction: segment 3 has 1 pixels"),
        (
            item("x", [[1]], {1: CAR, 4: CAR}),
            item("x", [[1]], {1: CAR}),
            r"image 'x', truth: segment 4 is in segments_i",
        ),
        (
            item(7, [[1]], {1: CAR}),
            item(7, [[1]], {1: CAR, 4: CAR}),
            r"prediction: segment 4 is in segments_info and has",
        ),
        (entry(), entry(category_id=99), r"image 1, prediction: segment 1 is of category 99"),
        (entry(category_id=99), entry(), r"image 1, truth: segment 1 is of category 99"),
        (entry(), item(1, [[1], [1]], {1: CAR}), r"image 1: the truth is \(1, 3\), the prediction \(2, 1\)"),
        (entry(), entry(id=2), r"prediction: segment 2 stands twice"),
        (entry(), entry(id=0), r"segment 0: ids are 1\.\.4294967295"),
        (entry(), entry(id="1"), r"segment '1' has id '1'; expected a whole number"),
        (entry(), entry(category_id=None), r"segment 1 has category_id None"),
        (entry(iscrowd=2), entry(), r"segment 1 has iscrowd 2; expected 0 or 1"),
        (entry(area=3), entry(), r"truth: segment 1 states area 3, its pixels in the map are 2"),
        (entry(), item(1, [[-1, 1, 1]], {1: CAR}, np.int64), r"the map holds id -1"),
        (entry(), item(1, [[1 << 32, 1, 1]], {1: CAR}, np.int64), r"the map holds id 4294967296"),
        (entry(), item(1, [[1.0, 1.0, 2.0]], {1: CAR, 2: SKY}, np.float32), r"\(H, W\) in integers, found .* float32"),
        (entry(), item(1, [1, 1, 2], {1: CAR, 2: SKY}), r"prediction: expected a map of shape \(H, W\)"),
        (entry(), {"image_id": 1, "map": np.ones((1, 3), int)}, r"prediction: has no 'segments_info'"),
        (entry(), {"image_id": 1, "segments_info": []}, r"prediction: has no 'map'"),
        (entry(), entry() | {"segments_info": [3]}, r"segments_info holds 3"),
        (entry(), {"map": np.ones((1, 3), int)}, r"a prediction has image_id None"),
        (entry() | {"image_id": 1.5}, entry(), r"a truth has image_id 1.5"),
        (entry(), entry(2), r"image 1 has no prediction \(1 such of 1 images\)"),
    ],
)
def test_bad_input_names_the_image_and_the_segment(truth: Any, prediction: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        panoptic_quality([truth], [prediction], CATEGORIES)


def test_double_images_and_bad_categories_are_refused() -> None:
    with pytest.raises(InputError, match="image 1 has two truths"):
        panoptic_quality([entry(), entry()], [entry()], CATEGORIES)
    with pytest.raises(InputError, match="image 1 has two predictions"):
        panoptic_quality([entry()], [entry(), entry()], CATEGORIES)
    for category in ({"id": 1}, {"isthing": 1}, {"id": "1", "isthing": 0}, {"id": 1, "isthing": 3}):
        with pytest.raises(InputError, match="expected a whole id, and isthing 0 or 1"):
            panoptic_quality([], [], [category])
    with pytest.raises(InputError, match="category 1 is listed twice"):
        panoptic_quality([], [], [CATEGORIES[0], CATEGORIES[0]])


def test_what_is_allowed() -> None:
    """A prediction's crowd flag and areas mean nothing, nor do predictions of other images, as with panopticapi."""
    bare = entry(area=1)
    for info in bare["segments_info"]:
        del info["iscrowd"]
    stated = entry(area=2)
    same(
        panoptic_quality([stated], [bare, entry(2)], CATEGORIES),
        panoptic_quality([entry()], [entry()], CATEGORIES),
    )


# ---- the meter


def counted(truths: Any, predictions: Any) -> PanopticMeter:
    meter = PanopticMeter(CATEGORIES)
    meter.update(truths, predictions)
    return meter


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_any_number_of_workers_gives_the_same_bits(workers: int) -> None:
    truths, predictions = made_split(14)
    whole = panoptic_quality(sorted(truths, key=lambda t: t["image_id"]), predictions, CATEGORIES)
    parts = [counted(truths[rank::workers], predictions[rank::workers]) for rank in range(workers)]
    merged = PanopticMeter(CATEGORIES)
    for part in reversed(parts):
        merged.merge(pickle.loads(pickle.dumps(part)))
    same(merged.scores(), whole)
    assert merged.counts().tobytes() == counted(truths, predictions).counts().tobytes()


def test_counts_add_up_to_the_scores() -> None:
    truths, predictions = made_split(12)
    meter = counted(truths, predictions)
    total = meter.counts([t["image_id"] for t in truths]).sum(0)
    below = total[:, 1] + total[:, 2] / 2 + total[:, 3] / 2
    expected = [scores["pq"] for scores in meter.scores()["per_class"].values()]
    assert (total[:, 0] / np.maximum(below, 0.5)).tolist() == pytest.approx(expected)
    assert meter.counts().shape == (12, 4, 4)


def test_an_image_counts_once_and_a_refused_update_counts_nothing() -> None:
    truths, predictions = made_split(3)
    meter = counted(truths, predictions)
    before = meter.counts().tolist()
    for repeat in (
        lambda: meter.update(truths[1:2], predictions[1:2]),
        lambda: meter.merge(counted(truths[1:2], predictions[1:2])),
    ):
        with pytest.raises(InputError, match=r"image 'image1' is counted twice.*exactly once"):
            repeat()
    with pytest.raises(InputError, match="image 1 is counted twice"):
        meter.update([entry(), entry()], [entry(), entry()])
    with pytest.raises(InputError, match="truth of image 1 stands beside the prediction of image 2"):
        meter.update([entry()], [entry(2)])
    with pytest.raises(InputError, match="1 truths and 2 predictions"):
        meter.update([entry()], [entry(), entry(2)])
    with pytest.raises(InputError, match="segment 1 is of category 99"):
        meter.update([entry(), entry(2)], [entry(), entry(2, category_id=99)])
    assert meter.counts().tolist() == before


def test_meters_must_be_alike_and_cover_the_split() -> None:
    meter = counted(*made_split(2))
    with pytest.raises(InputError, match=r"differ in dilation_ratio: None and 0.02"):
        meter.merge(PanopticMeter(CATEGORIES, dilation_ratio=0.02))
    with pytest.raises(InputError, match=r"differ in categories: .*149, False\)\] and \[\(1, True\)\]"):
        meter.merge(PanopticMeter(CATEGORIES[:1]))
    with pytest.raises(InputError, match=r"3 images expected, 2 counted; they differ in .*image2"):
        meter.scores(["image0", "image1", "image2"])
    with pytest.raises(InputError, match="1 images expected, 2 counted"):
        meter.counts(["image0"])


def documents() -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """(truths, categories): made ones and, where SEGPIPE_DATA holds them, the two images that panopticapi ships."""
    found = [(made_split(8)[0], CATEGORIES)]
    folder = Path(os.environ.get("SEGPIPE_DATA", "/nowhere")) / "coco_panoptic_sample"
    if folder.is_dir():
        document = json.loads((folder / "panoptic_examples.json").read_text())
        items = []
        for annotation in document["annotations"]:
            pixels = np.asarray(Image.open(folder / "panoptic_examples" / annotation["file_name"]), dtype=np.uint32)
            items.append(annotation | {"map": pixels @ np.array([1, 256, 65536], dtype=np.uint32)})
        found.append((items, document["categories"]))
    return found


@pytest.mark.parametrize("ratio", [None, 0.02])
def test_a_truth_scores_one_against_itself(ratio: float | None) -> None:
    for items, categories in documents():
        found = panoptic_quality(items, items, categories, dilation_ratio=ratio)
        assert found["all"]["pq"] == found["things"]["sq"] == found["stuff"]["rq"] == 1.0
        assert found["all"]["n"] == found["things"]["n"] + found["stuff"]["n"] >= 4
