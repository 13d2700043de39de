"""Backbones: torchvision's features, and dilation that equals the strided network at every second cell."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from segpipe.models.parts.backbones import BACKBONES, Backbone, build_backbone
from segpipe.models.parts.layers import BatchNorm2d

RESNETS = ["resnet18", "resnet34", "resnet50"]


def images(height: int = 65, width: int = 47) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def same_weights(name: str, *output_strides: int) -> list[Backbone]:
    made = [build_backbone(name, output_stride=stride).eval() for stride in output_strides]
    for other in made[1:]:
        other.load_state_dict(made[0].state_dict(), strict=True)
    return made


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_have_the_promised_strides_and_channels(name: str, output_stride: int) -> None:
    with torch.device("meta"):  # shapes alone
        backbone = build_backbone(name, output_stride=output_stride)
        maps = backbone.eval()(torch.empty(1, 3, 65, 47))
    strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]
    expected = [
        (1, channels, -(-65 // stride), -(-47 // stride))
        for channels, stride in zip(backbone.channels, strides, strict=True)
    ]
    assert [tuple(features.shape) for features in maps] == expected


@pytest.mark.parametrize(("output_stride", "replace"), [(8, [False, True, True]), (16, [False, False, True])])
def test_dilated_resnet50_is_torchvisions(output_stride: int, replace: list[bool]) -> None:
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=replace).eval()
    layers = {layer: layer for layer in ("relu", "layer1", "layer2", "layer3", "layer4")}
    theirs = IntermediateLayerGetter(theirs, return_layers=layers)
    ours = build_backbone("resnet50", output_stride=output_stride).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        for mine, other in zip(ours(images()), theirs(images()).values(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
def test_a_dilated_resnet_read_sparsely_is_the_strided_one(name: str, output_stride: int, step: int) -> None:
    strided, dilated = same_weights(name, 32, output_stride)
    with torch.no_grad():
        sparse, dense = strided(images())[-1], dilated(images())[-1]
    torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_mobilenet_without_squeeze_is_the_strided_one(output_stride: int) -> None:
    strided, dilated = same_weights("mobilenet_v3_large", 32, output_stride)
    for backbone in (strided, dilated):
        for module in list(backbone.modules()):
            for key, child in list(module.named_children()):
                if isinstance(child, torchvision.ops.SqueezeExcitation):
                    module.set_submodule(key, nn.Identity())
    step = 32 // output_stride
    with torch.no_grad():
        sparse, dense = strided(images())[-1], dilated(images())[-1]
    torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn_slim"])
@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
@pytest.mark.parametrize("size", [(65, 47), (64, 96), (33, 1)])
def test_a_dilated_vgg_read_sparsely_is_the_strided_one(
    name: str, output_stride: int, step: int, size: tuple[int, int]
) -> None:
    strided, dilated = same_weights(name, 32, output_stride)
    with torch.no_grad():
        sparse, dense = strided(images(*size))[-1], dilated(images(*size))[-1]
    assert dense.shape[-2:] == tuple(-(-length // output_stride) for length in size)
    torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=1e-4, atol=1e-5 * float(sparse.abs().max()))


def test_norm_layers_keep_each_familys_constants() -> None:
    for name, (eps, momentum) in {"resnet18": (1e-5, 0.1), "mobilenet_v3_large": (1e-3, 0.01)}.items():
        norms = [module for module in build_backbone(name).modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms
        assert all(type(norm) is BatchNorm2d and (norm.eps, norm.momentum) == (eps, momentum) for norm in norms)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "resnext50_32x4d", "vgg16_bn_slim"])
def test_frozen_norms_are_those_of_evaluation_and_have_nothing_to_train(name: str) -> None:
    trained = build_backbone(name).eval()
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    frozen = build_backbone(name, norm="frozen").train()
    frozen.load_state_dict(trained.state_dict(), strict=True)
    with torch.no_grad():
        for mine, other in zip(frozen(images()), trained(images()), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    norms = {key.rpartition(".")[0] for key in frozen.state_dict() if key.endswith("running_var")}
    assert norms
    assert not [key for key, _ in frozen.named_parameters() if key.rpartition(".")[0] in norms]


def test_maps_may_be_taken_after_other_children() -> None:
    with torch.device("meta"):
        backbone = build_backbone("mobilenet_v3_large", taps={"13": 160, "16": 960})
        maps = backbone(torch.empty(2, 3, 64, 96))
    assert backbone.channels == (160, 960)
    assert [tuple(features.shape) for features in maps] == [(2, 160, 2, 3), (2, 960, 2, 3)]


@pytest.mark.parametrize(("output_stride", "rates"), [(16, {2}), (8, {4})])
def test_a_widened_stage_has_one_rate(output_stride: int, rates: set[int]) -> None:
    """As in the authors' code of DeepLabV3 and PSPNet, and torchvision's dilated MobileNetV3."""
    with torch.device("meta"):
        resnet = build_backbone("resnet50", output_stride=output_stride, widened=True)
        maps = resnet(torch.empty(2, 3, 65, 47))
    assert {unit.conv2.dilation[0] for unit in resnet.layer4} == rates
    assert tuple(maps[-1].shape[-2:]) == (-(-65 // output_stride), -(-47 // output_stride))


def test_a_widened_mobilenet_is_torchvisions_dilated_one() -> None:
    theirs = torchvision.models.mobilenet_v3_large(weights=None, dilated=True).features.eval()
    ours = build_backbone("mobilenet_v3_large", output_stride=16, widened=True).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(images())[-1], theirs(images()))
