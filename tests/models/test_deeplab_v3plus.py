"""DeepLabV3+: the rates of its pyramid, and the low-level path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segpipe import models


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(output_stride: int, rates: tuple[int, ...]) -> None:
    model = models.create("deeplab_v3plus", 3, backbone="resnet18", output_stride=output_stride)
    spatial = [m for m in model.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [conv.dilation for conv in spatial] == [(rate, rate) for rate in rates]
    assert all(conv.groups == conv.in_channels == 512 for conv in spatial)
    with torch.no_grad():
        assert model.eval().backbone(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 64 // output_stride


def test_the_papers_own_classifier_counts_as_its_port_with_the_authors_weights() -> None:
    """bonlime/keras-deeplab-v3-plus, 21 classes: 41,258,213, where Keras counts the statistics of norms as well."""
    with torch.device("meta"):
        model = models.create("deeplab_v3plus_xception", 21).eval()
        low, high = model.backbone(torch.empty(1, 3, 513, 513))[1::3]
    state = model.state_dict()
    assert sum(v.numel() for key, v in state.items() if not key.endswith("num_batches_tracked")) == 41_258_213
    assert (tuple(low.shape), tuple(high.shape)) == ((1, 256, 129, 129), (1, 2048, 33, 33))


@pytest.mark.parametrize(("multi_grid", "rates"), [([], [1, 2, 2]), ([1, 2, 4], [2, 4, 8])])
def test_multi_grid_is_an_option(multi_grid: list[int], rates: list[int]) -> None:
    with torch.device("meta"):
        model = models.create("deeplab_v3plus", 3, multi_grid=multi_grid)
    assert [unit.conv2.dilation[0] for unit in model.backbone.layer4] == rates


def test_low_level_features_are_48_channels_of_stride_4() -> None:
    model = models.create("deeplab_v3plus", 3, backbone="resnet50")
    assert (model.low_level[0].in_channels, model.low_level[0].out_channels) == (256, 48)
    assert model.decoder[0][0][0].in_channels == 256 + 48
    depthwise = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [conv.kernel_size for conv in depthwise] == [(3, 3), (3, 3)]
