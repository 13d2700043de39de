"""Backbones: torchvision's features, and dilation that equals the strided network at every second cell."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from segpipe.errors import InputError
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


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [(name, stride) for name, layout in BACKBONES.items() for stride in layout.output_strides],
)
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


@pytest.mark.parametrize("output_stride", [8, 16])
def test_what_cannot_be_dilated_says_so(output_stride: int) -> None:
    with pytest.raises(InputError, match=rf"output_stride: {output_stride} is not one of 32, which swin_t can have"):
        build_backbone("swin_t", output_stride=output_stride)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("mobilenet_v2", (1, 3, 6, 13, 18)),
        ("mobilenet_v3_small", (0, 1, 3, 8, 12)),
        ("mobilenet_v3_large", (1, 3, 6, 12, 16)),
        ("convnext_tiny", (1, 3, 5, 7)),
        ("swin_t", (1, 3, 5, 7)),
        ("swin_s", (1, 3, 5, 7)),
    ],
)
def test_maps_are_torchvisions_features(name: str, ends: tuple[int, ...]) -> None:
    """Behind each end of torchvision's `features`; with a layer norm of their own where the family has one."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval().features
    ours = build_backbone(name).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("norms.") for key in missing.missing_keys)
    with torch.no_grad():
        features, expected = images(64, 96), []
        for number, layer in enumerate(theirs):
            features = layer(features)
            if number in ends:
                expected.append(features)
        found = ours(images(64, 96))
    if len(ends) == 4:
        assert found[0].shape == (2, 0, 32, 48)
        found = found[1:]
    for mine, other in zip(found, expected, strict=True):
        if name.startswith("swin"):
            other = nn.functional.layer_norm(other, other.shape[-1:]).permute(0, 3, 1, 2)
        elif name.startswith("convnext"):
            last = nn.functional.layer_norm(other.permute(0, 2, 3, 1), other.shape[1:2], eps=1e-6)
            other = last.permute(0, 3, 1, 2)
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_patches_at_the_edge_see_zeros_beyond_it(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    padded = torch.zeros(2, 3, 64, 64)
    padded[..., :62, :61] = images(62, 61)
    with torch.no_grad():
        stem = backbone.get_submodule(backbone.stem)
        assert torch.equal(stem(images(62, 61)), stem(padded))
        assert backbone(images(1, 1))[-1].shape == (2, backbone.channels[-1], 1, 1)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_a_stem_for_other_channels_covers_the_image_too(name: str) -> None:
    with torch.device("meta"):
        maps = build_backbone(name, in_channels=5)(torch.empty(1, 5, 33, 34))
    assert [tuple(features.shape[-2:]) for features in maps[1:]] == [(9, 9), (5, 5), (3, 3), (2, 2)]


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


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_mobilenet_without_squeeze_is_the_strided_one(name: str, output_stride: int) -> None:
    strided, dilated = same_weights(name, 32, output_stride)
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


@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
@pytest.mark.parametrize("size", [(65, 47), (64, 96), (33, 1)])
def test_a_dilated_convnext_read_sparsely_is_the_strided_one(
    output_stride: int, step: int, size: tuple[int, int]
) -> None:
    """On sides that patches do not fill, too. In training a block is scaled by 1e-6: here it counts."""
    strided, dilated = same_weights("convnext_tiny", 32, output_stride)
    for backbone in (strided, dilated):
        for key, parameter in backbone.named_parameters():
            if key.endswith("layer_scale"):
                nn.init.constant_(parameter, 0.5)
    with torch.no_grad():
        sparse, dense = strided(images(*size))[-1], dilated(images(*size))[-1]
    assert dense.shape[-2:] == tuple(-(-length // output_stride) for length in size)
    torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=1e-4, atol=1e-4)


def test_a_convnexts_stage_has_one_rate_and_may_have_one_for_each_unit() -> None:
    """Widened or not: the patches that lose their stride stand before the stage, and keep their spacing."""
    with torch.device("meta"):
        found = [build_backbone("convnext_tiny", output_stride=8, widened=widened) for widened in (False, True)]
        graded = build_backbone("convnext_tiny", output_stride=16, multi_grid=(1, 2, 4))
    for backbone in found:
        convs = {
            number: [m for m in backbone.get_submodule(number).modules() if isinstance(m, nn.Conv2d)]
            for number in "4567"
        }
        assert {number: {conv.dilation for conv in inside} for number, inside in convs.items()} == {
            "4": {(1, 1)},
            "5": {(2, 2)},
            "6": {(2, 2)},
            "7": {(4, 4)},
        }
    rates = [m.dilation for m in graded.get_submodule("7").modules() if isinstance(m, nn.Conv2d)]
    assert rates == [(2, 2), (4, 4), (8, 8)]


def test_norm_layers_keep_each_familys_constants() -> None:
    constants = {"resnet18": (1e-5, 0.1), "mobilenet_v2": (1e-5, 0.1), "mobilenet_v3_large": (1e-3, 0.01)}
    for name, (eps, momentum) in constants.items():
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
