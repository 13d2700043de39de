"""PCK by hand and against a slow count, and the meter that gathers it over a split."""

import math
import pickle

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.metrics import KeypointMeter, coco_average_precision, interval, mean_ratio, pck

TRUTHS = np.array([[[10.0, 10, 2], [50, 10, 1], [30, 60, 0]]])


@pytest.mark.parametrize(
    ("points", "alpha", "correct"),
    [
        ([[10, 10], [50, 10], [0, 0]], 0.1, [1, 1, 0]),
        ([[20, 10], [50, 20], [30, 60]], 0.1, [1, 1, 0]),  # 10 pixels off, a tenth of 100: the bound is correct
        ([[20.01, 10], [56, 18.01], [30, 60]], 0.1, [0, 0, 0]),
        ([[16, 18], [50, 10], [30, 60]], 0.05, [0, 1, 0]),
        ([[16, 18], [50, 10], [30, 60]], 0.1, [1, 1, 0]),
    ],
)
def test_by_hand(points: list[list[float]], alpha: float, correct: list[int]) -> None:
    """An object whose box is 100 pixels long; its third keypoint is not labelled and counts neither way."""
    scores = pck(np.array([points]), TRUTHS, [100.0], alpha=alpha)
    assert scores["correct"].tolist() == [correct]
    assert scores["labelled"].tolist() == [[1, 1, 0]]
    assert scores["pck"] == sum(correct) / 2
    assert scores["per_keypoint"][:2].tolist() == correct[:2]
    assert math.isnan(scores["per_keypoint"][2])


def test_pckh_is_the_same_with_the_length_of_heads() -> None:
    """MPII: within half of 0.6 times the diagonal of the head's box, here 30 x 40: 15 pixels."""
    head = 0.6 * math.hypot(30, 40)
    points = TRUTHS[..., :2] + [[[9.0, 12.0], [9.1, 12.0], [0, 0]]]
    assert pck(points, TRUTHS, [head], alpha=0.5)["correct"].tolist() == [[1, 0, 0]]


def test_it_is_a_slow_count() -> None:
    random = np.random.default_rng(0)
    truths = np.concatenate([100 * random.random((40, 6, 2)), random.integers(0, 3, (40, 6, 1))], axis=2)
    points, lengths = truths[..., :2] + random.normal(0, 6, (40, 6, 2)), random.uniform(20, 90, 40)
    right = all_ = 0
    for n in range(40):
        for p in range(6):
            if truths[n, p, 2] > 0:
                all_ += 1
                right += math.dist(points[n, p], truths[n, p, :2]) <= 0.1 * lengths[n]
    assert pck(points, truths, lengths)["pck"] == right / all_


def test_nothing_labelled_is_no_score() -> None:
    assert math.isnan(pck(np.zeros((0, 3, 2)), np.zeros((0, 3, 3)), np.zeros(0))["pck"])
    assert math.isnan(pck(np.zeros((1, 3, 2)), np.zeros((1, 3, 3)), [5.0])["pck"])


@pytest.mark.parametrize(
    ("points", "truths", "lengths", "alpha", "message"),
    [
        (np.zeros((1, 3, 3)), TRUTHS, [1.0], 0.1, r"found \(1, 3, 3\), \(1, 3, 3\) and \(1,\)"),
        (np.zeros((2, 3, 2)), TRUTHS, [1.0], 0.1, r"expected points \(N, P, 2\)"),
        (np.zeros((1, 3, 2)), TRUTHS, [1.0, 2.0], 0.1, r"lengths \(N,\)"),
        (np.zeros((1, 3, 2)), TRUTHS, [0.0], 0.1, "lengths and alpha above 0"),
        (np.zeros((1, 3, 2)), TRUTHS, [1.0], -1, "lengths and alpha above 0"),
        (np.full((1, 3, 2), np.nan), TRUTHS, [1.0], 0.1, "finite points"),
    ],
)
def test_what_does_not_fit_is_refused(
    points: np.ndarray, truths: np.ndarray, lengths: list[float], alpha: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pck(points, truths, lengths, alpha=alpha)


def counted(images: range, seed: int = 0) -> KeypointMeter:
    """A meter of two classes and three keypoints; objects of the first one are 100 long, of the second 50."""
    meter = KeypointMeter(2)
    for number in images:
        random = np.random.default_rng([seed, number])
        classes = random.integers(0, 2, random.integers(0, 4))
        n = len(classes)
        truths = np.concatenate([200 * random.random((n, 3, 2)), random.integers(0, 3, (n, 3, 1))], axis=2)
        points = truths[..., :2] + random.normal(0, 8, (n, 3, 2))
        meter.update(f"s/{number}", classes, points, truths, np.where(classes == 0, 100.0, 50.0))
    return meter


def test_parts_merge_in_any_order_to_the_whole() -> None:
    whole = counted(range(12))
    for parts in ([range(5), range(5, 12)], [range(8, 12), range(3), range(3, 8)]):
        meter = pickle.loads(pickle.dumps(counted(parts[0])))
        for part in parts[1:]:
            meter.merge(counted(part))
        ids = [f"s/{number}" for number in range(12)]
        assert meter.counts(ids).tolist() == whole.counts(ids).tolist()
        assert meter.totals().tolist() == whole.totals().tolist()
        assert {p: c.tolist() for p, c in meter.per_keypoint.items()} == {
            p: c.tolist() for p, c in whole.per_keypoint.items()
        }
    assert whole.totals().sum(axis=0).tolist() == np.sum(list(whole.per_keypoint.values()), axis=0).tolist()
    assert (np.diff(whole.totals()[:, :3], axis=1) >= 0).all(), "a larger share is never harder"


def test_an_image_counts_once() -> None:
    meter = counted(range(3))
    with pytest.raises(InputError, match=r"'s/2' is counted twice"):
        meter.update("s/2", [], np.zeros((0, 3, 2)), np.zeros((0, 3, 3)), np.zeros(0))
    with pytest.raises(InputError, match=r"'s/0' is counted twice \(3 such"):
        meter.merge(counted(range(3)))
    with pytest.raises(InputError, match="differ in classes: 2 and 3"):
        meter.merge(KeypointMeter(3))
    with pytest.raises(InputError, match=r"2 images expected, 3 counted; they differ in 's/2'"):
        meter.counts(["s/0", "s/1"])
    with pytest.raises(InputError, match="sample s/9: PCK: "):
        meter.update("s/9", [0], np.zeros((1, 3, 2)), np.zeros((1, 3, 3)), np.zeros(1))
    assert "s/9" not in meter.per_sample


def test_the_interval_is_that_of_the_mean_ratio() -> None:
    """The bootstrap's own draws, counted slowly: classes that a resample lacks drop out of its mean."""
    meter = counted(range(15))
    counts_NK2 = meter.counts([f"s/{number}" for number in range(15)])
    low, high = interval(counts_NK2, statistic=mean_ratio, resamples=400)
    totals = meter.totals()
    assert low <= float(mean_ratio(totals[:, [1, -1]])) <= high
    random, values = np.random.default_rng(0), []
    for drawn in random.integers(0, 15, size=(400, 15)):
        sums = counts_NK2[drawn].sum(axis=0)
        ratios = [right / all_ for right, all_ in sums.tolist() if all_]
        values.append(sum(ratios) / len(ratios))
    assert (low, high) == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())


def test_mean_ratio_by_hand() -> None:
    assert mean_ratio([[1, 2], [3, 4], [0, 0]]) == pytest.approx((0.5 + 0.75) / 2)
    assert mean_ratio([[[1, 2]], [[0, 0]]]).tolist() == pytest.approx([0.5, math.nan], nan_ok=True)


def test_persons_go_to_cocos_meter() -> None:
    """The numbers are those of the function on the same entries, in one image each."""
    random = np.random.default_rng(3)
    meter, annotations, detections = KeypointMeter(1), [], []
    for image in range(4):
        joints = np.concatenate([100 * random.random((17, 2)), np.full((17, 1), 2)], axis=1)
        found = joints + np.concatenate([random.normal(0, 4, (17, 2)), np.zeros((17, 1))], axis=1)
        entry = {
            "id": image + 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": 5000.0,
            "bbox": [0.0, 0.0, 100.0, 100.0],
            "keypoints": joints.ravel().tolist(),
            "num_keypoints": 17,
        }
        detection = {"category_id": 1, "keypoints": found.ravel().tolist(), "score": float(random.random())}
        meter.update(
            f"s/{image}",
            [0],
            found[None, :, :2],
            joints[None],
            np.array([100.0]),
            annotations=[entry],
            detections=[detection],
        )
        annotations.append({**entry, "image_id": image})
        detections.append({**detection, "image_id": image})
    document = {"images": [{"id": n} for n in range(4)], "annotations": annotations, "categories": [{"id": 1}]}
    expected = coco_average_precision(document, detections, "keypoints")
    assert 0 < expected["AP"] < 1
    assert meter.persons.metrics()["ap/coco/keypoints"] == expected["AP"]
