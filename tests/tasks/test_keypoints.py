"""Keypoints behind the task door: what a sample says, and points in pixels of the image."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe.data.batch import Batch, GivenObjects
from segpipe.errors import InputError
from segpipe.heatmaps import gaussian_targets, to_cells
from segpipe.models.spec import HeatmapOutput
from segpipe.tasks.keypoints import KeypointsOps
from segpipe.train.session import InPrecision
from segpipe.types import Inference, Sample
from tests.fixtures.figures import CLASSES, HEIGHT, IGNORE, PAIRS, WIDTH, figure_samples
from tests.fixtures.poses import OPS, Knowing, bundle, evaluated, network, samples

__all__ = ["samples"]


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
