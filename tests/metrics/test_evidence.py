"""What follows from the counts of each image: its own score."""

from dataclasses import replace

import numpy as np
import pytest

from segpipe.metrics.evidence import found_objects, image_score, image_scores
from segpipe.types import EvalReport
from tests.fixtures.example_reports import eval_report


def pixels() -> EvalReport:
    random = np.random.default_rng(0)
    truth = random.integers(50, 100, (12, 2))
    counts = np.stack([truth // 2, truth, truth - 5], axis=-1)
    counts[3, 0] = 0
    ids = tuple(f"s/{n}" for n in range(12))
    sample_counts = tuple(tuple(map(tuple, image.tolist())) for image in counts)
    return eval_report(sample_counts=sample_counts, sample_ids=ids, groups=ids, num_samples=12)


def test_an_image_s_score_is_the_mean_over_its_classes() -> None:
    report = pixels()
    scores = image_scores(report)
    i, t, p = report.sample_counts[3][1]
    assert scores[3] == pytest.approx(i / (t + p - i)), "the class that is not there does not count"
    nothing = replace(report, sample_counts=(((0, 0, 0), (0, 0, 0)), *report.sample_counts[1:]))
    assert np.isnan(image_scores(nothing)[0])


@pytest.mark.parametrize(
    ("names", "counts", "scores"),
    [
        (("iou", "true_positives", "false_positives", "false_negatives"), (1.6, 2, 1, 1), 1.6 / 3),
        (("correct", "labelled"), (3, 4), 0.75),
        (("region", "contour", "objects"), (1.2, 1.6, 2), 0.7),
    ],
)
def test_every_task_has_its_own(names: tuple[str, ...], counts: tuple[float, ...], scores: float) -> None:
    report = replace(pixels(), count_names=names, sample_counts=((counts, counts),) * 12)
    assert image_scores(report) == pytest.approx(np.full(12, scores))


def test_what_detects_scores_an_image_by_the_objects_that_it_is_sure_of() -> None:
    everything, at_half = 0b11_1111_1111, 0b1
    found = (
        ((0, 0.9, everything, 0),),
        ((0, 0.9, at_half, 0), (0, 0.8, 0, 0), (0, 0.4, everything, 0), (1, 0.7, 0, 0)),  # 1 right, 1 wrong, 1 doubted
        ((0, 0.9, everything, everything),),  # on a crowd
        (),
    )
    truths = (((1,), (0,)), ((2,), (0,)), ((0,), (0,)), ((3,), (0,)))
    report = replace(pixels(), count_names=("truths",), sample_counts=truths, detections=found)
    assert image_score(report) == "f1/0.5"
    one, two, crowded, none = image_scores(report).tolist()
    assert one == 1
    assert two == pytest.approx((2 / (2 + 2) + 0) / 2), "the mean over both classes, in one of which nothing is right"
    assert np.isnan(crowded), "it counts nowhere"
    assert none == 0
    assert found_objects(report) == (2, 6, 4)
