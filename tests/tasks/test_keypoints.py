"""Keypoints behind the task door: loss, points in pixels of the image, counting, the report."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import models
from segpipe.config import InferenceConfig
from segpipe.data.augment import augment
from segpipe.data.batch import Batch, GivenObjects, collate, training_inputs
from segpipe.data.decode import decode
from segpipe.errors import InputError, NonFiniteError
from segpipe.heatmaps import gaussian_targets, inside, to_cells
from segpipe.models.spec import HeatmapOutput
from segpipe.predictions import Poses
from segpipe.stages.identity import resolve
from segpipe.tasks.keypoints import KeypointsOps
from segpipe.tasks.keypoints.limits import check_places
from segpipe.train.session import InPrecision
from segpipe.types import ClassInfo, Inference, Keypoints, LabelCoding, ModelBundle, Sample, Segment, Task
from tests.fixtures.figures import CLASSES, HEIGHT, IGNORE, PAIRS, WIDTH, figure_run, figure_samples
from tests.fixtures.small import ONE_VIEW

OPS = KeypointsOps(CLASSES, IGNORE)


def options_for(options: dict[str, Any]) -> dict[str, Any]:
    """The figures' model with some options changed, and without those that do not go with framing image."""
    usual = resolve(figure_run()).options
    if options.get("framing") == "image":
        usual = {"keypoint_pairs": usual["keypoint_pairs"]}
    return {**usual, **options}


def bundle(inference: Inference = ONE_VIEW, input_scale: float = 1.0, **options: Any) -> ModelBundle:
    return ModelBundle(
        arch="hrnet_pose_tiny",
        options=options_for(options),
        task=Task.KEYPOINTS,
        classes=CLASSES,
        ignore_index=IGNORE,
        coding=LabelCoding(values=((0, 0), (1, 1))),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_scale=input_scale,
        inference=inference,
        dataset="figures",
        dataset_version="0" * 64,
        config_digest="",
        code_version="",
        weights_sha256="",
    )


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    found: nn.Module = models.create("hrnet_pose_tiny", len(CLASSES), **options_for(options)).eval()
    # Its maps are almost flat before training, so that rounding would decide where they peak.
    nn.init.normal_(found.get_parameter("final_layer.weight"), std=1.0)
    return found


def evaluated(samples: Sequence[Sample]) -> Batch:
    return collate([decode(sample) for sample in samples])


def trained(samples: Sequence[Sample], **settings: Any) -> Batch:
    config = figure_run().train.augment.model_copy(update={"flip": 0.0, "colour": 0.0, **settings})
    crops = [
        augment(decode(s), config, input_scale=1.0, seed=0, epoch=0, ignore_index=IGNORE, source=s) for s in samples
    ]
    return collate(crops)


class Knowing(nn.Module):
    """A model without a mistake, which knows the joints of every image by its first pixels: targets of the truth."""

    def __init__(self, samples: Sequence[Sample], network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.of = {self._key(evaluated([s]).images_N3HW[0]): OPS.truth(s).points_NP3 for s in samples}
        self.calls = 0

    @staticmethod
    def _key(image_3HW: Tensor) -> bytes:
        return image_3HW.contiguous().numpy().tobytes()

    def forward(self, images_N3HW: Tensor, boxes: Sequence[Tensor]) -> HeatmapOutput:
        self.calls += 1
        output = self.network(images_N3HW, boxes)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        shown = (images_N3HW * std[:, None, None] + mean[:, None, None]).mul(255).round().to(torch.uint8)
        points = []
        for image, each in zip(shown, boxes, strict=True):
            known = self.of[self._key(image)]
            # Boxes of one image may come in two passes: each is found by where it lies.
            middles = (each[:, ::2].mean(1)).tolist()
            points += [min(known, key=lambda p: abs(p[0, 0] - x)) for x in middles]
        size = tuple(output.heatmaps_NPhw.shape[2:])
        cells = to_cells(torch.tensor(np.stack(points))[..., :2].float(), output.regions_N4, size)
        return HeatmapOutput(heatmaps_NPhw=gaussian_targets(cells, size), regions_N4=output.regions_N4)


def labelled(samples: Sequence[Sample]) -> list[Sample]:
    """The same, each joint seen or not labelled."""
    return [
        dataclasses.replace(
            s,
            keypoints=tuple(
                dataclasses.replace(k, points=tuple((x, y, 2 if v else 0) for x, y, v in k.points)) for k in s.keypoints
            ),
        )
        for s in samples
    ]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Five samples whose noses are labelled; the first three show one figure, the others two."""
    found = labelled([s for s in figure_samples("test", 20) if all(k.points[0][2] for k in s.keypoints)])
    single, double = ([s for s in found if len(s.keypoints) == number] for number in (1, 2))
    return [*single[:3], *double[:2]]


def test_the_truth_of_a_sample(samples: list[Sample]) -> None:
    truth = OPS.truth(samples[0])
    assert len(truth) == len(samples[0].keypoints)
    assert truth.size == (HEIGHT, WIDTH)
    assert truth.points_NP3[0].tolist() == pytest.approx(np.array(samples[0].keypoints[0].points))
    ids = np.frombuffer(samples[0].segment_map or b"", np.uint8).reshape(HEIGHT, WIDTH)
    columns = np.flatnonzero((ids == 1).any(axis=0))
    assert truth.boxes_N4[0, [0, 2]].tolist() == [columns[0], columns[-1] + 1]


def test_objects_without_a_labelled_joint_and_crowds_have_no_pose(samples: list[Sample]) -> None:
    none = tuple(dataclasses.replace(k, points=((0.0, 0.0, 0),) * 17) for k in samples[0].keypoints)
    crowd = tuple(dataclasses.replace(s, is_crowd=True) for s in samples[0].segments)
    for changes in ({"keypoints": none}, {"segments": crowd}, {"keypoints": ()}):
        truth = OPS.truth(dataclasses.replace(samples[0], **changes))
        assert len(truth) == 0
        assert truth.points_NP3.shape[0] == 0


def test_a_perfect_model_scores_one_from_heatmaps_of_a_few_cells(samples: list[Sample]) -> None:
    """Cut out, answered at 24 x 16 cells, decoded and brought back: within a tenth of a pixel of where it was."""
    model, batch, meter = Knowing(samples, network()), evaluated(samples), OPS.meter()
    predictions = OPS.predict(model, batch, bundle())
    assert model.calls == 1
    for found, sample in zip(predictions, samples, strict=True):
        truth = OPS.truth(sample)
        assert found.boxes_N4.tolist() == truth.boxes_N4.tolist()
        seen = truth.points_NP3[..., 2] > 0
        distance = np.hypot(*np.moveaxis(found.points_NP3 - truth.points_NP3, -1, 0)[:2])
        assert distance[seen].max() < 0.1
        assert found.scores_N == pytest.approx(np.ones(len(truth)), abs=0.1)
    OPS.measure(meter, predictions, batch)
    scores = OPS.scores(meter)
    assert scores["pck/box/0.05"] == scores["pck/box/0.1"] == scores["pck/box/0.2"] == 1.0
    assert scores["ap/coco/keypoints"] == scores["ap75/coco/keypoints"] == 1.0
    assert scores["pck/keypoint/16"] == 1.0
    assert "pck/class/box" not in scores, "a class without keypoints has no score"


def test_many_objects_go_through_the_model_in_parts(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Knowing(samples, network()), evaluated(samples)
    whole = OPS.predict(model, batch, bundle())
    monkeypatch.setattr("segpipe.tasks.keypoints.REGIONS_PER_PASS", 2)
    parts = OPS.predict(model, batch, bundle())
    assert model.calls == 1 + math.ceil(sum(map(len, whole)) / 2)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.points_NP3, other.points_NP3, atol=1e-4)


def test_an_image_resized_on_its_way_in_gives_pixels_of_the_image(samples: list[Sample]) -> None:
    """At twice the size the network sees almost the same crops of the same boxes, and peaks at the same places."""
    batch, model = evaluated(samples), network()
    once, twice = (OPS.predict(model, batch, bundle(input_scale=scale)) for scale in (1.0, 2.0))
    for one, other in zip(once, twice, strict=True):
        assert np.median(np.abs(one.points_NP3 - other.points_NP3)[..., :2]) < 0.5


@pytest.mark.parametrize("framing", ["objects", "image"])
def test_with_its_mirror_image_a_model_treats_both_sides_alike(samples: list[Sample], framing: str) -> None:
    """What it says of the mirror image is the mirror image of what it says, left and right exchanged."""
    model, both = network(framing=framing), bundle(Inference(scales=(1.0,), mirror=True), framing=framing)
    for sample in samples[:3]:
        batch = evaluated([sample])
        turned = dataclasses.replace(batch, images_N3HW=batch.images_N3HW.flip(-1), samples=(_turned(sample),))
        (one,), (other,) = OPS.predict(model, batch, both), OPS.predict(model, turned, both)
        order = list(range(17))
        for left, right in PAIRS:
            order[left], order[right] = right, left
        expected = other.points_NP3[:, order]
        expected[..., 0] = WIDTH - 1 - expected[..., 0]
        np.testing.assert_allclose(one.points_NP3, expected, atol=1e-2)
        (alone,) = OPS.predict(model, batch, bundle(framing=framing))
        assert np.abs(alone.points_NP3 - one.points_NP3).max() > 0.5


def _turned(sample: Sample) -> Sample:
    ids = np.frombuffer(sample.segment_map or b"", np.uint8).reshape(HEIGHT, WIDTH)[:, ::-1]
    return dataclasses.replace(sample, segment_map=ids.tobytes())


def test_large_images_of_one_object_go_in_tiles(samples: list[Sample]) -> None:
    """An image of 96 x 128 in tiles of 64 pixels: the network never sees more, and the pose covers the image."""
    sample = samples[0]
    model, sizes = network(framing="image"), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    whole = OPS.predict(model, evaluated([sample]), bundle(framing="image"))
    assert sizes == [(HEIGHT, WIDTH)]
    sizes.clear()
    tiled = OPS.predict(model, evaluated([sample]), bundle(framing="image", tile=64, overlap=32))
    assert len(sizes) == 6
    assert max(sizes) == (64, 64)
    assert whole[0].points_NP3.shape == tiled[0].points_NP3.shape == (1, 17, 3)
    assert whole[0].points_NP3.tolist() != tiled[0].points_NP3.tolist(), "this network looks further than a tile"


def test_served_images_come_without_boxes() -> None:
    batch = dataclasses.replace(evaluated(list(figure_samples("test", 2))), samples=None)
    with pytest.raises(InputError, match=r"framing objects: .* told by boxes .* send the boxes of each image"):
        OPS.predict(network(), batch, bundle())
    with pytest.raises(InputError, match=r"framing image: .* of 2 classes \(person, box\)"):
        OPS.predict(network(framing="image"), batch, bundle(framing="image"))
    ops = KeypointsOps(CLASSES[:1], IGNORE)
    found = ops.predict(network(framing="image"), batch, bundle(framing="image"))
    assert [(len(each), each.points_NP3.shape) for each in found] == [(1, (1, 17, 3))] * 2
    assert found[0].boxes_N4.tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_the_loss_is_the_squared_error_of_what_is_labelled(samples: list[Sample]) -> None:
    batch = trained(samples[:2])
    assert batch.objects is not None
    told: list[list[Tensor]] = []
    truths = torch.cat([o.keypoints_NP3 for o in batch.objects if o.keypoints_NP3 is not None])
    marked = (truths[..., 2] > 0).any(1)
    size, answer = (24, 16), torch.rand(int(marked.sum()), 17, 24, 16)

    def forward(images: Tensor, boxes: list[Tensor]) -> HeatmapOutput:
        told.append(boxes)
        return HeatmapOutput(heatmaps_NPhw=answer, regions_N4=torch.cat(boxes))

    loss = OPS.losses(forward, training_inputs(batch, torch.device("cpu")), batch)
    assert set(loss) == {"heatmaps"}
    ((first, second),) = told
    assert (len(first), len(second)) == tuple(len(s.keypoints) for s in samples[:2]), "the box has no keypoints"
    cells = to_cells(truths[marked][..., :2], torch.cat([first, second]), size)
    on_map = (cells > -0.5).all(-1) & (cells < torch.tensor([15.5, 23.5])).all(-1) & (truths[marked][..., 2] > 0)
    expected = functional.mse_loss(answer[on_map], gaussian_targets(cells, size)[on_map])
    torch.testing.assert_close(loss["heatmaps"], expected)


def test_a_batch_without_keypoints_has_no_loss_and_no_gradient_but_a_pass() -> None:
    sample = dataclasses.replace(next(figure_samples("train", 1)), keypoints=())
    batch, model = trained([sample, sample]), network().train()
    loss = OPS.losses(model, training_inputs(batch, torch.device("cpu")), batch)["heatmaps"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_what_does_not_fit_is_said(samples: list[Sample]) -> None:
    batch = trained(samples[:1])
    images = training_inputs(batch, torch.device("cpu"))
    with pytest.raises(InputError, match=r"objects have 17 keypoints, and the model finds 5; set its option keypoints"):
        OPS.losses(network(keypoints=5, keypoint_pairs=[]), images, batch)
    with pytest.raises(InputError, match="came without objects, which this task needs"):
        OPS.losses(network(), images, dataclasses.replace(batch, objects=None))
    with pytest.raises(InputError, match="came without their stored rows"):
        OPS.measure(OPS.meter(), [], batch)
    with pytest.raises(InputError, match=r"train: inference asks for scales \[0.5, 1.0\]: "):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(inference={"scales": (0.5, 1.0)}).train)
    with pytest.raises(InputError, match=r"train: class_weights is enet: "):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(class_weights="enet").train)
    with pytest.raises(InputError, match=r"train: aux_weight is 0.1: these models have no auxiliary heads"):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(aux_weight=0.1).train)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"inference": InferenceConfig(mirror=True)}, "train.augment.flip and train.inference.mirror: "),
        ({"flip": 0.0, "inference": InferenceConfig(mirror=True)}, "train.inference.mirror: "),
        ({"flip": 0.0, "vertical_flip": 0.5}, "train.augment.vertical_flip: "),
    ],
)
def test_a_mirror_image_needs_to_know_left_from_right(keys: dict[str, Any], named: str) -> None:
    """Said before any work, and once: the model's option follows (`stages/identity.py`)."""
    inference = keys.get("inference", InferenceConfig())
    changes = {key: value for key, value in keys.items() if key != "inference"}
    unsaid = figure_run().train.augment.model_copy(update={"keypoint_pairs": None, **changes})
    with pytest.raises(InputError, match=f"^{named}in a mirror image .* say in train.augment.keypoint_pairs"):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(augment=unsaid, inference=inference).train)
    for pairs in ((), PAIRS):
        said = unsaid.model_copy(update={"keypoint_pairs": pairs})
        KeypointsOps(CLASSES, IGNORE, config=figure_run(augment=said, inference=inference).train)


def test_a_model_has_a_heatmap_for_each_keypoint_of_the_data_and_no_more() -> None:
    run = figure_run()
    check_places(run, 17, where="data")
    for number in (5, 18):
        with pytest.raises(InputError, match=rf"option keypoints is 17, and objects of data have up to {number}; set"):
            check_places(run, number, where="data")
    with pytest.raises(InputError, match="data: no object has a keypoint, so there is nothing to learn"):
        check_places(run, 0, where="data")


def test_a_model_that_has_diverged_is_refused(samples: list[Sample]) -> None:
    model = network()
    nn.init.constant_(model.get_parameter("final_layer.bias"), float("nan"))
    with pytest.raises(NonFiniteError, match=rf"sample {samples[0].sample_id}: the model's heatmaps are not finite"):
        OPS.predict(model, evaluated(samples), bundle())


def test_of_a_crowd_some_are_learnt_of_and_their_own_truth_counts(samples: list[Sample]) -> None:
    batch, model = trained(samples), network(most_objects=2, jitter=0.0).train()
    images = training_inputs(batch, torch.device("cpu"))
    outputs: list[HeatmapOutput] = []

    def forward(*inputs: Any) -> HeatmapOutput:
        outputs.append(model(*inputs))
        return outputs[-1]

    chosen, losses = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(OPS.losses(forward, images, batch)["heatmaps"].detach()))
        assert outputs[-1].chosen_N is not None
        chosen.append(outputs[-1].chosen_N.tolist())
    assert chosen[0] == chosen[1] != chosen[2]
    assert losses[0] == losses[1]
    assert all(len(each) == 2 and each == sorted(each) for each in chosen)
    truths = torch.cat([o.keypoints_NP3[~o.is_crowd_N] for o in batch.objects or () if o.keypoints_NP3 is not None])
    truths = truths[(truths[..., 2] > 0).any(1)][chosen[2]]
    found = outputs[-1]
    cells = to_cells(truths[..., :2], found.regions_N4, (24, 16))
    counted = (truths[..., 2] > 0) & inside(cells, (24, 16))
    expected = functional.mse_loss(found.heatmaps_NPhw[counted], gaussian_targets(cells, (24, 16))[counted])
    assert losses[2] == pytest.approx(float(expected.detach()))


class Saying(nn.Module):
    """Says where one point lies, in heatmaps of bfloat16 as every model's are in that precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images_N3HW: Tensor, boxes: Sequence[Tensor]) -> HeatmapOutput:
        regions_N4 = torch.cat(list(boxes))
        cells = to_cells(torch.tensor([[[511.3, 40.6]]]), regions_N4, (48, 64))
        return HeatmapOutput(heatmaps_NPhw=gaussian_targets(cells, (48, 64)).bfloat16(), regions_N4=regions_N4)


def test_places_are_read_in_float32_whatever_the_model_runs_in() -> None:
    """511.3 is 512 in bfloat16, whose step there is 2. Heatmaps of 8 bits move a peak by a thousandth of a pixel; to
    smooth them in bfloat16, too, moved it by a hundredth."""
    batch = Batch(
        images_N3HW=torch.zeros(1, 3, 96, 640, dtype=torch.uint8),
        labels_NHW=None,
        sample_ids=("s",),
        original_sizes=((96, 640),),
        given=(GivenObjects(boxes_M4=torch.tensor([[480.0, 0, 544, 96]]).double(), class_ids_M=torch.tensor([0])),),
    )
    (found,) = OPS.predict(InPrecision(Saying(), "cpu", "bfloat16"), batch, bundle(keypoints=1, keypoint_pairs=[]))
    assert found.points_NP3[0, 0, :2].tolist() == pytest.approx([511.3, 40.6], abs=0.003)


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
