"""VGG and AlexNet as encoders: torchvision's maps from torchvision's weights, and where pooling took its values."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from segpipe.errors import InputError
from segpipe.models.parts.backbones import BACKBONES, Backbone, alexnet, build_backbone
from segpipe.models.parts.backbones.vgg import Pool
from segpipe.models.parts.upsampling import pool_with_places

NAMES = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]


def features(name: str) -> nn.Sequential:
    """torchvision's, without the classifier that would take a second to make."""
    with torch.device("meta"):
        outline = getattr(torchvision.models, name)(weights=None).features
    torch.manual_seed(0)
    made = outline.to_empty(device="cpu")
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return made.eval()


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_are_torchvisions(name: str) -> None:
    theirs, ours = features(name), build_backbone(name).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    expected, maps = [], images()
    with torch.no_grad():
        for layer in theirs:
            maps = layer(maps)
            if isinstance(layer, nn.MaxPool2d):
                expected.append(maps)
        found = ours(images())
    assert [maps.shape[1] for maps in expected] == list(ours.channels)
    for mine, other in zip(found, expected, strict=True):
        assert torch.equal(mine, other)


def test_alexnets_maps_are_torchvisions_on_the_size_it_was_made_for() -> None:
    theirs = features("alexnet")
    ours = Backbone("alexnet", alexnet.LAYOUT.layers("none"), alexnet.LAYOUT).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        *_, last = ours(images(224, 224))
        assert last.shape == (1, 256, 6, 6)
        assert torch.equal(last, theirs(images(224, 224)))


def test_the_convolutions_are_those_of_the_papers_table() -> None:
    """Columns A, B, D, E: 8, 10, 13, 16 convolutions before the three fully connected layers."""
    for name, count in {"vgg11": 8, "vgg13": 10, "vgg16": 13, "vgg19": 16}.items():
        for member in (name, f"{name}_bn"):
            with torch.device("meta"):
                found = [module for module in build_backbone(member).modules() if isinstance(module, nn.Conv2d)]
            assert len(found) == count
            assert all(module.kernel_size == (3, 3) for module in found)


@pytest.mark.parametrize(
    ("name", "norm"), [("vgg16_slim", "frozen"), ("vgg16_slim", "batch"), ("vgg16_bn_slim", "none")]
)
def test_a_norm_that_it_cannot_have_is_refused(name: str, norm: str) -> None:
    with pytest.raises(InputError, match=rf"norm: '{norm}' is not one of .*which {name} can have"):
        build_backbone(name, norm=norm)
    assert build_backbone(name, norm=BACKBONES[name].norms[0]).channels == (8, 16, 32, 64, 64)


def test_switches_say_where_the_maximum_stood() -> None:
    maps = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    pooled, switches = pool_with_places(maps)
    assert pooled.flatten().tolist() == [5, 6, 7, 8]
    assert switches.flatten().tolist() == [5, 2, 12, 15]
    assert torch.equal(Pool()(maps), pooled)


def test_the_last_window_of_an_odd_size_reaches_over_the_edge() -> None:
    row = torch.tensor([[[[1.0, 3.0, -2.0]]]])
    assert Pool()(row).flatten().tolist() == [3, -2]
    dilated = Pool()
    dilated.stride, dilated.dilation = 1, 1
    assert dilated(row).flatten().tolist() == [3, 3, -2]
