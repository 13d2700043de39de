"""Centres and offsets of the panoptic task: their targets, their losses, and truth that comes back without a fault."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segpipe.data.batch import Batch
from segpipe.data.decode import decode
from segpipe.data.objects import Objects, boxes_of, decode_objects
from segpipe.errors import NonFiniteError
from segpipe.losses import cross_entropy
from segpipe.models.spec import CentreOutput
from segpipe.tasks.panoptic import PanopticOps, centres
from segpipe.types import ClassInfo, Sample
from tests.fixtures.panoptic_truths import truths

CLASSES = (
    ClassInfo(name="ground", colour=(90, 90, 90)),
    ClassInfo(name="box", colour=(220, 40, 40), is_thing=True),
    ClassInfo(name="disc", colour=(40, 200, 60), is_thing=True),
)
IGNORE = 255
CPU = torch.device("cpu")


def objects(ids_HW: Tensor, classes: dict[int, int], crowds: tuple[int, ...] = ()) -> Objects:
    """Every id of the map as an object."""
    masks_NHW = torch.stack([ids_HW == number for number in classes])
    return Objects(
        class_ids_N=torch.tensor(list(classes.values())),
        segment_ids_N=torch.tensor(list(classes)),
        is_crowd_N=torch.tensor([number in crowds for number in classes]),
        masks_NHW=masks_NHW,
        boxes_N4=boxes_of(masks_NHW),
        keypoints_NP3=None,
    )


def scene() -> tuple[Tensor, Objects]:
    """Labels and objects of 6 x 128 pixels: a box in columns 10..14, a crowd in 60..69, ignored from 120 on."""
    ids_HW = torch.ones(6, 128, dtype=torch.int64)
    ids_HW[2:5, 10:15] = 2
    ids_HW[:, 60:70] = 3
    labels_HW = torch.tensor([0, 0, 1, 2])[ids_HW].to(torch.uint8)
    labels_HW[:, 120:] = IGNORE
    return labels_HW, objects(ids_HW, {1: 0, 2: 1, 3: 2}, crowds=(3,))


def batch(labels_HW: Tensor, found: Objects) -> Batch:
    return Batch(
        images_N3HW=torch.zeros(1, 3, *labels_HW.shape, dtype=torch.uint8),
        labels_NHW=labels_HW[None],
        sample_ids=("s/0",),
        original_sizes=(tuple(labels_HW.shape),),
        objects=(found,),
    )


def test_a_thing_has_a_gaussian_at_its_centre_and_its_pixels_point_there() -> None:
    heat_HW, offsets_2HW, owned_HW, crowd_HW = centres.centre_targets(scene()[1], CLASSES, CPU)
    assert (heat_HW == 1).nonzero().tolist() == [[3, 12]]
    spread = 2 * (128 / 64) ** 2
    for row, column in ((3, 14), (0, 12), (5, 20)):
        expected = math.exp(-((row - 3) ** 2 + (column - 12) ** 2) / spread)
        assert float(heat_HW[row, column]) == pytest.approx(expected)
    assert offsets_2HW[:, 2, 14].tolist() == [1.0, -2.0]
    assert offsets_2HW[:, 4, 10].tolist() == [-1.0, 2.0]
    assert owned_HW.sum() == 15, "neither stuff nor a crowd has a centre"
    assert crowd_HW.sum() == 60


def test_a_wide_crop_has_gaussians_of_the_paper() -> None:
    ids_HW = torch.ones(3, 1000, dtype=torch.int64)
    ids_HW[:, 500:511] = 2
    heat_HW, *_ = centres.centre_targets(objects(ids_HW, {1: 0, 2: 1}), CLASSES, CPU)
    assert float(heat_HW[1, 505 + 8]) == pytest.approx(math.exp(-0.5))


def test_an_even_thing_has_one_highest_pixel_and_the_later_of_two_owns_what_both_cover() -> None:
    masks_NHW = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks_NHW[0, :4, :4] = True
    masks_NHW[1, 3:, 3:] = True
    found = Objects(
        class_ids_N=torch.tensor([1, 2]),
        segment_ids_N=torch.tensor([1, 2]),
        is_crowd_N=torch.zeros(2, dtype=torch.bool),
        masks_NHW=masks_NHW,
        boxes_N4=boxes_of(masks_NHW),
        keypoints_NP3=None,
    )
    heat_HW, offsets_2HW, *_ = centres.centre_targets(found, CLASSES, CPU)
    assert (heat_HW == 1).nonzero().tolist() == [[2, 2], [5, 5]]
    assert offsets_2HW[:, 0, 0].tolist() == [1.5, 1.5], "the mean of the pixels, though no pixel is there"
    assert offsets_2HW[:, 3, 3].tolist() == [2.0, 2.0]


def test_losses_count_what_is_labelled_and_no_crowd() -> None:
    labels_HW, found = scene()
    heat_HW, offsets_2HW, owned_HW, crowd_HW = centres.centre_targets(found, CLASSES, CPU)
    draw = torch.Generator().manual_seed(0)
    output = CentreOutput(
        logits_NKHW=torch.randn(1, 3, 6, 128, generator=draw),
        centres_N1HW=torch.randn(1, 1, 6, 128, generator=draw),
        offsets_N2HW=torch.randn(1, 2, 6, 128, generator=draw),
    )
    terms = centres.losses(output, batch(labels_HW, found), classes=CLASSES, ignore_index=IGNORE)
    counted_HW = (labels_HW != IGNORE) & ~crowd_HW
    assert int(counted_HW.sum()) == 6 * (128 - 8 - 10)
    torch.testing.assert_close(terms["centre"], 200 * (output.centres_N1HW[0, 0] - heat_HW)[counted_HW].square().mean())
    away = (output.offsets_N2HW[0] - offsets_2HW)[:, owned_HW].abs().mean()
    torch.testing.assert_close(terms["offset"], 0.01 * away)
    torch.testing.assert_close(terms["semantic"], cross_entropy(output.logits_NKHW, labels_HW[None]))


def test_a_crop_without_things_and_labels_has_finite_losses() -> None:
    ids_HW = torch.ones(4, 4, dtype=torch.int64)
    found, labels_HW = objects(ids_HW, {1: 0}), torch.full((4, 4), IGNORE, dtype=torch.uint8)
    offsets_N2HW = torch.randn(1, 2, 4, 4).requires_grad_()
    output = CentreOutput(
        logits_NKHW=torch.randn(1, 3, 4, 4), centres_N1HW=torch.randn(1, 1, 4, 4), offsets_N2HW=offsets_N2HW
    )
    terms = centres.losses(output, batch(labels_HW, found), classes=CLASSES, ignore_index=IGNORE)
    assert {name: float(term.detach()) for name, term in terms.items()} == {
        "semantic": 0.0,
        "centre": 0.0,
        "offset": 0.0,
    }
    sum(terms.values()).backward()
    assert offsets_N2HW.grad is not None
    assert not offsets_N2HW.grad.any()


def perfect(sample: Sample, classes: tuple[ClassInfo, ...], *, scale: float = 1.0) -> CentreOutput:
    """What a model without a mistake says of a sample, shown to it `scale` times as large."""
    decoded = decode(sample)
    assert decoded.labels_HW is not None
    heat_HW, offsets_2HW, *_ = centres.centre_targets(decode_objects(sample), classes, CPU)
    labels_HW = decoded.labels_HW.long()
    logits_KHW = torch.nn.functional.one_hot(labels_HW.clamp(max=len(classes)), len(classes) + 1)[..., :-1] * 9.0
    output = [logits_KHW.permute(2, 0, 1)[None].float(), heat_HW[None, None], offsets_2HW[None] * scale]
    if scale != 1.0:
        output = [torch.nn.functional.interpolate(each, scale_factor=scale) for each in output]
    return CentreOutput(logits_NKHW=output[0], centres_N1HW=output[1], offsets_N2HW=output[2])


def test_truth_fed_back_scores_as_truth(tmp_path: Path) -> None:
    """A crowd has no centre, and its pixels, which are of things, join the centres beside it: COCO's has some."""
    for name, classes, samples in truths(tmp_path):
        ops = PanopticOps(classes, IGNORE)
        meter = ops.meter()
        for sample in samples:
            found = centres.maps(perfect(sample, classes), stored(sample), classes=classes)
            ops.measure(meter, found, stored(sample))
        scores = ops.scores(meter)
        assert scores["pq/stuff"] == 1.0, name
        assert scores["pq/things"] == 1.0 or name not in ("scenes", "cityscapes_sample"), (name, scores)


def stored(sample: Sample) -> Batch:
    """The batch of one sample as evaluation makes it."""
    decoded = decode(sample)
    return Batch(
        images_N3HW=decoded.image_3HW[None],
        labels_NHW=None if decoded.labels_HW is None else decoded.labels_HW[None],
        sample_ids=(sample.sample_id,),
        original_sizes=((sample.height, sample.width),),
        samples=(sample,),
    )


def test_a_model_that_saw_the_image_larger_answers_at_its_size(tmp_path: Path) -> None:
    """Offsets shrink with the image."""
    _, classes, samples = next(truths(tmp_path))
    ops = PanopticOps(classes, IGNORE)
    for sample in samples[:2]:
        meter = ops.meter()
        found = centres.maps(perfect(sample, classes, scale=2.0), stored(sample), classes=classes)
        assert found[0].ids_HW.shape == (sample.height, sample.width)
        ops.measure(meter, found, stored(sample))
        assert ops.scores(meter)["pq/things"] > 0.9


@pytest.mark.parametrize("spoilt", ["logits_NKHW", "centres_N1HW", "offsets_N2HW"])
def test_a_model_that_has_diverged_makes_no_map(spoilt: str) -> None:
    classes = (ClassInfo(name="road", colour=(1, 2, 3)), ClassInfo(name="car", colour=(4, 5, 6), is_thing=True))
    batch = Batch(
        images_N3HW=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        labels_NHW=None,
        sample_ids=("s/0",),
        original_sizes=((8, 8),),
    )
    said = {name: torch.zeros(1, k, 8, 8) for name, k in (("logits_NKHW", 2), ("centres_N1HW", 1), ("offsets_N2HW", 2))}
    said[spoilt][0, 0, 3, 3] = math.nan
    with pytest.raises(NonFiniteError, match="sample s/0: the model's classes, centres or offsets are not finite"):
        centres.maps(CentreOutput(**said), batch, classes=classes)
