"""Panoptic quality of the instance task: against the definition over sets of pixels, and each rule on one row."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.masks import encode_rle
from segpipe.predictions import Detections
from segpipe.refine.panoptic_merge import merge_detections
from segpipe.tasks.detection import DetectionOps
from segpipe.tasks.instance import InstanceOps
from segpipe.tasks.panoptic import PanopticOps
from segpipe.types import ClassInfo, Sample, Segment
from tests.fixtures.slow_panoptic import CAR, PERSON, SKY, item, slow_quality

CLASSES = tuple(
    ClassInfo(name=name, colour=(0, 0, number), is_thing=name != "grass")
    for number, name in enumerate(("person", "grass", "car"))
)
# The categories of the slow definition: what is no thing here is all one kind of stuff there.
SLOW = {0: PERSON, 2: CAR}
QUALITIES = ("pq/things", "sq/things", "rq/things")
Truth = tuple[np.ndarray, int, bool]  # a mask, its class, whether it is a crowd
Found = tuple[np.ndarray, int, float]


def sample_of(sample_id: str, size: tuple[int, int], truths: list[Truth]) -> Sample:
    segments = [
        Segment(segment_id=number, class_id=k, area=float(mask.sum()), is_crowd=crowd, rle=encode_rle(mask)["counts"])
        for number, (mask, k, crowd) in enumerate(truths, start=1)
    ]
    return Sample(
        sample_id=sample_id, image=b"", height=size[0], width=size[1], group=sample_id, segments=tuple(segments)
    )


def detections(size: tuple[int, int], found: list[Found]) -> Detections:
    return Detections(
        size=size,
        class_ids_N=np.array([k for _, k, _ in found], dtype=np.int64),
        scores_N=np.array([score for _, _, score in found]),
        boxes_N4=np.tile([0.0, 0, size[1], size[0]], (len(found), 1)),
        masks=tuple(encode_rle(mask)["counts"] for mask, _, _ in found),
    )


def batch_of(*samples: Sample) -> Batch:
    """What measuring reads of a batch: no image is decoded."""
    return Batch(
        images_N3HW=torch.zeros(len(samples), 3, 1, 1, dtype=torch.uint8),
        labels_NHW=None,
        sample_ids=tuple(sample.sample_id for sample in samples),
        original_sizes=tuple((sample.height, sample.width) for sample in samples),
        samples=samples,
    )


def counted(images: list[tuple[Sample, Detections]]) -> Any:
    ops = InstanceOps(CLASSES, 255)
    meter = ops.meter()
    for sample, found in images:
        ops.measure(meter, [found], batch_of(sample))
    return meter


def slow_items(
    image_id: str, size: tuple[int, int], truths: list[Truth], found: list[Found]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides as maps, one pixel after the other."""
    true_HW, found_HW = np.zeros(size, dtype=int), np.zeros(size, dtype=int)
    true_kinds: dict[int, Any] = {}
    things = [truth for truth in truths if truth[1] in SLOW]
    crowds = {k: [mask for mask, kind, crowd in things if crowd and kind == k] for k in SLOW}
    layers = sorted((truth for truth in things if not truth[2]), key=lambda truth: int(truth[0].sum()))
    for k in dict.fromkeys(kind for _, kind, crowd in things if crowd):
        layers.append((np.any(crowds[k], axis=0), k, True))
    for number, (mask, k, crowd) in enumerate(layers, start=1):
        for place in zip(*np.nonzero(mask), strict=True):
            if not true_HW[place]:
                true_HW[place] = number
                true_kinds[number] = (SLOW[k], int(crowd))
    if (true_HW == 0).any():
        true_kinds[99] = SKY
        true_HW[true_HW == 0] = 99
    kinds = {}
    for number, (mask, k, _) in enumerate(sorted((f for f in found if f[2] >= 0.5), key=lambda f: -f[2]), start=1):
        free = [place for place in zip(*np.nonzero(mask), strict=True) if not found_HW[place]]
        if free and 1 - len(free) / mask.sum() <= 0.5:
            kinds[number] = SLOW[k]
            for place in free:
                found_HW[place] = number
    return item(image_id, true_HW, true_kinds), item(image_id, found_HW, kinds)


def made(seed: int) -> tuple[tuple[int, int], list[Truth], list[Found]]:
    """Rectangles that overlap, some of them crowds or stuff; and what moves, forgets and invents some."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(5, 12)), int(rng.integers(5, 12)))

    def rectangle() -> np.ndarray:
        mask = np.zeros(size, dtype=bool)
        top, left = (int(rng.integers(0, side)) for side in size)
        mask[top : top + int(rng.integers(1, 7)), left : left + int(rng.integers(1, 7))] = True
        return mask

    truths = [(rectangle(), int(rng.choice([0, 0, 2, 1])), bool(rng.random() < 0.2)) for _ in range(rng.integers(0, 6))]
    found = []
    for mask, k, _ in truths:
        if rng.random() < 0.8 and k != 1:
            moved = np.roll(mask, int(rng.integers(0, 2)), axis=1) & (rng.random(size) < 0.95)
            found.append((moved, k if rng.random() < 0.9 else 2, float(rng.choice([0.3, 0.5, 0.7, 0.9]))))
    found += [
        (rectangle(), int(rng.choice([0, 2])), float(rng.choice([0.4, 0.6, 0.9]))) for _ in range(rng.integers(3))
    ]
    return size, truths, [each for each in found if each[0].any()]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 20))
def test_it_is_the_papers_definition_to_the_last_bit(seed: int) -> None:
    images, items = [], []
    for number in range(3):
        size, truths, found = made(seed + number)
        images.append((sample_of(f"s{number}", size, truths), detections(size, found)))
        items.append(slow_items(f"s{number}", size, truths, found))
    slow = slow_quality([truth for truth, _ in items], [said for _, said in items])["things"]
    scores = InstanceOps(CLASSES, 255).scores(counted(images))
    expected = {f"{name}/things": slow[name] for name in ("pq", "sq", "rq")} if slow["n"] else {}
    assert {name: value for name, value in scores.items() if name in QUALITIES} == expected


def test_any_number_of_workers_gives_the_same_bits() -> None:
    images = []
    for number in range(40):
        size, truths, found = made(number)
        images.append((sample_of(f"s{number}", size, truths), detections(size, found)))
    ops = InstanceOps(CLASSES, 255)
    alone = ops.scores(counted(images))
    assert 0 < alone["pq/things"] < alone["sq/things"] < 1
    ids = [sample.sample_id for sample, _ in images]
    report = ops.report_fields(counted(images), ids, ids)
    assert {name: report["metrics"][name] for name in QUALITIES} == {name: alone[name] for name in QUALITIES}
    for workers in (2, 3, 7):
        merged = ops.meter()
        for rank in reversed(range(workers)):
            merged.merge(pickle.loads(pickle.dumps(counted(images[rank::workers]))))
        assert ops.scores(merged) == alone
        assert ops.report_fields(merged, ids, ids) == report


# ---- examples worked by hand: images of one row


def row(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in text]])


def quality(
    truths: list[tuple[str, int, bool]], found: list[tuple[str, int, float]], labels: str = ""
) -> tuple[float, ...]:
    """Of persons: IoU of the matches, true positives, false positives, false negatives."""
    size = (1, len((truths or found)[0][0]))
    image = sample_of("s", size, [(row(text), k, crowd) for text, k, crowd in truths])
    if labels:
        image = replace(image, label_map=bytes(255 if letter == "?" else int(letter) for letter in labels))
    meter = counted([(image, detections(size, [(row(text), k, score) for text, k, score in found]))])
    return tuple(meter.segments.counts()[0, 0].tolist())


@pytest.mark.parametrize(
    ("truths", "found", "expected"),
    [
        # What lies on the background is part of the union, and nothing excuses it.
        ([("##....", 0, False)], [("###...", 0, 0.9)], (2 / 3, 1, 0, 0)),
        ([("##....", 0, False)], [("...###", 0, 0.9)], (0, 0, 1, 1)),
        ([("##....", 1, False)], [("##....", 0, 0.9)], (0, 0, 1, 0)),
        # Pixels that nothing claims lower the IoU of the object that they are of.
        ([("###...", 0, False)], [("##....", 0, 0.9)], (2 / 3, 1, 0, 0)),
        # Below 0.5 is not said; at 0.5 it is.
        ([("##....", 0, False)], [("##....", 0, 0.49)], (0, 0, 0, 1)),
        ([("##....", 0, False)], [("##....", 0, 0.5)], (1, 1, 0, 0)),
        # The second mask keeps the half that is free; with less than half free it is dropped, and is no mistake.
        ([("####..", 0, False)], [("####..", 0, 0.9), ("..####", 0, 0.8)], (1, 1, 1, 0)),
        ([("####..", 0, False)], [("####..", 0, 0.9), (".####.", 0, 0.8)], (1, 1, 0, 0)),
        # Whatever its class: the surer car takes the pixels.
        ([("####..", 0, False)], [("####..", 2, 0.9), ("####..", 0, 0.8)], (0, 0, 0, 1)),
        # Of objects that overlap the smaller one is on top, in any order of storage; the larger keeps the rest.
        ([("####..", 0, False), (".#....", 0, False)], [("#.##..", 0, 0.9), (".#....", 0, 0.8)], (2, 2, 0, 0)),
        ([(".#....", 0, False), ("####..", 0, False)], [("#.##..", 0, 0.9), (".#....", 0, 0.8)], (2, 2, 0, 0)),
        # An object of which nothing is seen is not asked for.
        ([("##....", 0, False), ("##....", 0, False)], [("##....", 0, 0.9)], (1, 1, 0, 0)),
        # A crowd is not asked for and excuses what lies on it by more than half, in all its parts together.
        ([("####..", 0, True)], [("###...", 0, 0.9)], (0, 0, 0, 0)),
        ([("##....", 0, True)], [("####..", 0, 0.9)], (0, 0, 1, 0)),
        ([("#.....", 0, True), (".##...", 0, True)], [("####..", 0, 0.9)], (0, 0, 0, 0)),
        ([("####..", 2, True)], [("###...", 0, 0.9)], (0, 0, 1, 0)),
        # An object in front of a crowd keeps its pixels.
        ([("####..", 0, True), ("##....", 0, False)], [("##....", 0, 0.9)], (1, 1, 0, 0)),
        ([], [("##....", 0, 0.9)], (0, 0, 1, 0)),
    ],
)
def test_each_rule_on_one_row(truths: Any, found: Any, expected: tuple[float, ...]) -> None:
    assert quality(truths, found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("######.", (1, 1, 0, 0)),  # no part of the union
        ("....##.", (0, 0, 0, 1)),  # and no mistake
        ("..##...", (0, 0, 0, 1)),  # nor where the label map alone knows of persons: of how many, it does not say
        ("...##.#", (0, 0, 0, 1)),
        ("...#..#", (0, 0, 1, 1)),  # by a half of it is not enough
    ],
)
def test_where_a_label_map_leaves_open_what_is_there_nothing_counts(found: str, expected: tuple[float, ...]) -> None:
    assert quality([("##.....", 0, False)], [(found, 0, 0.9)], "0000??1") == expected


@pytest.mark.parametrize("seed", range(20))
def test_it_is_that_of_the_panoptic_task(seed: int) -> None:
    """The same truth and the same pixels found, of samples that both tasks take."""
    instance, panoptic = InstanceOps(CLASSES, 255), PanopticOps(CLASSES, 255)
    meters = instance.meter(), panoptic.meter()
    rng = np.random.default_rng(seed)
    for number in range(3):
        size, truths, found = made(10 * seed + number)
        labels_HW = rng.choice(np.array([0, 1, 1, 2, 255], dtype=np.uint8), size)
        image, said = sample_of(f"s{number}", size, truths), detections(size, found)
        batch = batch_of(replace(image, label_map=labels_HW.tobytes()))
        instance.measure(meters[0], [said], batch)
        panoptic.measure(meters[1], [merge_detections(said)], batch)
    one, other = instance.scores(meters[0]), panoptic.scores(meters[1])
    assert {name: one.get(name) for name in QUALITIES} == {name: other.get(name) for name in QUALITIES}


def test_a_report_tells_it_beside_ap_and_by_class() -> None:
    size = (2, 4)
    truth = [(np.array([[1, 1, 0, 0]] * 2, dtype=bool), 0, False)]
    images = [(sample_of("s", size, truth), detections(size, [(np.array([[1, 1, 1, 0]] * 2, dtype=bool), 0, 0.9)]))]
    fields = InstanceOps(CLASSES, 255).report_fields(counted(images), ["s"], ["s"])
    assert {name: fields["metrics"][name] for name in QUALITIES} == {
        "pq/things": 2 / 3,
        "sq/things": 2 / 3,
        "rq/things": 1.0,
    }
    assert fields["per_class"]["person"]["pq"] == 2 / 3
    assert fields["per_class"]["car"] == fields["per_class"]["grass"] == {
        "ap": None,
        "ap50": None,
        "pq": None,
        "objects": 0.0,
    }  # fmt: skip
    assert fields["value"] == fields["metrics"]["ap/coco/segm"] == pytest.approx(0.4), "at 0.5 to 0.65"


def test_boxes_have_none_and_a_mask_that_is_damaged_is_named() -> None:
    size = (1, 4)
    sample, found = sample_of("s", size, [(row("##.."), 0, False)]), detections(size, [(row("##.."), 0, 0.9)])
    boxes, meter = DetectionOps(CLASSES, 255), DetectionOps(CLASSES, 255).meter()
    boxes.measure(meter, [found], batch_of(sample))
    assert not set(QUALITIES) & boxes.scores(meter).keys()
    assert boxes.report_fields(meter, ["s"], ["s"])["per_class"]["car"] == {"ap": None, "ap50": None, "objects": 0.0}
    with pytest.raises(InputError, match=r"image 's': COCO detections\[0\].*run lengths"):
        counted([(sample, replace(found, masks=(b"9",)))])
