"""DeepLabV3: torchvision's state dicts give torchvision's logits; rates are the paper's; blocks 5 to 7 follow 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.deeplab_v3 import RELEASED
from tests.fixtures.torchvisions import lively

WEIGHTS = torchvision.models.segmentation


def rates(module: nn.Module) -> list[int]:
    """Of all kernels larger than 1 x 1, in order."""
    return [m.dilation[0] for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]


@pytest.mark.parametrize("name", list(RELEASED))
def test_torchvisions_state_dict_gives_torchvisions_logits(name: str, tmp_path: Path) -> None:
    theirs = lively(name, aux_loss=True)
    file = tmp_path / "released.pth"
    torch.save(theirs.state_dict(), file)
    ours = models.create("deeplab_v3", 21, pretrained=str(file), **RELEASED[name]).eval()
    images = torch.randn(2, 3, 65, 47)
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
    scale = float(expected["out"].abs().max())
    torch.testing.assert_close(found.logits_NKHW, expected["out"], rtol=0, atol=1e-5 * max(scale, 1))
    torch.testing.assert_close(found.aux["aux"], expected["aux"], rtol=0, atol=1e-5 * max(scale, 1))
    assert expected["out"].std() > 1e-2
    assert [m.p for m in ours.aspp.modules() if isinstance(m, nn.Dropout)] == [0.5]


def test_a_model_of_our_own_keeps_its_keys(tmp_path: Path) -> None:
    options = dict(models.spec("deeplab_v3").tiny)
    ours = models.create("deeplab_v3", 3, **options)
    file = tmp_path / "ours.pt"
    torch.save(ours.state_dict(), file)
    again = models.create("deeplab_v3", 3, pretrained=str(file), **options).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(("name", "weights"), [(name, f"{name}_weights") for name in RELEASED])
def test_released_weights_are_known_by_their_name(name: str, weights: str) -> None:
    models.check("deeplab_v3", RELEASED[name], pretrained="COCO_WITH_VOC_LABELS_V1")
    found = models.weights_id("deeplab_v3", RELEASED[name], "COCO_WITH_VOC_LABELS_V1")
    assert found.lower() == f"{weights}.COCO_WITH_VOC_LABELS_V1".lower()
    with pytest.raises(InputError, match="'COCO_WITH_VOC_LABELS_V1' is not known for deeplab_v3"):
        models.check("deeplab_v3", {**RELEASED[name], "form": "paper"}, pretrained="COCO_WITH_VOC_LABELS_V1")


@pytest.mark.parametrize("name", list(RELEASED))
def test_published_numbers_are_those_of_the_release(name: str) -> None:
    metrics = torchvision.models.get_model_weights(name).COCO_WITH_VOC_LABELS_V1.meta["_metrics"]
    expected = {"miou": "miou", "pixel_accuracy": "pixel_acc"}
    body = {"resnet50": "ResNet-50,", "resnet101": "ResNet-101,", "mobilenet_v3_large": "MobileNetV3-Large,"}
    for number in models.spec("deeplab_v3").published:
        if number.dataset.startswith("COCO") and number.protocol.startswith(body[name.removeprefix("deeplabv3_")]):
            share = metrics["COCO-val2017-VOC-labels"][expected.pop(number.metric)] / 100
            assert number.value == pytest.approx(share)
    assert expected == {}


@pytest.mark.parametrize(
    ("output_stride", "last", "pyramid"), [(16, [2, 4, 8], [6, 12, 18]), (8, [4, 8, 16], [12, 24, 36])]
)
def test_rates_are_the_papers(output_stride: int, last: list[int], pyramid: list[int]) -> None:
    """Section 3.2.1: the rate of a unit is that of its stage times its unit rate; section 3.3: doubled at stride 8."""
    with torch.device("meta"):
        model = models.create("deeplab_v3", 21, output_stride=output_stride)
    assert rates(model.backbone.layer4) == last
    assert set(rates(model.backbone.layer3)) == {16 // output_stride}
    assert rates(model.aspp) == pyramid
    convolutions = {name: m for name, m in model.aspp.named_modules() if isinstance(m, nn.Conv2d)}
    assert {(m.in_channels, m.groups) for name, m in convolutions.items() if "project" not in name} == {(2048, 1)}
    assert (convolutions["project.0"].in_channels, convolutions["project.0"].out_channels) == (5 * 256, 256)
    assert isinstance(model.joined, nn.Identity)


@pytest.mark.parametrize(
    ("backbone", "multi_grid", "expected"),
    [
        ("resnet18", [1, 2, 4], [2, 2, 4, 4]),
        ("resnet50", [1, 1, 1], [2, 2, 2]),
        ("resnet50", [], [1, 2, 2]),
        ("mobilenet_v3_large", [1, 2, 4], [2, 4, 8]),
    ],
)
def test_multi_grid_of_other_backbones(backbone: str, multi_grid: list[int], expected: list[int]) -> None:
    with torch.device("meta"):
        model = models.create("deeplab_v3", 2, backbone=backbone, multi_grid=multi_grid)
        assert model.eval()(torch.empty(1, 3, 64, 48)).logits_NKHW.shape == (1, 2, 64, 48)
        assert model.backbone(torch.empty(1, 3, 64, 48))[-1].shape[-2:] == (4, 3)
    assert rates(model.backbone)[-len(expected) :] == expected


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [(16, [[2, 4, 2], [4, 8, 4], [8, 16, 8], [16, 32, 16]]), (8, [[4, 8, 4], [8, 16, 8], [16, 32, 16], [32, 64, 32]])],
)
def test_the_cascade_doubles_its_rates(output_stride: int, expected: list[list[int]]) -> None:
    """Figure 3b: at output stride 16 the blocks 4 to 7 have rates 2, 4, 8, 16; here times multi-grid's (1, 2, 1)."""
    with torch.device("meta"):
        model = models.create("deeplab_v3_cascade", 21, output_stride=output_stride)
        cells = model.eval().backbone(torch.empty(1, 3, 128, 64))[-1]
        assert model.blocks[2](cells).shape == cells.shape == (1, 2048, 128 // output_stride, 64 // output_stride)
    assert [rates(stage) for stage in (model.backbone.layer4, *model.blocks)] == expected
    own = {key: value.shape for key, value in model.blocks[0][0].state_dict().items()}
    assert own == {key: value.shape for key, value in model.backbone.layer4[1].state_dict().items()}


def test_blocks_are_copies_in_form_alone() -> None:
    model = models.create("deeplab_v3_cascade", 2, backbone="resnet18", blocks=6)
    assert len(model.blocks) == 2
    weights = [model.backbone.layer4[1].conv1.weight, *(block[0].conv1.weight for block in model.blocks)]
    assert all(not torch.equal(weight, weights[0]) for weight in weights[1:])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplab_v3", {"form": "torch"}, r"form: 'torch' is not one of paper, torchvision"),
        ("deeplab_v3", {"output_stride": 32}, r"output_stride: 32 is not one of 8, 16"),
        ("deeplab_v3", {"multi_grid": [1, 2]}, r"multi_grid: \[1, 2\]; expected .* each of the 3 units"),
        ("deeplab_v3", {"multi_grid": [1, 2, 0]}, r"multi_grid: \[1, 2, 0\]; expected a whole number of at least 1"),
        ("deeplab_v3", {"channels": 0}, r"channels: expected a whole number of at least 1, found 0"),
        ("deeplab_v3_cascade", {"blocks": 8}, r"blocks: 8 is not one of 5, 6, 7"),
        ("deeplab_v3_cascade", {"output_stride": 32}, r"output_stride: 32 is not one of 8, 16"),
        ("deeplab_v3_cascade", {"multi_grid": []}, r"multi_grid: \[\]; the cascade gives each"),
        ("deeplab_v3_cascade", {"backbone": "mobilenet_v3_large"}, r"backbone: 'mobilenet_v3_large' has no stage of"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check(name, options)
