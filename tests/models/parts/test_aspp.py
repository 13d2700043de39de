"""Atrous spatial pyramid pooling: the image's mean in it, its views side by side, and training on one image."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.models.parts.aspp import ASPP

every_kind = pytest.mark.parametrize("separable", [False, True])


@every_kind
def test_the_image_branch_carries_the_mean_everywhere(separable: bool) -> None:
    aspp = ASPP(4, 6, (1, 2, 3), separable=separable).eval()
    seen = []
    aspp.project.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    features = torch.randn(2, 4, 5, 7)
    with torch.no_grad():
        assert aspp(features).shape == (2, 6, 5, 7)
        expected = aspp.image(features.mean(dim=(2, 3), keepdim=True))
    image = seen[0][:, -6:]
    torch.testing.assert_close(image, expected.expand_as(image))


@every_kind
def test_image_pooling_of_one_image_trains(separable: bool) -> None:
    aspp = ASPP(4, 6, (1, 2, 3), separable=separable).train()
    aspp(torch.randn(1, 4, 5, 7)).sum().backward()
    assert aspp.image[0].weight.grad.abs().sum() > 0
    assert aspp.image[1].num_batches_tracked == 0
    assert aspp.point[1].num_batches_tracked == 1


def test_views_are_plain_or_separable_convolutions_at_their_rates() -> None:
    plain, separable = (ASPP(4, 6, (2, 3), separable=kind).eval() for kind in (False, True))
    features = torch.randn(1, 4, 9, 8)
    with torch.no_grad():
        for branch, rate in zip(plain.atrous, (2, 3), strict=True):
            expected = F.conv2d(features, branch[0].weight, padding=rate, dilation=rate) / (1 + 1e-5) ** 0.5
            torch.testing.assert_close(branch(features), expected.relu())
    groups = [m.groups for m in separable.atrous.modules() if isinstance(m, nn.Conv2d)]
    assert groups == [4, 1, 4, 1]
