"""The bootstrap of AP against COCO's AP of images that are really there several times."""

from typing import Any

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.metrics import ApEvidence, DetectionMeter, ap_interval, bootstrap, bootstrap_ap, resampled_ap
from tests.fixtures.random_coco import random_coco

CLASSES = (1, 3, 7, 90)


def by_image(seed: int, iou_type: str) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """(annotations, detections) of each of six images, without equal scores: those of copies could mix in two ways."""
    truth, detections = random_coco(seed, iou_type)
    scores = np.random.default_rng(seed).permutation(len(detections)) / len(detections)
    for entry, score in zip(detections, scores.tolist(), strict=True):
        entry["score"] = score
    return [
        tuple([entry for entry in entries if entry["image_id"] == image["id"]] for entries in documents)
        for documents in [(truth["annotations"], detections)]
        for image in truth["images"]
    ]


def metered(images: list[Any], times: np.ndarray, iou_type: Any) -> DetectionMeter:
    """A meter that has counted each image so many times, as images of their own."""
    meter = DetectionMeter(CLASSES, iou_type)
    for place, (annotations, detections) in enumerate(images):
        bare = [[{**entry, "image_id": copy} for entry in annotations] for copy in range(100)]
        for copy in range(int(times[place])):
            image_id = place * 100 + copy
            mine = [{k: v for k, v in entry.items() if k != "image_id"} for entry in bare[copy]]
            found = [{k: v for k, v in entry.items() if k != "image_id"} for entry in detections]
            meter.update(image_id, (150, 180), mine, found)
    return meter


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", [0, 3, 8])
def test_weights_are_images_repeated(seed: int, iou_type: str) -> None:
    images = by_image(seed, iou_type)
    once = metered(images, np.ones(len(images)), iou_type)
    evidence = once.evidence([place * 100 for place in range(len(images))])
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), 4)
    weights = np.concatenate((np.ones((1, len(images)), dtype=np.int64), weights))
    found = resampled_ap(evidence, weights)
    for row, ap_KT in zip(weights, found, strict=True):
        scores = metered(images, row, iou_type).scores()
        per_class = [float(np.mean(ap_T)) if not np.isnan(ap_T).any() else -1 for ap_T in ap_KT]
        assert per_class == pytest.approx(list(scores["per_class"].values()), abs=1e-12)
        assert np.nanmean(ap_KT) == pytest.approx(scores["AP"], abs=1e-12)
        assert np.nanmean(ap_KT[:, 0]) == pytest.approx(scores["AP50"], abs=1e-12)


def made(images: int, classes: int, detections: int, truths: int, seed: int = 0) -> ApEvidence:
    """Evidence without pictures: of an image's objects seven in ten are found, well or less well, beside mistakes."""
    draw = np.random.default_rng(seed)
    truths_nK = draw.multinomial(truths, np.full(classes, 1 / classes), images)
    image, of_class = np.nonzero(truths_nK)
    objects = np.repeat(np.arange(len(image)), truths_nK[image, of_class])
    found = objects[draw.random(len(objects)) < 0.7] if detections else objects[:0]
    mistakes = images * detections - len(found)
    thresholds = np.concatenate((draw.integers(1, 11, len(found)), np.zeros(mistakes, dtype=np.int64)))
    return ApEvidence(
        images_D=np.concatenate((image[found], draw.integers(0, images, mistakes))),
        classes_D=np.concatenate((of_class[found], draw.integers(0, classes, mistakes))),
        scores_D=draw.random(images * detections) + 0.3 * (thresholds > 0),
        matched_D=((1 << thresholds) - 1).astype(np.uint16),
        ignored_D=np.zeros(images * detections, dtype=np.uint16),
        truths_nK=truths_nK,
    )


def test_an_interval_holds_the_estimate_and_follows_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = made(40, 3, 20, 6)
    value = float(np.nanmean(resampled_ap(evidence, np.ones((1, 40)))))
    low, high = ap_interval(evidence)
    assert 0 < low < value < high < 1
    narrow = ap_interval(evidence, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert ap_interval(evidence, seed=1) != (low, high)
    monkeypatch.setattr(bootstrap, "BLOCK_CELLS", 40 * 7)
    monkeypatch.setattr(bootstrap_ap, "BLOCK_CELLS", 100)
    assert ap_interval(evidence) == (low, high)


def test_images_of_one_group_are_drawn_together() -> None:
    evidence = made(12, 2, 10, 4)
    assert ap_interval(evidence, groups=["drive"] * 12)[0] == ap_interval(evidence, groups=["drive"] * 12)[1]
    assert ap_interval(evidence, groups=list(range(12))) == ap_interval(evidence)


def test_where_nothing_is_to_be_found_there_is_no_interval() -> None:
    assert np.isnan(ap_interval(made(5, 2, 4, 0))).all()
    blind = made(5, 2, 0, 3)
    assert ap_interval(blind) == (0.0, 0.0), "objects, and nobody who finds them"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "resamples >= 1"),
        ({"level": 1.0}, "0 < level < 1"),
        ({"groups": ["a"]}, "1 groups for 5 images"),
    ],
)
def test_wrong_use_of_an_interval_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ap_interval(made(5, 2, 4, 1), **options)
    with pytest.raises(InputError, match="weights of shape"):
        resampled_ap(made(5, 2, 4, 1), np.ones((1, 4)))


def test_a_meter_gives_evidence_of_all_that_it_counted_and_of_nothing_else() -> None:
    meter = DetectionMeter(CLASSES, "bbox")
    meter.update("a", (9, 9), [], [])
    with pytest.raises(InputError, match=r"2 images expected, 1 counted; they differ in 'b'"):
        meter.evidence(["a", "b"])
    assert meter.evidence(["a"]).truths_nK.tolist() == [[0, 0, 0, 0]]
