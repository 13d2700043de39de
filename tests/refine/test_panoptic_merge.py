"""The merging heuristic of instances and stuff: each of its rules on maps small enough to see, and truth fed back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.masks import encode_rle
from segpipe.metrics import panoptic_quality
from segpipe.predictions import Detections, PanopticMap
from segpipe.refine.panoptic_merge import merge, merge_detections
from segpipe.tasks.thing_maps import true_map
from segpipe.types import ClassInfo
from tests.fixtures.drawn_scenes import overlapping
from tests.fixtures.panoptic_truths import truths

# Classes: 0 and 1 are stuff, 2 and 3 things; 9 is no class.
IS_THING = (False, False, True, True)


def mask(text: str) -> np.ndarray:
    """Rows separated by blanks; # is inside."""
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def places_of(masks_MHW: np.ndarray) -> Callable[[int], np.ndarray]:
    return lambda m: np.flatnonzero(masks_MHW[m])


def drawn(found: PanopticMap) -> str:
    """The map as rows of ids, the way the tests write them."""
    return " ".join("".join(map(str, row)) for row in found.ids_HW.tolist())


def classes(found: PanopticMap) -> list[tuple[int, int, float]]:
    return [(s.segment_id, s.class_id, s.area) for s in found.segments]


def merged(
    instances: list[tuple[str, int, float]], labels: str, *, stuff_area_limit: int = 0, **limits: float
) -> PanopticMap:
    labels_HW = np.array([[int(letter) for letter in row] for row in labels.split()], dtype=np.uint8)
    masks_MHW = np.array([mask(text) for text, _, _ in instances]).reshape(len(instances), *labels_HW.shape)
    ids, scores = [k for _, k, _ in instances], [score for _, _, score in instances]
    return merge(places_of(masks_MHW), ids, scores, labels_HW, IS_THING, stuff_area_limit=stuff_area_limit, **limits)


def test_the_surer_instance_keeps_what_both_claim_and_stuff_gets_the_rest() -> None:
    found = merged([("###. ###.", 2, 0.6), ("..## ..##", 3, 0.9)], "0000 0011")
    assert drawn(found) == "2211 2211", "the better of the two is number 1"
    assert classes(found) == [(1, 3, 4.0), (2, 2, 4.0)]
    found = merged([("##.. ....", 2, 0.9)], "0000 0011")
    assert drawn(found) == "1122 2233"
    assert classes(found) == [(1, 2, 2.0), (2, 0, 4.0), (3, 1, 2.0)]


def test_an_instance_that_is_more_than_half_taken_is_dropped_at_half_it_stays() -> None:
    surer = ("##.. ....", 2, 0.9)
    assert drawn(merged([surer, ("#### ....", 2, 0.8)], "9999 9999")) == "1122 0000", "half of it is free"
    assert drawn(merged([surer, ("###. ....", 2, 0.8)], "9999 9999")) == "1100 0000", "a third of it is free"
    assert drawn(merged([surer, ("###. ....", 2, 0.8)], "9999 9999", overlap_limit=0.7)) == "1120 0000"
    assert drawn(merged([surer, ("##.. ....", 2, 0.8)], "9999 9999", overlap_limit=1.0)) == "1100 0000"


def test_equal_scores_go_by_the_order_given_and_low_ones_are_left_out() -> None:
    both = [("##. ...", 2, 0.7), (".## ...", 3, 0.7)]
    assert drawn(merged(both, "000 000")) == "112 333"
    assert drawn(merged(both[::-1], "000 000")) == "211 333"
    assert classes(merged([("##. ...", 2, 0.49), ("..# ...", 3, 0.5)], "009 000")) == [(1, 3, 1.0), (2, 0, 5.0)]
    assert drawn(merged([("##. ...", 2, 0.2)], "000 000", score_threshold=0.1)) == "112 222"


def test_stuff_below_the_limit_is_void_and_counts_what_instances_leave_it() -> None:
    assert drawn(merged([], "0001 0011", stuff_area_limit=3)) == "1112 1122"
    assert drawn(merged([], "0001 0011", stuff_area_limit=4)) == "1110 1100"
    assert drawn(merged([("...# ....", 2, 0.9)], "0001 0011", stuff_area_limit=3)) == "2221 2200"


def test_things_that_no_instance_covers_are_void_as_is_what_has_no_class() -> None:
    found = merged([("#... ....", 2, 0.9)], "2233 0099")
    assert drawn(found) == "1000 2200"
    assert classes(found) == [(1, 2, 1.0), (2, 0, 2.0)]


@pytest.mark.parametrize("seed", range(8))
def test_detections_are_merged_as_their_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks_MHW = np.kron(rng.random((7, 4, 5)) < 0.4, np.ones((1, 2, 3))) > 0
    class_ids_M, scores_M = rng.integers(2, 4, 7), rng.choice([0.4, 0.5, 0.7, 0.9], 7)
    found = Detections(
        size=(8, 15),
        class_ids_N=class_ids_M,
        scores_N=scores_M,
        boxes_N4=np.zeros((7, 4)),
        masks=tuple(encode_rle(mask_HW)["counts"] for mask_HW in masks_MHW),
    )
    nothing_HW = np.full((8, 15), 9, dtype=np.uint8)
    expected = merge(places_of(masks_MHW), class_ids_M, scores_M, nothing_HW, IS_THING)
    merged = merge_detections(found)
    assert drawn(merged) == drawn(expected)
    assert merged.segments == expected.segments
    with pytest.raises(ValueError, match="detections without masks"):
        merge_detections(replace(found, masks=None))


def test_an_image_without_instances_and_one_without_anything() -> None:
    assert classes(merged([], "00 11")) == [(1, 0, 2.0), (2, 1, 2.0)]
    nothing = merged([], "99 99")
    assert nothing.segments == ()
    assert nothing.ids_HW.dtype == np.int32
    empty = merged([(".. ..", 2, 0.9)], "00 00")
    assert classes(empty) == [(1, 0, 4.0)], "an instance without a pixel is none"


def scored(
    predictions: list[PanopticMap], truth: list[PanopticMap], infos: tuple[ClassInfo, ...]
) -> dict[str, dict[str, float]]:
    """{"all", "things", "stuff"}: PQ, SQ and RQ."""

    def items(maps: list[PanopticMap]) -> list[dict[str, object]]:
        return [
            {
                "image_id": number,
                "map": each.ids_HW,
                "segments_info": [
                    {"id": s.segment_id, "category_id": s.class_id, "iscrowd": int(s.is_crowd)} for s in each.segments
                ],
            }
            for number, each in enumerate(maps)
        ]

    categories = [{"id": k, "isthing": int(info.is_thing)} for k, info in enumerate(infos)]
    return panoptic_quality(items(truth), items(predictions), categories)


def remerged(truth: PanopticMap, infos: tuple[ClassInfo, ...], *, shift: int = 0, renamed: bool = False) -> PanopticMap:
    """Truth as instances and a label map, merged again; instances `shift` columns aside, each second one renamed."""
    random = np.random.default_rng(0)
    things = [s for s in truth.segments if infos[s.class_id].is_thing and not s.is_crowd]
    class_of = np.full(int(truth.ids_HW.max()) + 1, len(infos), dtype=np.int64)
    for segment in truth.segments:
        class_of[segment.segment_id] = segment.class_id
    masks_MHW = np.array([np.roll(truth.ids_HW == s.segment_id, shift, axis=1) for s in things], dtype=bool)
    is_thing = [info.is_thing for info in infos]
    others = [k for k, thing in enumerate(is_thing) if thing]
    after = dict(zip(others, others[1:] + others[:1], strict=True))
    ids = [after[s.class_id] if renamed and number % 2 == 0 else s.class_id for number, s in enumerate(things)]
    return merge(
        places_of(masks_MHW),
        ids,
        random.uniform(0.5, 1.0, len(things)),
        class_of[truth.ids_HW],
        is_thing,
        stuff_area_limit=0,
    )


def test_truth_fed_back_has_no_fault_and_a_perturbed_one_has(tmp_path: Path) -> None:
    """Of made-up streets, and of COCO's and Cityscapes' samples where they are at hand."""
    names = []
    for name, infos, samples in truths(tmp_path):
        names.append(name)
        truth = [true_map(sample, infos) for sample in samples]
        perfect = scored([remerged(each, infos) for each in truth], truth, infos)["all"]
        assert {key: perfect[key] for key in ("pq", "sq", "rq")} == {"pq": 1.0, "sq": 1.0, "rq": 1.0}, name
        moved = scored([remerged(each, infos, shift=3) for each in truth], truth, infos)["all"]
        assert moved["pq"] < 0.95 > moved["sq"], name
        confused = scored([remerged(each, infos, renamed=True) for each in truth], truth, infos)
        assert confused["stuff"]["pq"] == 1.0, name
        assert confused["things"]["rq"] < 0.8 or sum(info.is_thing for info in infos) == 1, name
    assert "scenes" in names
    assert len(names) >= 3


# (seed, stuff_area_limit, class and area of each segment, SHA-256 of the map of their numbers)
# fmt: off
COMBINED: list[tuple[int, int, list[tuple[int, int]], str]] = [
    (28, 400, [(4, 642), (3, 1901), (4, 999), (4, 303), (0, 4692), (1, 424)],
        "faa9d95f8d3ab735e9a39bdbad971d6d2bb7b1ff39c117848b0da99004f04d41"),
    (36, 400, [(3, 2102), (4, 839), (3, 661), (4, 327)],
        "403f85729f962797db05b65f6edc51551b40129930b62114098e498376d86e39"),
    (48, 400, [(4, 324), (4, 215), (3, 1600), (3, 390), (4, 505), (4, 995), (0, 563), (2, 418)],
        "c77b4d004aeeae1913cf8fb417a07fbc0b264580ea13276ce0a1a7e87ea25c40"),
    (48, 1200, [(4, 324), (4, 215), (3, 1600), (3, 390), (4, 505), (4, 995)],
        "47c3317392c3cbdae82ca512129c91a0d1c1307799a4a45d107804b9c149adec"),
]
# fmt: on


@pytest.mark.parametrize(("seed", "stuff_area_limit", "segments", "sha256"), COMBINED)
def test_overlapping_instances_are_merged_as_by_panopticapi(
    seed: int, stuff_area_limit: int, segments: list[tuple[int, int]], sha256: str
) -> None:
    """What combine_semantic_and_instance_predictions.py of github.com/cocodataset/panopticapi (commit d676543) made of
    images drawn from a seed; the ids it draws at random were numbered in the order of its segments_info."""
    image = overlapping(seed)
    is_thing = (False, False, False, True, True)
    found = merge(
        places_of(image.masks_MHW),
        image.classes_M,
        image.scores_M,
        image.labels_HW,
        is_thing,
        stuff_area_limit=stuff_area_limit,
    )
    assert [(s.class_id, s.area) for s in found.segments] == segments
    assert hashlib.sha256(found.ids_HW.astype("<i4").tobytes()).hexdigest() == sha256
