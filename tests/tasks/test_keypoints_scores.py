"""Keypoints behind the task door: counting, the report, and who is not counted."""

import dataclasses

import numpy as np
import pytest

from segpipe.errors import InputError
from segpipe.predictions import Poses
from segpipe.tasks.keypoints import KeypointsOps
from segpipe.types import ClassInfo, Keypoints, Sample, Segment
from tests.fixtures.figures import CLASSES, HEIGHT, IGNORE, WIDTH, figure_samples
from tests.fixtures.poses import OPS, bundle, evaluated, network, samples

__all__ = ["samples"]


def test_objects_with_fewer_keypoints_than_the_model(samples: list[Sample]) -> None:
    """Classes may have keypoints of their own number; the heatmaps beyond are not asked."""
    few = dataclasses.replace(
        samples[0], keypoints=tuple(dataclasses.replace(k, points=k.points[:3]) for k in samples[0].keypoints)
    )
    meter, batch = OPS.meter(), evaluated([few])
    OPS.measure(meter, OPS.predict(network(), batch, bundle()), batch)
    assert set(meter.per_keypoint) <= {0, 1, 2}
    assert "ap/coco/keypoints" not in OPS.scores(meter), "three joints are not COCO's seventeen"


def test_seventeen_joints_of_an_animal_are_not_cocos() -> None:
    ops = KeypointsOps((ClassInfo(name="horse", colour=(1, 2, 3), is_thing=True), CLASSES[1]), IGNORE)
    meter, batch = ops.meter(), evaluated(list(figure_samples("test", 2)))
    ops.measure(meter, ops.predict(network(), batch, bundle()), batch)
    assert ops.primary in ops.scores(meter)
    assert not any("coco" in name for name in ops.scores(meter))


def test_the_report_holds_counts_in_the_order_of_the_dataset(samples: list[Sample]) -> None:
    meter = OPS.meter()
    for sample in samples:
        batch = evaluated([sample])
        OPS.measure(meter, OPS.predict(network(), batch, bundle()), batch)
    order = [sample.sample_id for sample in samples][::-1]
    fields = OPS.report_fields(meter, order, order)
    assert fields["count_names"] == ("correct", "labelled")
    for sample, counts in zip(samples[::-1], fields["sample_counts"], strict=True):
        assert counts[0][1] == sum(v > 0 for k in sample.keypoints for _, _, v in k.points)
        assert counts[1] == (0, 0)
    right, all_ = np.array(fields["sample_counts"]).sum(axis=0)[0]
    assert fields["value"] == fields["metrics"]["pck/box/0.1"] == right / all_
    assert fields["low"] <= fields["value"] <= fields["high"]
    assert fields["truth_counts"] == (all_, 0)
    assert fields["per_class"]["box"] == {"pck/box/0.1": None, "keypoints": 0.0}
    with pytest.raises(InputError, match="images expected, 5 counted"):
        OPS.report_fields(meter, order[:3], order[:3])


def test_a_split_without_a_keypoint_has_no_report() -> None:
    sample = dataclasses.replace(next(figure_samples("test", 1)), keypoints=())
    meter, batch = OPS.meter(), evaluated([sample])
    predictions = OPS.predict(network(), batch, bundle())
    assert [len(each) for each in predictions] == [0]
    assert predictions[0].points_NP3.shape == (0, 17, 3)
    OPS.measure(meter, predictions, batch)
    with pytest.raises(InputError, match="of these 1 images is undefined: none of them has a labelled keypoint"):
        OPS.report_fields(meter, [sample.sample_id], ["g"])


def test_persons_whom_nobody_marked_are_no_mistake() -> None:
    """COCO leaves persons without a labelled joint, and crowds, out; a wrong pose on a marked one stays wrong."""
    joints = tuple((10.0 + n, 40.0, 2) for n in range(17))
    masks = np.zeros((HEIGHT, WIDTH), np.uint8)
    masks[20:60, 5:35], masks[20:60, 60:100], masks[70:90, :] = 1, 2, 3
    sample = dataclasses.replace(
        next(figure_samples("test", 1)),
        segment_map=masks.tobytes(),
        segments=tuple(
            Segment(segment_id=n, class_id=0, area=float((masks == n).sum()), is_crowd=n == 3) for n in (1, 2, 3)
        ),
        keypoints=(
            Keypoints(segment_id=1, points=joints),
            Keypoints(segment_id=2, points=((0.0, 0.0, 0),) * 17),
        ),
    )
    truth = OPS.truth(sample)
    assert len(truth) == 1
    for shift, expected in ((0.0, 1.0), (40.0, 0.0)):
        meter, batch = OPS.meter(), evaluated([sample])
        found = Poses(
            size=truth.size,
            class_ids_N=truth.class_ids_N,
            scores_N=np.ones(1),
            boxes_N4=truth.boxes_N4,
            points_NP3=truth.points_NP3 - np.array([0.0, shift, 0.0]),
        )
        OPS.measure(meter, [found], batch)
        assert OPS.scores(meter)["ap/coco/keypoints"] == expected
