"""DeepLabV3+: the rates of its pyramid, the image's mean in it, and the low-level path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.models.deeplab_v3plus import ASPP


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(output_stride: int, rates: tuple[int, ...]) -> None:
    model = models.create("deeplab_v3plus", 3, backbone="resnet18", output_stride=output_stride)
    spatial = [m for m in model.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [conv.dilation for conv in spatial] == [(rate, rate) for rate in rates]
    assert all(conv.groups == conv.in_channels == 512 for conv in spatial)
    with torch.no_grad():
        assert model.eval().backbone(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 64 // output_stride


def test_low_level_features_are_48_channels_of_stride_4() -> None:
    model = models.create("deeplab_v3plus", 3, backbone="resnet50")
    assert (model.low_level[0].in_channels, model.low_level[0].out_channels) == (256, 48)
    assert model.decoder[0][0][0].in_channels == 256 + 48
    depthwise = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [conv.kernel_size for conv in depthwise] == [(3, 3), (3, 3)]


def test_the_image_branch_carries_the_mean_everywhere() -> None:
    aspp = ASPP(4, 6, (1, 2, 3)).eval()
    seen = []
    aspp.project.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    features = torch.randn(2, 4, 5, 7)
    with torch.no_grad():
        assert aspp(features).shape == (2, 6, 5, 7)
        expected = aspp.image(features.mean(dim=(2, 3), keepdim=True))
    image = seen[0][:, -6:]
    torch.testing.assert_close(image, expected.expand_as(image))


def test_image_pooling_of_one_image_trains() -> None:
    aspp = ASPP(4, 6, (1, 2, 3)).train()
    aspp(torch.randn(1, 4, 5, 7)).sum().backward()
    assert aspp.image[0].weight.grad.abs().sum() > 0
    assert aspp.image[1].num_batches_tracked == 0
    assert aspp.point[1].num_batches_tracked == 1
