"""Xception: the authors' units at their places, as many numbers as its other ports, and the atrous rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.backbones import Backbone, build_backbone

CLASSIFIER = 2048 * 1000 + 1000


@pytest.mark.parametrize(("name", "millions"), [("xception41", 26.97), ("xception65", 39.92), ("xception71", 42.34)])
def test_with_its_classifier_it_counts_as_timms_port(name: str, millions: float) -> None:
    """huggingface/pytorch-image-models, results/results-imagenet.csv, where they carry the authors' weights."""
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert round((sum(p.numel() for p in backbone.parameters()) + CLASSIFIER) / 1e6, 2) == millions


def depthwise(backbone: nn.Module) -> list[nn.Conv2d]:
    return [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]


def test_there_are_as_many_convolutions_as_the_name_says() -> None:
    """Two of the stem and three separable ones a unit: 2 + 3 * 21 makes 65."""
    for name, number in (("xception41", 41), ("xception65", 65), ("xception71", 71)):
        with torch.device("meta"):
            backbone = build_backbone(name)
        assert len(depthwise(backbone)) + 2 == number
        assert all(m.in_channels == m.out_channels == m.groups for m in depthwise(backbone))


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [(32, {1: 63}), (16, {1: 60, 2: 3}), (8, {1: 9, 2: 51, 4: 3})],
)
def test_rates_follow_the_atrous_rule(output_stride: int, expected: dict[int, int]) -> None:
    """As stack_blocks_dense of the authors: a unit that loses its stride keeps its rate, those behind it double it."""
    with torch.device("meta"):
        backbone = build_backbone("xception65", output_stride=output_stride)
    found = [conv.dilation[0] for conv in depthwise(backbone)]
    assert {rate: found.count(rate) for rate in sorted(set(found))} == expected
    assert found == sorted(found)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [2, 4, 8]), (8, [4, 8, 16])])
def test_multi_grid_is_of_the_last_three_convolutions(output_stride: int, rates: list[int]) -> None:
    with torch.device("meta"):
        backbone = build_backbone("xception65", output_stride=output_stride, multi_grid=[1, 2, 4])
    assert [conv.dilation[0] for conv in depthwise(backbone)[-3:]] == rates
    assert depthwise(backbone)[-4].dilation[0] == rates[0] // 2


def lively(name: str, output_stride: int = 32) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=output_stride).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.0, 3.0)
            nn.init.normal_(module.bias, 0, 0.1)
    return backbone


@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
def test_dilated_and_read_sparsely_it_is_the_strided_one(output_stride: int, step: int) -> None:
    strided, dilated = lively("xception_tiny"), lively("xception_tiny", output_stride)
    images = torch.randn(2, 3, 65, 47)
    with torch.no_grad():
        sparse, dense = strided(images)[-1], dilated(images)[-1]
    assert sparse.std() > 1e-2
    atol = 1e-4 * float(sparse.abs().max())
    torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=1e-4, atol=atol)


def separable_by_hand(features: Tensor, parts: nn.Sequential, stride: int) -> Tensor:
    """ReLU, 3 x 3 of each channel alone, norm, 1 x 1, norm."""
    _, deep, deep_norm, point, point_norm = parts
    found = F.conv2d(features.relu(), deep.weight, stride=stride, padding=1, groups=features.shape[1])
    return point_norm(F.conv2d(deep_norm(found), point.weight))


def test_a_unit_is_the_authors_formula_and_its_map_is_taken_before_the_stride() -> None:
    backbone = lively("xception_tiny")
    unit = backbone.get_submodule("entry2")
    features = torch.randn(1, 16, 9, 12)
    with torch.no_grad():
        taken, result = unit(features)
        second = separable_by_hand(separable_by_hand(features, unit.separable1, 1), unit.separable2, 1)
        shortcut = unit.shortcut[1](F.conv2d(features, unit.shortcut[0].weight, stride=2))
        torch.testing.assert_close(taken, second)
        torch.testing.assert_close(result, separable_by_hand(second, unit.separable3, 2) + shortcut)
        images = torch.randn(1, 3, 32, 32)
        before = images
        for name, layer in backbone.named_children():
            if name == "entry2":
                break
            before = layer(before)
        assert torch.equal(backbone(images)[1], unit(before)[0])


def test_units_of_the_middle_flow_add_to_what_they_see() -> None:
    with torch.device("meta"):
        backbone = build_backbone("xception65")
    units = [unit for name, unit in backbone.named_children() if name.startswith("middle")]
    assert len(units) == 16
    assert all(isinstance(unit.shortcut, nn.Identity) and not unit.tapped for unit in units)
    assert backbone.channels == (64, 256, 728, 1024, 2048)
