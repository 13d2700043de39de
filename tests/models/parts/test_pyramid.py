"""The Feature Pyramid is torchvision's, number by number and key by key; PANet's second pass is its formula."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import feature_pyramid_network as theirs

from segpipe.models.parts.pyramid import BottomUpPass, FeaturePyramid, TopConvolutions, TopMaxPool

IN_CHANNELS, CHANNELS = (4, 6, 10), 8


def maps() -> list[Tensor]:
    """Three maps of a 50 x 36 image at strides 4, 8 and 16, of which one has an odd side."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(13, 9), (7, 5), (4, 3)]
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(IN_CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize(
    ("top", "their_top"),
    [
        (None, None),
        (TopMaxPool(), theirs.LastLevelMaxPool()),
        (TopConvolutions(CHANNELS, CHANNELS, from_backbone=False), theirs.LastLevelP6P7(CHANNELS, CHANNELS)),
        (TopConvolutions(10, CHANNELS, from_backbone=True), theirs.LastLevelP6P7(10, CHANNELS)),
    ],
    ids=["none", "max pool", "P6 of P5", "P6 of C5"],
)
@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
def test_levels_are_torchvisions(
    top: TopMaxPool | TopConvolutions | None, their_top: theirs.ExtraFPNBlock, norm: type[nn.Module] | None
) -> None:
    expected = theirs.FeaturePyramidNetwork(list(IN_CHANNELS), CHANNELS, extra_blocks=their_top, norm_layer=norm)
    pyramid = FeaturePyramid(IN_CHANNELS, CHANNELS, top=top, norm=norm)
    pyramid.load_state_dict(expected.state_dict(), strict=True)
    levels = expected(OrderedDict((str(number), each) for number, each in enumerate(maps()))).values()
    found = pyramid([torch.zeros(2, 3, 25, 18), *maps()])  # finer maps than those it was built for are left alone
    assert len(found) == pyramid.num_levels == len(levels)
    for ours, other in zip(found, levels, strict=True):
        assert torch.equal(ours, other)


def test_the_second_pass_adds_each_finer_level_to_the_next() -> None:
    torch.manual_seed(0)
    second = BottomUpPass(CHANNELS, 3)
    levels = FeaturePyramid(IN_CHANNELS, CHANNELS)(maps())
    n3, n4, n5 = second(levels)
    assert torch.equal(n3, levels[0])
    down, fuse = ([block[0] for block in blocks] for blocks in (second.down_blocks, second.fuse_blocks))
    expected = n3
    for number, found in ((0, n4), (1, n5)):
        halved = F.relu(F.conv2d(expected, down[number].weight, down[number].bias, stride=2, padding=1))
        joined = levels[number + 1] + halved
        expected = F.relu(F.conv2d(joined, fuse[number].weight, fuse[number].bias, padding=1))
        torch.testing.assert_close(found, expected)


def test_the_second_pass_comes_before_the_top() -> None:
    torch.manual_seed(0)
    second = BottomUpPass(CHANNELS, 3)
    pyramid = FeaturePyramid(IN_CHANNELS, CHANNELS, top=TopMaxPool(), second_pass=second)
    *levels, top = pyramid(maps())
    assert [tuple(level.shape[-2:]) for level in levels] == [(13, 9), (7, 5), (4, 3)]
    assert torch.equal(top, levels[-1][..., ::2, ::2])
    assert bool((levels[-1] >= 0).all()), "it ends in a ReLU"
    sum(level.sum() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in pyramid.parameters())
