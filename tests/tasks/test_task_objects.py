"""Instance segmentation and detection behind the task door: losses, predictions, counting, the report, refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segpipe import reports
from segpipe.config import CrfConfig, InferenceConfig, WindowConfig
from segpipe.data.batch import Batch, collate, normalise
from segpipe.data.decode import decode
from segpipe.data.objects import decode_objects
from segpipe.errors import CorruptError, InputError
from segpipe.masks import encode_rle
from segpipe.models.spec import Regions, RegionTarget
from segpipe.predictions import Detections
from segpipe.tasks.detection import DetectionOps
from segpipe.tasks.instance import InstanceOps
from segpipe.types import Sample, Segment
from tests.fixtures.pictures import png
from tests.fixtures.regions import Told, bundle
from tests.fixtures.small import CLASSES, IGNORE, small_run

SIZE = (20, 30)
SQUARES = {1: (2, 3), 2: (10, 20), 3: (2, 15), 4: (12, 2)}  # segment id: top and left of a square of 6 pixels


def mask_of(top: int, left: int) -> np.ndarray:
    mask_HW = np.zeros(SIZE, dtype=np.uint8)
    mask_HW[top : top + 6, left : left + 6] = 1
    return mask_HW


def squares(sample_id: str = "s/0", **changes: Any) -> Sample:
    """Two boxes, one of them in the segment map, a disc that is a crowd, and a piece of ground, which is stuff."""
    segments = [
        Segment(segment_id=1, class_id=1, area=36, rle=encode_rle(mask_of(*SQUARES[1]))["counts"]),
        Segment(segment_id=2, class_id=1, area=30.5, box=(20.25, 10, 5.5, 6)),
        Segment(segment_id=3, class_id=2, area=36, is_crowd=True, rle=encode_rle(mask_of(*SQUARES[3]))["counts"]),
        Segment(segment_id=4, class_id=0, area=36, rle=encode_rle(mask_of(*SQUARES[4]))["counts"]),
    ]
    sample = Sample(
        sample_id=sample_id,
        image=png(np.full((*SIZE, 3), 90, np.uint8)),
        height=SIZE[0],
        width=SIZE[1],
        group=sample_id,
        segment_map=(mask_of(*SQUARES[2]) * 2).astype(np.uint8).tobytes(),
        segments=tuple(segments),
    )
    return replace(sample, **changes)


def batch_of(*samples: Sample) -> Batch:
    return collate([decode(sample, objects=True) for sample in samples])


def found(*squares_of: tuple[int, int, float]) -> Regions:
    """(segment id, class, score) each, as a model finds them: masks that fill their boxes."""
    corners = [SQUARES[number] for number, _, _ in squares_of]
    return Regions(
        boxes_M4=torch.tensor([[left, top, left + 6, top + 6] for top, left in corners]).float().reshape(-1, 4),
        class_ids_M=torch.tensor([class_id for _, class_id, _ in squares_of], dtype=torch.int64),
        scores_M=torch.tensor([score for _, _, score in squares_of]),
        mask_probabilities_Mss=torch.ones(len(squares_of), 28, 28),
    )


def counted(ops: InstanceOps | DetectionOps, *pairs: tuple[Sample, Detections]) -> Any:
    meter = ops.meter()
    for sample, said in pairs:
        ops.measure(meter, [said], batch_of(sample))
    return meter


def test_the_model_is_given_the_truth_and_its_terms_are_the_loss() -> None:
    ops, model, batch = InstanceOps(CLASSES, IGNORE), Told(), batch_of(squares(), squares("s/1", segments=()))
    images_N3HW = normalise(batch.images_N3HW)
    terms = ops.losses(model, images_N3HW, batch)
    assert {name: term.item() for name, term in terms.items()} == {"class": 2.0, "mask": 6.0}
    ((images, targets),) = model.seen
    assert images is images_N3HW
    assert targets is not None
    first, second = targets
    assert first.class_ids_M.tolist() == [1, 1], "the things, without crowds"
    assert first.boxes_M4.tolist() == [[3, 2, 9, 8], [20, 10, 26, 16]]
    assert (len(second.class_ids_M), second.masks_MHW.shape) == (0, (0, *SIZE)), "an image without objects"
    assert isinstance(second, RegionTarget)


@pytest.mark.parametrize("input_scale", [1.0, 0.5, 2.0])
def test_predictions_are_in_pixels_of_the_original(input_scale: float) -> None:
    scaled = replace(found((1, 1, 0.75), (2, 1, 0.5)))
    scaled.boxes_M4.mul_(input_scale)
    model, batch = Told(scaled), batch_of(squares())
    (said,) = InstanceOps(CLASSES, IGNORE).predict(model, batch, bundle(CLASSES, input_scale=input_scale))
    ((images, targets),) = model.seen
    assert targets is None
    assert images.shape == (1, 3, round(20 * input_scale), round(30 * input_scale))
    assert said.boxes_N4.tolist() == [[3, 2, 9, 8], [20, 10, 26, 16]]
    assert said.scores_N.tolist() == [0.75, 0.5]
    assert said.masks is not None


def test_the_truth_is_what_a_perfect_model_would_say() -> None:
    sample = squares()
    truth = InstanceOps(CLASSES, IGNORE).truth(sample)
    assert (truth.size, truth.class_ids_N.tolist(), truth.scores_N.tolist()) == (SIZE, [1, 1], [1, 1])
    assert truth.boxes_N4.tolist() == [[3, 2, 9, 8], [20.25, 10, 25.75, 16]], "as stated, else tight"
    assert truth.masks == tuple(encode_rle(mask_of(*SQUARES[n]))["counts"] for n in (1, 2))
    assert DetectionOps(CLASSES, IGNORE).truth(sample).masks is None
    nothing = InstanceOps(CLASSES, IGNORE).truth(squares(segments=()))
    assert (len(nothing), nothing.boxes_N4.shape, nothing.masks) == (0, (0, 4), ())


@pytest.mark.parametrize(("kind", "measures"), [(InstanceOps, ("segm", "bbox")), (DetectionOps, ("bbox",))])
def test_a_report_of_each_task(kind: type[InstanceOps | DetectionOps], measures: tuple[str, ...]) -> None:
    """Of four boxes in two images two are found, with a mistake between them; what lies on the crowd does not count."""
    ops = kind(CLASSES, IGNORE)
    said = [found((1, 1, 0.9), (4, 1, 0.8), (2, 1, 0.7), (3, 2, 0.6)), found()]
    samples = [squares("s/0"), squares("s/1")]
    batch = batch_of(*samples)
    predictions = ops.predict(Told(*said), batch, bundle(CLASSES))
    meter = ops.meter()
    ops.measure(meter, predictions, batch)
    fields = ops.report_fields(meter, ["s/0", "s/1"], ["s/0", "s/1"])
    assert fields["primary"] == ops.primary == f"ap/coco/{measures[0]}"
    assert fields["value"] == fields["metrics"][ops.primary] == ops.scores(meter)[ops.primary]
    assert fields["metrics"][f"ap50/coco/{measures[0]}"] == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert fields["metrics"][f"apl/coco/{measures[0]}"] is None, "no large object"
    qualities = {"pq/things", "sq/things", "rq/things"} if "segm" in measures else set()
    assert {name.rpartition("/")[2] for name in fields["metrics"].keys() - qualities} == set(measures)
    assert len(fields["metrics"]) == 12 * len(measures) + len(qualities)
    assert fields["per_class"]["box"]["ap50"] == pytest.approx(fields["metrics"][f"ap50/coco/{measures[0]}"])
    assert fields["per_class"]["box"]["objects"] == 4
    nothing = {"ap": None, "ap50": None, "objects": 0} | ({"pq": None} if qualities else {})
    assert fields["per_class"]["ground"] == fields["per_class"]["disc"] == nothing
    assert fields["truth_counts"] == (0, 4, 0)
    assert fields["sample_counts"] == (((0,), (2,), (0,)),) * 2
    assert fields["count_names"] == ("truths",)
    first, second = fields["detections"]
    assert second == ()
    assert [row[:2] for row in first] == [(1, pytest.approx(0.9)), (1, pytest.approx(0.8)), (1, pytest.approx(0.7)),
                                          (2, pytest.approx(0.6))]  # fmt: skip
    close = 2**10 - 1 if measures[0] == "bbox" else first[0][2]
    assert close & 0b11 == 0b11
    assert first[0][2:] == (close, 0)
    assert first[1][2:] == (0, 0)
    assert first[3][2:] == (close, close), "found, but not counted"
    assert 0 <= fields["low"] <= fields["value"] <= fields["high"] <= 1
    reports.to_plain(fields)


def test_masks_are_measured_by_their_pixels_and_boxes_as_stated() -> None:
    sample = squares(segments=squares().segments[1:2])
    ops = InstanceOps(CLASSES, IGNORE)
    said = Detections(
        size=SIZE,
        class_ids_N=np.array([1]),
        scores_N=np.array([0.5]),
        boxes_N4=np.array([[20.0, 10, 26, 16]]),
        masks=(encode_rle(mask_of(*SQUARES[2]))["counts"],),
    )
    scores = ops.scores(counted(ops, (sample, said)))
    assert scores["ap/coco/segm"] == 1
    assert scores["ap/coco/bbox"] == pytest.approx(0.9), "IoU 33 / 36 with the stated box: at all thresholds but 0.95"
    with pytest.raises(InputError, match="sample s/0: the model found boxes without masks"):
        counted(ops, (sample, replace(said, masks=None)))


def test_a_damaged_mask_is_one_fault_in_training_and_in_evaluation() -> None:
    damaged = squares(segments=(replace(squares().segments[0], rle=b"9"),))
    ops, batch = InstanceOps(CLASSES, IGNORE), replace(batch_of(squares()), samples=(damaged,))
    found = ops.truth(squares())
    for met in (
        lambda: decode_objects(damaged),
        lambda: ops.measure(ops.meter(), [found], batch),
        lambda: ops.truth(damaged),
    ):
        with pytest.raises(CorruptError, match="sample s/0, segment 1: the stored mask does not decode"):
            met()


def test_what_cannot_be_counted_is_named() -> None:
    ops, batch = InstanceOps(CLASSES, IGNORE), batch_of(squares())
    with pytest.raises(InputError, match="samples s/0: have no stored rows"):
        ops.measure(ops.meter(), [], replace(batch, samples=None))
    truth = ops.truth(squares())
    meter = counted(ops, (squares(), truth))
    with pytest.raises(InputError, match="counted twice"):
        ops.measure(meter, [truth], batch)
    with pytest.raises(InputError, match=r"3 images expected, 1 counted"):
        ops.report_fields(meter, ["s/0", "s/1", "s/2"], ["a"] * 3)
    only_crowds = counted(ops, (squares(segments=squares().segments[2:]), truth))
    with pytest.raises(InputError, match=r"ap/coco/segm of these 1 images is undefined: no object"):
        ops.report_fields(only_crowds, ["s/0"], ["a"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_weights": "enet"}, "class_weights is enet: .* leave it out"),
        ({"aux_weight": 0.2}, "aux_weight is 0.2: .* leave it out"),
        ({"inference": InferenceConfig(scales=(0.5, 1.0))}, r"inference asks for scales \[0.5, 1.0\]: .*input_scale"),
        ({"inference": InferenceConfig(window=WindowConfig(size=(64, 64)))}, r"inference.window is set: only a class"),
        ({"inference": InferenceConfig(mirror=True)}, r"scales \[1.0\] and mirror"),
        ({"inference": InferenceConfig(scales=(2.0,))}, r"takes one of scale 1"),
        ({"inference": InferenceConfig(crf=CrfConfig())}, r"train: inference.crf is set: .* objects; leave it out"),
        (
            {"inference": InferenceConfig(samples=4)},
            r"train: inference.samples is 4: of objects .*; leave it out",
        ),
    ],
)
def test_what_a_recipe_asks_in_vain_is_refused(keys: dict[str, Any], message: str) -> None:
    InstanceOps(CLASSES, IGNORE, config=small_run().train)
    with pytest.raises(InputError, match=message):
        DetectionOps(CLASSES, IGNORE, config=small_run(**keys).train)


def test_without_a_thing_there_is_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="none of the classes ground is a thing"):
        InstanceOps(CLASSES[:1], IGNORE, config=small_run().train)
