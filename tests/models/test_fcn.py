"""FCN is torchvision's: the released state dicts load, with the same logits and as many parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from segpipe import models
from segpipe.models.parts.layers import fcn_head
from tests.fixtures.torchvisions import lively

RELEASED = {
    "fcn_resnet50": torchvision.models.segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
    "fcn_resnet101": torchvision.models.segmentation.FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
}


@pytest.mark.parametrize("name", list(RELEASED))
def test_torchvisions_state_dict_gives_torchvisions_logits(name: str, tmp_path: Path) -> None:
    theirs = lively(name, aux_loss=True)
    file = tmp_path / "released.pth"
    torch.save(theirs.state_dict(), file)
    ours = models.create(name, 21, aux=True, pretrained=str(file)).eval()
    images = torch.randn(2, 3, 65, 47)
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
    torch.testing.assert_close(found.logits_NKHW, expected["out"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.aux["aux"], expected["aux"], rtol=0, atol=1e-5)
    assert expected["out"].std() > 1e-2


@pytest.mark.parametrize("name", list(RELEASED))
def test_parameters_and_published_numbers_are_those_of_the_release(name: str) -> None:
    meta = RELEASED[name].meta
    model = models.create(name, 21, aux=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == meta["num_params"]
    metrics = meta["_metrics"]["COCO-val2017-VOC-labels"]
    published = {number.metric: number.value for number in models.spec(name).published}
    expected = {"miou": metrics["miou"] / 100, "pixel_accuracy": metrics["pixel_acc"] / 100}
    assert published == pytest.approx(expected)


def test_the_head_is_torchvisions() -> None:
    theirs = torchvision.models.segmentation.fcn.FCNHead(64, 5)
    ours = fcn_head(64, 5)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert ours[3].p == theirs[3].p


@pytest.mark.parametrize("name", ["fcn_resnet18", "fcn_mobilenet_v3_large"])
def test_auxiliary_logits_have_the_size_of_the_input(name: str) -> None:
    model = models.create(name, 3, aux=True).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 9, 20))
    assert {key: tuple(logits.shape) for key, logits in output.aux.items()} == {"aux": (1, 3, 9, 20)}


def test_a_coarser_output_stride_keeps_the_weights() -> None:
    fine, coarse = (models.create("fcn_resnet18", 3, output_stride=stride).eval() for stride in (8, 16))
    coarse.load_state_dict(fine.state_dict(), strict=True)

    def cells(model: nn.Module) -> tuple[int, ...]:
        maps: tuple[Tensor, ...] = model.backbone(torch.zeros(1, 3, 64, 32))
        return tuple(maps[-1].shape[-2:])

    with torch.no_grad():
        assert cells(fine) == (8, 4)
        assert cells(coarse) == (4, 2)
