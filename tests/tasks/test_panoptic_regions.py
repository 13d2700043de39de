"""Regions and semantic logits of the panoptic task: the loss of both, masks pasted and merged at the image's size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from segpipe.data.batch import Batch
from segpipe.data.decode import decode
from segpipe.data.objects import decode_objects
from segpipe.errors import InputError, NonFiniteError
from segpipe.losses import cross_entropy
from segpipe.models.spec import RegionOutput, Regions
from segpipe.tasks.panoptic import PanopticOps, regions
from segpipe.types import ClassInfo, Sample
from tests.fixtures.panoptic_truths import truths
from tests.fixtures.regions import pasted

CLASSES = (
    ClassInfo(name="ground", colour=(90, 90, 90)),
    ClassInfo(name="box", colour=(220, 40, 40), is_thing=True),
)
IGNORE = 255


def batch(labels_NHW: torch.Tensor, sample: Sample | None = None) -> Batch:
    return Batch(
        images_N3HW=torch.zeros(len(labels_NHW), 3, *labels_NHW.shape[1:], dtype=torch.uint8),
        labels_NHW=labels_NHW,
        sample_ids=tuple(f"s/{n}" for n in range(len(labels_NHW))) if sample is None else (sample.sample_id,),
        original_sizes=(tuple(labels_NHW.shape[1:]),) * len(labels_NHW),
        samples=None if sample is None else (sample,),
    )


def found(*boxes: tuple[float, float, float, float], scores: tuple[float, ...], masks: bool = True) -> Regions:
    """Regions of class 1 that fill their boxes."""
    return Regions(
        boxes_M4=torch.tensor(boxes),
        class_ids_M=torch.ones(len(boxes), dtype=torch.int64),
        scores_M=torch.tensor(scores),
        mask_probabilities_Mss=torch.ones(len(boxes), 28, 28) if masks else None,
    )


def test_the_semantic_term_stands_beside_those_of_the_model() -> None:
    draw = torch.Generator().manual_seed(0)
    logits_NKHW, labels_NHW = torch.randn(2, 2, 6, 8, generator=draw), torch.ones(2, 6, 8, dtype=torch.uint8)
    labels_NHW[0, :3] = IGNORE
    output = RegionOutput(losses={"class": torch.tensor(3.0), "mask": torch.tensor(2.0)}, logits_NKHW=logits_NKHW)
    terms = regions.losses(output, batch(labels_NHW), classes=CLASSES, ignore_index=IGNORE)
    assert list(terms) == ["class", "mask", "semantic"]
    assert float(terms["class"]) == 3.0
    torch.testing.assert_close(terms["semantic"], 0.5 * cross_entropy(logits_NKHW, labels_NHW))


def test_regions_come_before_stuff_at_the_size_of_the_image() -> None:
    """The model saw the image at half its size."""
    logits_NKHW = torch.zeros(1, 2, 16, 24)
    logits_NKHW[:, 0] = 1.0
    logits_NKHW[:, 1, :, 16:] = 2.0
    output = RegionOutput(
        regions=(found((2.0, 2.0, 8.0, 8.0), (0.0, 10.0, 4.0, 14.0), scores=(0.9, 0.4)),), logits_NKHW=logits_NKHW
    )
    (answer,) = regions.maps(output, batch(torch.zeros(1, 32, 48, dtype=torch.uint8)), classes=CLASSES)
    assert answer.ids_HW.shape == (32, 48)
    assert (answer.ids_HW[5:15, 5:15] == 1).all(), "the surer region"
    assert abs(int((answer.ids_HW == 1).sum()) - 12 * 12) <= 13 * 4, "give or take the border that masks fade out on"
    assert (answer.ids_HW[20:, :30] == 2).all(), "the ground, also where a region below the threshold was"
    assert (answer.ids_HW[:, 34:] == 0).all(), "a thing that no region covers is void"
    assert [(s.segment_id, s.class_id) for s in answer.segments] == [(1, 1), (2, 0)]


def test_an_image_without_regions_is_its_stuff() -> None:
    nothing = Regions(
        boxes_M4=torch.zeros(0, 4),
        class_ids_M=torch.zeros(0, dtype=torch.int64),
        scores_M=torch.zeros(0),
        mask_probabilities_Mss=torch.zeros(0, 28, 28),
    )
    logits_NKHW = torch.zeros(1, 2, 8, 8)
    logits_NKHW[:, 0] = 1.0
    output = RegionOutput(regions=(nothing,), logits_NKHW=logits_NKHW)
    (answer,) = regions.maps(output, batch(torch.zeros(1, 8, 8, dtype=torch.uint8)), classes=CLASSES)
    assert [(s.class_id, s.area) for s in answer.segments] == [(0, 64.0)]


def test_truth_fed_back_scores_nearly_as_truth(tmp_path: Path) -> None:
    """Only masks of 28 x 28 cells stand between: outlines of large things. Small ones, of a few pixels, come back."""
    for name, classes, samples in truths(tmp_path):
        ops = PanopticOps(classes, IGNORE)
        meter = ops.meter()
        for sample in samples:
            decoded = decode(sample)
            assert decoded.labels_HW is not None
            shown = batch(decoded.labels_HW[None], sample)
            ops.measure(meter, regions.maps(perfect(sample, classes), shown, classes=classes), shown)
        scores = ops.scores(meter)
        assert scores["rq/all"] == 1.0, (name, scores)
        assert scores["pq/things"] > 0.97, (name, scores)
        assert scores["pq/stuff"] > 0.97, (name, scores)


@pytest.mark.parametrize(
    ("box", "inside"), [((2.0, 1.0, 5.0, 3.0), (1, 3, 2, 5)), ((3.0, 0.0, 7.0, 6.0), (0, 6, 3, 7))]
)
def test_a_full_mask_is_its_box_to_the_pixel(box: tuple[float, ...], inside: tuple[int, ...]) -> None:
    """Learnt by RoIAlign of the mask itself, in the middle of an image and at its border."""
    truth_HW = torch.zeros(6, 7)
    top, bottom, left, right = inside
    truth_HW[top:bottom, left:right] = 1.0
    learnt_ss = roi_align(truth_HW[None, None], torch.tensor([[0.0, *box]]), (28, 28), 1.0)[0, 0]
    mask_HW = pasted(learnt_ss, box, size=(6, 7), seen=(6, 7))
    assert np.array_equal(mask_HW, truth_HW.numpy() > 0)


def test_boxes_without_area_or_outside_of_the_image_leave_no_pixel() -> None:
    for box in ((3.0, 3.0, 3.0, 5.0), (20.0, 1.0, 24.0, 3.0), (1.0, -9.0, 3.0, -4.0)):
        assert not pasted(torch.ones(28, 28), box, size=(6, 7), seen=(6, 7)).any(), box


def perfect(sample: Sample, classes: tuple[ClassInfo, ...]) -> RegionOutput:
    """The things of a sample as regions, small ones surer than large ones, and its label map as logits."""
    objects, labels_HW = decode_objects(sample), decode(sample).labels_HW
    assert labels_HW is not None
    kept = torch.tensor([c.is_thing for c in classes])[objects.class_ids_N] & ~objects.is_crowd_N
    order = torch.argsort(objects.masks_NHW[kept].sum((1, 2)))
    boxes_M4, masks_MHW = objects.boxes_N4[kept][order], objects.masks_NHW[kept][order].float()
    numbers = torch.arange(len(order), dtype=torch.float32)[:, None]
    # As the mask branch is taught.
    cut_M1ss = roi_align(masks_MHW[:, None], torch.cat([numbers, boxes_M4], dim=1), (28, 28), 1.0)
    logits_KHW = torch.nn.functional.one_hot(labels_HW.long().clamp(max=len(classes)), len(classes) + 1)[..., :-1]
    found = Regions(
        boxes_M4=boxes_M4,
        class_ids_M=objects.class_ids_N[kept][order],
        scores_M=torch.linspace(1.0, 0.6, len(order)),
        mask_probabilities_Mss=cut_M1ss[:, 0],
    )
    return RegionOutput(regions=(found,), logits_NKHW=logits_KHW.permute(2, 0, 1)[None].float())


def test_what_cannot_be_read_is_refused() -> None:
    shown, logits_NKHW = batch(torch.zeros(1, 8, 8, dtype=torch.uint8)), torch.zeros(1, 2, 8, 8)
    box = (1.0, 1.0, 4.0, 4.0)
    with pytest.raises(InputError, match=r"no semantic branch.*choose panoptic_fpn"):
        regions.maps(RegionOutput(regions=(found(box, scores=(0.9,)),)), shown, classes=CLASSES)
    with pytest.raises(InputError, match="no semantic branch"):
        regions.losses(RegionOutput(), shown, classes=CLASSES, ignore_index=IGNORE)
    without = RegionOutput(regions=(found(box, scores=(0.9,), masks=False),), logits_NKHW=logits_NKHW)
    with pytest.raises(InputError, match="boxes without masks"):
        regions.maps(without, shown, classes=CLASSES)
    diverged = RegionOutput(regions=(found(box, scores=(math.nan,)),), logits_NKHW=logits_NKHW)
    with pytest.raises(NonFiniteError, match="sample s/0: the model's boxes or scores are not finite"):
        regions.maps(diverged, shown, classes=CLASSES)
    spoilt = RegionOutput(regions=(found(box, scores=(0.9,)),), logits_NKHW=logits_NKHW / 0)
    with pytest.raises(NonFiniteError, match="sample s/0: the model's classes are not finite"):
        regions.maps(spoilt, shown, classes=CLASSES)
