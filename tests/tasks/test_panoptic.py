"""The panoptic task behind the door: truth, counting, report; trained and evaluated by the loops as they are."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe import masks, reports
from segpipe.config import InferenceConfig
from segpipe.data.batch import Batch
from segpipe.data.decode import decode
from segpipe.errors import InputError
from segpipe.metrics import dataset_pq
from segpipe.models.spec import CentreOutput, DenseOutput
from segpipe.predictions import PanopticMap
from segpipe.tasks.panoptic import PanopticOps
from segpipe.tasks.thing_maps import true_map
from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import ClassInfo, ModelBundle, Sample, Segment, Task, TrainResult
from tests.fixtures.bundles import bundle_of, parts_of, report_of, share_of
from tests.fixtures.panoptic_truths import truths
from tests.fixtures.small_streets import publish_streets, street_run

CLASSES = (
    ClassInfo(name="ground", colour=(90, 90, 90)),
    ClassInfo(name="water", colour=(40, 40, 220)),
    ClassInfo(name="box", colour=(220, 40, 40), is_thing=True),
)
IGNORE = 255


def drawn(text: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row] for row in text.split()], dtype=np.uint8)


def sample(labels: str, ids: str | None = None, segments: tuple[Segment, ...] = (), name: str = "s/0") -> Sample:
    labels_HW = drawn(labels)
    labels_HW[labels_HW == 9] = IGNORE
    return Sample(
        sample_id=name,
        image=b"",
        height=labels_HW.shape[0],
        width=labels_HW.shape[1],
        group=name,
        label_map=labels_HW.tobytes(),
        segment_map=None if ids is None else drawn(ids).tobytes(),
        segments=segments,
    )


def segment(number: int, class_id: int, *, is_crowd: bool = False, mask: str = "") -> Segment:
    rle = masks.encode_rle(drawn(mask))["counts"] if mask else None
    return Segment(segment_id=number, class_id=class_id, area=1.0, is_crowd=is_crowd, rle=rle)


def said(found: PanopticMap) -> tuple[str, list[tuple[int, int, bool]]]:
    rows = " ".join("".join(map(str, row)) for row in found.ids_HW.tolist())
    return rows, [(s.segment_id, s.class_id, s.is_crowd) for s in found.segments]


# Truth.


def test_the_segment_map_is_the_truth_and_crowds_stay_in_it() -> None:
    stored = sample("0022 0022", "3311 3322", (segment(1, 2), segment(2, 2, is_crowd=True), segment(3, 0)))
    assert said(true_map(stored, CLASSES)) == ("3311 3322", [(1, 2, False), (2, 2, True), (3, 0, False)])


def test_stuff_that_only_the_label_map_tells_is_a_segment_of_its_class() -> None:
    stored = sample("0122 0192", "0050 0050", (segment(5, 2),))
    rows, segments = said(true_map(stored, CLASSES))
    assert rows == "6750 6750"
    assert segments == [(5, 2, False), (6, 0, False), (7, 1, False)], "a thing that is no object is void"


def test_of_masks_of_their_own_the_smaller_is_on_top_and_crowds_come_last() -> None:
    stored = sample(
        "02222 02222",
        None,
        (
            segment(9, 2, is_crowd=True, mask="01110 01110"),
            segment(8, 2, mask="01100 00000"),
            segment(7, 2, mask="00100 00100"),
            segment(6, 2, mask="01000 00000"),
            segment(5, 2, mask="01000 00000"),
            segment(4, 2, is_crowd=True, mask="00001 00001"),
            segment(3, 0, mask="11111 11111"),
        ),
    )
    rows, segments = said(true_map(stored, CLASSES))
    assert rows == "51244 54344"
    things = [(number, 2, False) for number in (1, 2, 3)]
    assert segments == [*things, (4, 2, True), (5, 0, False)], "the covered one is not there, stuff is the label map's"


def test_a_sample_without_a_label_map_has_no_truth() -> None:
    stored = dataclasses.replace(sample("0"), label_map=None)
    ops = PanopticOps(CLASSES, IGNORE)
    assert ops.truth(stored) is None
    nothing = PanopticMap(ids_HW=np.zeros((1, 1), np.int32), segments=())
    with pytest.raises(InputError, match=r"samples s/0: lack a label map or segments"):
        ops.measure(ops.meter(), [nothing], batch([stored]))


def test_label_maps_of_panoptic_sources_agree_with_their_segments(tmp_path: Path) -> None:
    names = []
    for name, classes, samples in truths(tmp_path):
        names.append(name)
        for stored in samples:
            assert stored.label_map is not None
            labels_HW = masks.read_map(stored.label_map, stored)
            found = true_map(stored, classes)
            assert [s.segment_id for s in found.segments] == [s.segment_id for s in stored.segments], "none is made up"
            class_of = np.full(int(found.ids_HW.max()) + 1, IGNORE)
            for each in found.segments:
                class_of[each.segment_id] = each.class_id
            assert np.array_equal(class_of[found.ids_HW], labels_HW), (name, stored.sample_id)
    assert set(names) >= {"scenes", "coco_panoptic", "cityscapes"}


# Counting and the report.


def batch(samples: list[Sample]) -> Batch:
    sizes = tuple((each.height, each.width) for each in samples)
    return Batch(
        images_N3HW=torch.zeros(len(samples), 3, *sizes[0], dtype=torch.uint8),
        labels_NHW=None,
        sample_ids=tuple(each.sample_id for each in samples),
        original_sizes=sizes,
        samples=tuple(samples),
    )


def predicted(ids: str, *classes: int) -> PanopticMap:
    segments = tuple(segment(number, class_id) for number, class_id in enumerate(classes, start=1))
    return PanopticMap(ids_HW=drawn(ids).astype(np.int32), segments=segments)


TRUTHS = [
    sample("0022 0022", "1122 1122", (segment(1, 0), segment(2, 2)), "s/0"),
    sample("0022 9922", "1122 0033", (segment(1, 0), segment(2, 2), segment(3, 2, is_crowd=True)), "s/1"),
]
PREDICTIONS = [predicted("1112 1112", 0, 2), predicted("1122 3344", 0, 2, 1, 2)]


def counted(*parts: tuple[int, ...]) -> tuple[PanopticOps, object]:
    """Operations and a meter, merged of meters that counted these images."""
    ops = PanopticOps(CLASSES, IGNORE)
    whole = ops.meter()
    for part in parts:
        meter = ops.meter()
        if part:
            ops.measure(meter, [PREDICTIONS[n] for n in part], batch([TRUTHS[n] for n in part]))
        whole.merge(meter)
    return ops, whole


def test_scores_are_those_of_panoptic_quality() -> None:
    """Image 0: ground of 4 pixels within 6, the box is missed (2 of 4: not above a half) twice over. Image 1: both are
    right, water lies in void and a box in a crowd of boxes, and neither is a fault."""
    ops, meter = counted((0, 1))
    scores = ops.scores(meter)
    ground, box = (4 / 6 + 1) / 2, 1 / (1 + 0.5 + 0.5)
    assert scores["pq/class/ground"] == pytest.approx(ground)
    assert scores["pq/class/box"] == pytest.approx(box)
    assert "pq/class/water" not in scores
    assert scores["pq/all"] == pytest.approx((ground + box) / 2)
    assert (scores["pq/things"], scores["pq/stuff"]) == pytest.approx((box, ground))
    assert scores["rq/all"] == pytest.approx((1 + 0.5) / 2)


def test_the_report_has_the_evidence_by_image_and_class() -> None:
    ops, meter = counted((0, 1))
    fields = ops.report_fields(meter, ["s/0", "s/1"], ["a", "b"])
    assert fields["count_names"] == ("iou", "true_positives", "false_positives", "false_negatives")
    assert fields["sample_counts"] == (
        ((pytest.approx(4 / 6), 1, 0, 0), (0.0, 0, 0, 0), (0.0, 0, 1, 1)),
        ((1.0, 1, 0, 0), (0.0, 0, 0, 0), (1.0, 1, 0, 0)),
    )
    assert fields["truth_counts"] == (2, 0, 2), "crowds are no truth that one could find"
    assert fields["value"] == fields["metrics"]["pq/all"] == ops.scores(meter)["pq/all"]
    assert fields["low"] <= fields["value"] <= fields["high"]
    assert float(dataset_pq(np.sum(fields["sample_counts"], axis=0))) == pytest.approx(fields["value"])
    assert fields["resampled"] == "images"
    assert set(fields["per_class"]["water"].values()) == {None, 0.0}
    assert fields["per_class"]["box"] == {"pq": 0.5, "sq": 1.0, "rq": 0.5, "segments": 2.0}
    json.dumps(reports.to_plain(fields), allow_nan=False)


def test_a_split_without_a_segment_has_no_value() -> None:
    ops = PanopticOps(CLASSES, IGNORE)
    meter = ops.meter()
    ops.measure(meter, [predicted("00 00")], batch([sample("99 99", "00 00")]))
    assert ops.scores(meter) == {}
    with pytest.raises(InputError, match=r"pq/all of these 1 images is undefined: .*; choose another evaluate.split"):
        ops.report_fields(meter, ["s/0"], ["a"])


@pytest.mark.parametrize("parts", [((0,), (1,)), ((1,), (0,)), ((), (1, 0), ())])
def test_parts_merge_in_any_order_to_the_same_bits(parts: tuple[tuple[int, ...], ...]) -> None:
    ops, whole = counted((0, 1))
    _, merged = counted(*parts)
    assert ops.scores(merged) == ops.scores(whole)
    names, groups = ["s/0", "s/1"], ["a", "b"]
    assert ops.report_fields(merged, names, groups) == ops.report_fields(whole, names, groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": "enet"}, r"class_weights is enet: .* leave it out"),
        ({"aux_weight": 0.1}, r"aux_weight is 0.1: .* leave it out"),
        ({"inference": InferenceConfig(mirror=True)}, r"inference asks for scales \[1.0\] and mirror: .*no mean"),
        ({"inference": InferenceConfig(scales=(0.5, 1.0))}, r"inference asks for scales \[0.5, 1.0\]: .*no mean"),
    ],
)
def test_what_it_would_not_make_use_of_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PanopticOps(CLASSES, IGNORE, config=street_run(**settings).train)


# Models.


class Drawing(nn.Module):
    """Says that each pixel brighter than grey is a box, whose centre is the image's; remembers what it was shown."""

    def __init__(self, output: type = CentreOutput) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.output, self.seen = output, []

    def forward(self, images_NCHW: Tensor, targets: object = None) -> object:
        self.seen.append(images_NCHW.shape[-2:])
        if self.output is DenseOutput:
            return DenseOutput(scores_NKhw=images_NCHW)
        box_N1HW = (images_NCHW.mean(1, keepdim=True) > 0).float()
        height, width = self.seen[-1]
        heat_N1HW = torch.zeros_like(box_N1HW)
        heat_N1HW[..., height // 2, width // 2] = 1.0
        logits_NKHW = torch.cat([1 - box_N1HW, torch.zeros_like(box_N1HW), box_N1HW], dim=1)
        offsets_N2HW = torch.zeros(len(box_N1HW), 2, height, width)
        return CentreOutput(logits_NKHW=logits_NKHW * self.scale, centres_N1HW=heat_N1HW, offsets_N2HW=offsets_N2HW)


def bundle(input_scale: float = 1.0) -> ModelBundle:
    return bundle_of("panoptic_deeplab", CLASSES, task=Task.PANOPTIC, input_scale=input_scale, ignore_index=IGNORE)


@pytest.mark.parametrize("input_scale", [0.5, 1.0, 2.0])
def test_predictions_are_of_the_original_size(input_scale: float) -> None:
    images_N3HW = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    images_N3HW[0, :, 8:24, 16:32] = 255
    model, ops = Drawing(), PanopticOps(CLASSES, IGNORE)
    shown = Batch(images_N3HW=images_N3HW, labels_NHW=None, sample_ids=("a", "b"), original_sizes=((32, 48),) * 2)
    with torch.inference_mode():
        first, second = ops.predict(model, shown, bundle(input_scale))
    assert model.seen == [(round(32 * input_scale), round(48 * input_scale))]
    assert first.ids_HW.shape == second.ids_HW.shape == (32, 48)
    assert [s.class_id for s in first.segments] == [2, 0]
    assert [s.class_id for s in second.segments] == [0]
    inside = first.ids_HW == 1
    assert inside[8:24, 16:32].mean() > 0.9
    assert abs(int(inside.sum()) - 16 * 16) <= 64


def test_a_model_of_another_task_is_refused_with_what_can_be_read() -> None:
    shown = Batch(
        images_N3HW=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        labels_NHW=None,
        sample_ids=("a",),
        original_sizes=((8, 8),),
    )
    with pytest.raises(
        InputError, match=r"returns a DenseOutput, and the panoptic task reads CentreOutput, QueryOutput, RegionOutput"
    ):
        PanopticOps(CLASSES, IGNORE).predict(Drawing(DenseOutput), shown, bundle())


def test_a_batch_without_objects_does_not_train() -> None:
    decoded = decode(next(iter(truths(Path("unused"))))[2][0])
    lacking = Batch(
        images_N3HW=decoded.image_3HW[None],
        labels_NHW=None,
        sample_ids=("s/0",),
        original_sizes=(tuple(decoded.image_3HW.shape[1:]),),  # type: ignore[arg-type]
    )
    with pytest.raises(InputError, match=r"samples s/0: came without a label map"):
        PanopticOps(CLASSES, IGNORE).losses(lambda *_: None, torch.zeros(1), lacking)


# Through the loops.


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("streets")
    version = publish_streets(f"{folder}/data")
    return TrainJob(
        run=street_run(), data=f"{folder}/data", version=version, run_uri=f"{folder}/run", code_version="test"
    )


@pytest.fixture(scope="module", params=["panoptic_deeplab", "panoptic_fpn"])
def trained(streets: TrainJob, request: pytest.FixtureRequest) -> TrainResult:
    job = dataclasses.replace(streets, run=street_run(request.param), run_uri=f"{streets.run_uri}-{request.param}")
    return fit(job, LocalRuntime(torch.device("cpu")))


TERMS = {
    "panoptic_deeplab": ("semantic", "centre", "offset"),
    "panoptic_fpn": ("rpn_objectness", "rpn_box", "class", "box", "mask", "semantic"),
}


def test_the_loop_trains_it_with_flips_though_the_streets_have_keypoints(trained: TrainResult) -> None:
    steps = [entry["metrics"] for entry in trained.history if "train/loss" in entry["metrics"]]
    assert len(steps) == 4
    for metrics in steps:
        terms = [metrics[f"train/losses/{name}"] for name in TERMS[trained.arch]]
        assert math.isfinite(metrics["train/loss"])
        assert metrics["train/loss"] == pytest.approx(sum(terms))
        assert min(terms) >= 0
    assert trained.primary == "pq/all"
    assert "val/pq/all" in trained.history[-1]["metrics"]


def test_reports_are_bit_equal_for_any_number_of_workers(streets: TrainJob, trained: TrainResult) -> None:
    found = []
    share = share_of(streets, trained, keep=("test-0000003",))
    for workers in (1, 2, 3):
        parts = parts_of(share, workers)
        kept = [prediction for part in parts for prediction in part.predictions.values()]
        assert [type(each) for each in kept] == [PanopticMap]
        found.append(report_of(share, parts))
    assert found[0] == found[1] == found[2]
    assert found[0].num_samples == len(found[0].sample_counts) == 7
    document = json.loads(json.dumps(reports.to_plain(found[0])))
    assert reports.from_plain(type(found[0]), document, origin="report.json") == found[0]
