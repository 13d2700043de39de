"""LR-ASPP is torchvision's: the released state dict loads, with the same logits, dilation and as many parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from tests.fixtures.torchvisions import lively

RELEASED = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1


def test_torchvisions_state_dict_gives_torchvisions_logits(tmp_path: Path) -> None:
    theirs = lively("lraspp_mobilenet_v3_large")
    file = tmp_path / "released.pth"
    torch.save(theirs.state_dict(), file)
    ours = models.create("lraspp", 21, pretrained=str(file)).eval()
    images = torch.randn(2, 3, 97, 71)
    with torch.no_grad():
        expected, found = theirs(images)["out"], ours(images).logits_NKHW
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-2


def test_dilation_is_torchvisions() -> None:
    def rates(model: nn.Module) -> list[tuple[object, ...]]:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        return [(each.kernel_size, each.stride, each.dilation, each.padding) for each in convolutions]

    theirs = rates(lively("lraspp_mobilenet_v3_large"))
    assert rates(models.create("lraspp", 21)) == theirs
    assert sum(dilation == (2, 2) for _, _, dilation, _ in theirs) == 3, "the last stage, its first block too"


def test_parameters_and_published_numbers_are_those_of_the_release() -> None:
    model = models.create("lraspp", 21)
    assert sum(parameter.numel() for parameter in model.parameters()) == RELEASED.meta["num_params"]
    metrics = RELEASED.meta["_metrics"]["COCO-val2017-VOC-labels"]
    published = {number.metric: number.value for number in models.spec("lraspp").published}
    assert published == pytest.approx({"miou": metrics["miou"] / 100, "pixel_accuracy": metrics["pixel_acc"] / 100})


def test_the_releases_name_is_known_for_its_own_options_alone() -> None:
    found = models.weights_id("lraspp", {}, "COCO_WITH_VOC_LABELS_V1")
    assert found == "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1"
    assert models.weights_id("lraspp", {"channels": 64}, "IMAGENET1K_V1") == "MobileNet_V3_Large_Weights.IMAGENET1K_V1"
    with pytest.raises(InputError, match=r"'COCO_WITH_VOC_LABELS_V1' is not known for lraspp with mobilenet_v3_small"):
        models.weights_id("lraspp", {"backbone": "mobilenet_v3_small"}, "COCO_WITH_VOC_LABELS_V1")


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "mobilenet_v3_large"])
@pytest.mark.parametrize(("output_stride", "coarse"), [(8, 16), (16, 8), (32, 4)])
def test_one_map_is_of_stride_8_and_the_other_of_the_output_stride(
    backbone: str, output_stride: int, coarse: int
) -> None:
    with torch.device("meta"):
        model = models.create("lraspp", 3, backbone=backbone, output_stride=output_stride)
        low, high = model.backbone(torch.empty(1, 3, 128, 128))
    assert (low.shape[-1], high.shape[-1]) == (16, coarse)


def test_the_image_weighs_the_coarse_scores() -> None:
    head = models.create("lraspp", 1, backbone="mobilenet_v3_small", channels=2).eval().classifier
    for conv in (head.low_classifier, head.high_classifier):
        nn.init.zeros_(conv.bias)
    nn.init.zeros_(head.low_classifier.weight)
    low, high = torch.randn(1, 24, 4, 4), torch.randn(1, 576, 2, 2)
    with torch.no_grad():
        nn.init.zeros_(head.scale[1].weight)
        half = head(low, high)  # sigmoid of zero
        seen = head.high_classifier(torch.nn.functional.interpolate(head.cbr(high), size=(4, 4), mode="bilinear"))
    torch.testing.assert_close(half, seen / 2)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(InputError, match=r"backbone: 'resnet18' is not one of mobilenet_v3_large, mobilenet_v3_small"):
        models.create("lraspp", 2, backbone="resnet18")
