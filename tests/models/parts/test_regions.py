"""Region models: what they are trained on, what they find, and the images that break careless ones."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.regions import pad_images
from segpipe.models.spec import RegionTarget
from tests.fixtures.model_kinds import whole_image

K = 3
TERMS = {
    "faster_rcnn": {"rpn_objectness", "rpn_box", "class", "box"},
    "mask_rcnn": {"rpn_objectness", "rpn_box", "class", "box", "mask"},
    "retinanet": {"class", "box"},
}
FORMS = [(name, form) for name in TERMS for form in ("v1", "v2")]
every_form = pytest.mark.parametrize(("name", "form"), FORMS)


def small(name: str, **options: Any) -> dict[str, Any]:
    wanted = {**models.spec(name).tiny, "channels": 64 if name == "retinanet" else 32, **options}
    return {option: value for option, value in wanted.items() if option in models.spec(name).options}


@functools.cache
def ready(name: str, form: str) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, K, **small(name, form=form)).eval()


def images(height: int = 64, width: int = 64, *, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def target(
    boxes: Sequence[Sequence[float]], class_ids: Sequence[int], size: tuple[int, int] = (64, 64)
) -> RegionTarget:
    masks_MHW = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask_HW, (x0, y0, x1, y1) in zip(masks_MHW, boxes, strict=True):
        mask_HW[int(y0) : int(y1), int(x0) : int(x1)] = True
    return RegionTarget(
        boxes_M4=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        class_ids_M=torch.tensor(class_ids, dtype=torch.int64),
        masks_MHW=masks_MHW,
    )


EMPTY = target([], [])
TWO = target([[4, 8, 30, 40], [20, 20, 60, 60]], [0, 2])


@every_form
@pytest.mark.parametrize("targets", [(TWO, EMPTY), (EMPTY, EMPTY), (TWO, TWO)], ids=["some", "none", "all"])
def test_losses_come_by_term_and_reach_every_parameter(name: str, form: str, targets: tuple[RegionTarget, ...]) -> None:
    model = copy.deepcopy(ready(name, form)).train()
    output = model(images(), targets)
    assert output.losses.keys() == TERMS[name]
    assert output.regions == ()
    assert all(loss.dtype == torch.float32 and loss.isfinite() and loss >= 0 for loss in output.losses.values())
    torch.stack(list(output.losses.values())).sum().backward()
    # Each has a gradient, if of zero: ranks of a distributed run wait for all of them.
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    assert all(bool(buffer.isfinite().all()) for buffer in model.buffers()), "no norm has learned from nothing"


@every_form
def test_targets_decide_what_is_returned_and_not_the_mode(name: str, form: str) -> None:
    model = copy.deepcopy(ready(name, form))
    with torch.no_grad():
        for mode in (True, False):
            model.train(mode)
            asked, told = model(images()), model(images(), [TWO, EMPTY])
            assert len(asked.regions) == 2
            assert not asked.losses
            assert told.losses.keys() == TERMS[name]
            assert model.training is mode


@every_form
def test_half_precision_leaves_boxes_and_losses_whole(name: str, form: str) -> None:
    """Anchors in bfloat16 would stand up to 2 pixels from where they belong at 500 pixels."""
    model, wide = ready(name, form), images(32, 512, batch=1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        regions = model(wide).regions[0]
        losses = model(wide, whole_image(wide)).losses
    assert regions.boxes_M4.dtype == regions.scores_M.dtype == torch.float32
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    rounded = regions.boxes_M4.bfloat16().float()
    assert len(regions.boxes_M4) > 0
    assert not torch.equal(rounded, regions.boxes_M4)


@every_form
@pytest.mark.parametrize("size", [(5, 9), (20, 70)])
def test_small_images_train_and_predict(name: str, form: str, size: tuple[int, int]) -> None:
    model = copy.deepcopy(ready(name, form)).train()
    objects = target([[1, 1, 4, 5]], [1], size)
    losses = model(images(*size, batch=1), [objects]).losses
    assert all(bool(loss.isfinite()) for loss in losses.values())
    with torch.no_grad():
        boxes_M4 = model.eval()(images(*size, batch=1)).regions[0].boxes_M4
    assert bool((boxes_M4 <= torch.tensor([size[1], size[0]] * 2)).all())


def test_the_padding_is_zero_and_below_and_right() -> None:
    padded = pad_images(images(33, 64))
    assert padded.tensors.shape == (2, 3, 64, 64)
    assert torch.equal(padded.tensors[:, :, :33], images(33, 64))
    assert not padded.tensors[:, :, 33:].any()
    assert padded.image_sizes == [(33, 64)] * 2


def test_levels_keep_their_stride_whatever_image_comes_first() -> None:
    """A first image of 5 x 9 pixels must not decide how all later ones are pooled."""
    fresh, used = (copy.deepcopy(ready("mask_rcnn", "v1")) for _ in range(2))
    with torch.no_grad():
        used(images(5, 9))
        expected, found = fresh(images()).regions[0], used(images()).regions[0]
    assert used.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    assert torch.equal(found.boxes_M4, expected.boxes_M4)
    assert torch.equal(found.mask_probabilities_Mss, expected.mask_probabilities_Mss)


def test_the_losses_are_torchvisions() -> None:
    """The same weights, images, truth and random sampling: every term is that of torchvision's own forward."""
    torch.manual_seed(0)
    theirs = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=K + 1, rpn_post_nms_top_n_train=40, rpn_pre_nms_top_n_train=40
    )
    ours = models.create("mask_rcnn", K, proposals=20)
    ours.load_state_dict(models.spec("mask_rcnn").adapt(theirs.state_dict()), strict=True)
    theirs.transform = detection.transform.GeneralizedRCNNTransform(64, 64, [0.0] * 3, [1.0] * 3, _skip_resize=True)
    truth = [{"boxes": each.boxes_M4, "labels": each.class_ids_M + 1, "masks": each.masks_MHW} for each in (TWO, EMPTY)]
    torch.manual_seed(1)
    with torch.no_grad():
        expected = theirs.train()(list(images()), truth)
    torch.manual_seed(1)
    with torch.no_grad():
        found = ours.train()(images(), [TWO, EMPTY]).losses
    names = {
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
    }
    for term, name in names.items():
        torch.testing.assert_close(found[term], expected[name], rtol=1e-5, atol=1e-6)


# The focal loss first teaches every anchor that it is almost surely empty; the classes come after.
@pytest.mark.parametrize(("name", "steps"), [("mask_rcnn", 30), ("retinanet", 60)])
def test_a_region_model_learns_one_image(name: str, steps: int) -> None:
    """Two squares on noise, of two classes: after some steps both are found, named, and drawn."""
    torch.manual_seed(0)
    picture = images(batch=1) * 0.1
    truth = target([[8, 8, 28, 28], [36, 32, 60, 56]], [0, 1])
    picture[:, 0, 8:28, 8:28] += 2
    picture[:, 2, 32:56, 36:60] += 2
    model = models.create(name, 2, **small(name, head_width=64, proposals=50, samples=32, candidates=100))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(model(picture, [truth]).losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        found = model(picture).regions[0]  # by the statistics of this image, as in training
    for class_id, box_4 in enumerate(truth.boxes_M4):
        best = int(torch.where(found.class_ids_M == class_id)[0][0])
        torch.testing.assert_close(found.boxes_M4[best], box_4, rtol=0, atol=5)
        if found.mask_probabilities_Mss is not None:
            assert float(found.mask_probabilities_Mss[best].mean()) > 0.8


def test_targets_that_cannot_be_learned_are_refused() -> None:
    for name in TERMS:
        model = ready(name, "v1")
        with pytest.raises(InputError, match=r"targets: 1 for 2 images; expected one an image"):
            model(images(), [TWO])
        flat = target([[4, 8, 30, 40]], [0])
        flat.boxes_M4[0, 3] = 8
        with pytest.raises(InputError, match=r"image 1 has a box without area, \[4.0, 8.0, 30.0, 8.0\]"):
            model(images(), [TWO, flat])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("faster_rcnn", {"form": "v3"}, r"form: 'v3' is not one of v1, v2, mobile"),
        ("mask_rcnn", {"form": "mobile"}, r"form: 'mobile' is not one of v1, v2"),
        ("retinanet", {"form": "mobile"}, r"form: 'mobile' is not one of v1, v2"),
        ("faster_rcnn", {"form": "mobile"}, r"made of mobilenet_v3_large, found backbone: 'resnet50'"),
        ("mask_rcnn", {"norm": "group"}, r"norm: 'group' is not one of batch, frozen"),
        ("mask_rcnn", {"detections": 0}, r"detections: expected a whole number of at least 1, found 0"),
        ("mask_rcnn", {"min_score": 1.0}, r"min_score: 1.0 is not in 0..1"),
        ("retinanet", {"form": "v2", "channels": 32}, r"channels: 32 is not a multiple of 64"),
        ("retinanet", {"smallest_anchor": 0}, r"smallest_anchor: expected a whole number of at least 1, found 0"),
        ("mask_rcnn", {"backbone": "resnet19"}, r"unknown 'resnet19'"),
    ],
)
def test_options_that_make_no_model_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check(name, options)


@pytest.mark.parametrize("backbone", ["resnet34", "mobilenet_v3_large", "resnext101_32x8d"])
@pytest.mark.parametrize("name", list(TERMS))
def test_other_backbones_and_the_second_pass(name: str, backbone: str) -> None:
    with torch.device("meta"):
        model = models.spec(name).build(
            num_classes=K, in_channels=3, **models.complete(name, small(name, backbone=backbone, second_pass=True))
        )
        levels = model.pyramid(model.backbone(torch.zeros(1, 3, 64, 96)))
    finest = 8 if name == "retinanet" else 4
    assert [tuple(level.shape[2:]) for level in levels[:3]] == [
        (64 // stride, 96 // stride) for stride in (finest, 2 * finest, 4 * finest)
    ]
    assert len(levels) == 5


def test_fewer_detections_and_higher_scores_are_asked_for_by_options() -> None:
    torch.manual_seed(0)
    state = ready("mask_rcnn", "v1").state_dict()
    counts = {}
    for limit in ({"detections": 2}, {"min_score": 0.99}):
        model = models.create("mask_rcnn", K, **{**small("mask_rcnn"), **limit}).eval()
        model.load_state_dict(state)
        with torch.no_grad():
            regions = model(images(batch=1)).regions[0]
        counts[next(iter(limit))] = len(regions.scores_M)
        assert regions.mask_probabilities_Mss.shape == (len(regions.scores_M), 28, 28)
    assert counts == {"detections": 2, "min_score": 0}


def test_a_batch_without_proposals_and_objects_has_a_loss_of_zero() -> None:
    """The mobile form drops proposals by their score in training, too: of street without a car nothing may be left."""
    model = models.create("faster_rcnn", 2, form="mobile", backbone="mobilenet_v3_large", channels=16, head_width=16)
    nn.init.constant_(model.get_submodule("rpn.head.cls_logits").bias, -20.0)
    images_NCHW = torch.rand(2, 3, 64, 64)
    nothing = RegionTarget(
        boxes_M4=torch.zeros(0, 4),
        class_ids_M=torch.zeros(0, dtype=torch.int64),
        masks_MHW=torch.zeros(0, 64, 64, dtype=torch.bool),
    )
    losses = model.train()(images_NCHW, [nothing, nothing]).losses
    assert losses["class"].item() == losses["box"].item() == 0.0
    assert all(torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "mobile", "backbone": "mobilenet_v3_large", "second_pass": True}, "no pass goes down between them"),
        ({"samples": 3}, "samples: 3; a quarter of them are objects"),
    ],
)
def test_options_that_could_not_learn_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("faster_rcnn", options)
