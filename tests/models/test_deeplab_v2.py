"""DeepLab v2: rates that are summed, scales of which the largest score stays, and what each scale says alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.deeplab_v2 import SummedASPP


def made(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create("deeplab_v2", 3, **{"backbone": "resnet18", **options}).eval()


def images(height: int = 65, width: int = 48) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_rates_and_strides_are_the_papers() -> None:
    """Section 4.1.2 and figure 7: ASPP-L on conv5 of stride 8; stages that lose their stride have one rate each."""
    with torch.device("meta"):
        model = models.create("deeplab_v2", 21)
        last = model.backbone(torch.empty(2, 3, 321, 321))[-1]
    assert tuple(last.shape) == (2, 2048, 41, 41)
    assert {unit.conv2.dilation for unit in model.backbone.layer3} == {(2, 2)}
    assert {unit.conv2.dilation for unit in model.backbone.layer4} == {(4, 4)}
    found = [[(m.dilation[0], m.in_channels, m.out_channels) for m in branch] for branch in model.aspp.branches]
    assert found == [[(rate, 2048, 21)] for rate in (6, 12, 18, 24)]


def test_branches_are_summed() -> None:
    torch.manual_seed(0)
    aspp = SummedASPP(4, 5, (1, 3), fc_channels=0)
    features = torch.randn(2, 4, 9, 8)
    with torch.no_grad():
        first, second = (branch[0] for branch in aspp.branches)
        expected = F.conv2d(features, first.weight, first.bias, padding=1)
        expected = expected + F.conv2d(features, second.weight, second.bias, padding=3, dilation=3)
        torch.testing.assert_close(aspp(features), expected)


def test_a_vgg_pools_by_three_as_in_the_authors_net() -> None:
    """Of 321 pixels 161, 81, 41 are left; then poolings keep their size, with holes of 2 in the last convolutions."""
    with torch.device("meta"):
        backbone = models.create("deeplab_v2", 21, backbone="vgg16", norm="none", fc_channels=1024).backbone
        sizes = [tuple(maps.shape[-2:]) for maps in backbone(torch.empty(1, 3, 321, 322))]
    assert sizes == [(161, 161), (81, 81), (41, 41), (41, 41), (41, 41)]
    pools = [layer for layer in backbone.children() if isinstance(layer, nn.MaxPool2d)]
    assert [(layer.kernel_size, layer.stride, layer.padding, layer.dilation) for layer in pools] == [
        *[(3, 2, 1, 1)] * 3,
        *[(3, 1, 1, 1)] * 2,
    ]
    convolutions = [layer for layer in backbone.children() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in convolutions] == [1] * 10 + [2] * 3


def test_the_form_of_vgg_has_three_layers_a_rate() -> None:
    """Figure 7: fc6 at each rate, fc7 and fc8 of one cell."""
    branch = SummedASPP(512, 21, (6,), fc_channels=1024).branches[0]
    convolutions = [m for m in branch if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.dilation[0]) for m in convolutions] == [
        (512, 1024, 3, 6),
        (1024, 1024, 1, 1),
        (1024, 21, 1, 1),
    ]
    assert [m.p for m in branch if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_the_largest_score_of_three_scales_stays() -> None:
    model, pictures = made(), images()
    with torch.no_grad():
        output = model(pictures)
        alone = []
        for scale in (0.5, 0.75, 1.0):
            scaled = F.interpolate(pictures, size=(int(65 * scale), int(48 * scale)), mode="bilinear")
            scores = model.aspp(model.backbone(scaled)[-1])
            alone.append(F.interpolate(scores, size=(9, 6), mode="bilinear"))
            each = F.interpolate(scores, size=(65, 48), mode="bilinear")
            torch.testing.assert_close(output.aux[f"scale_{scale:g}"], each, rtol=1e-4, atol=1e-5)
        fused = F.interpolate(torch.stack(alone).amax(0), size=(65, 48), mode="bilinear")
    torch.testing.assert_close(output.logits_NKHW, fused, rtol=1e-4, atol=1e-5)
    assert list(output.aux) == ["scale_0.5", "scale_0.75", "scale_1"]


def test_one_scale_is_the_network_itself() -> None:
    single = made(scales=[1.0])
    with torch.no_grad():
        output = single(images())
        scores = single.aspp(single.backbone(images())[-1])
        torch.testing.assert_close(output.logits_NKHW, F.interpolate(scores, size=(65, 48), mode="bilinear"))
    assert output.aux == {}


def test_aux_may_be_left_out() -> None:
    with_aux, without = made(), made(aux=False)
    with torch.no_grad():
        assert torch.equal(with_aux(images()).logits_NKHW, without(images()).logits_NKHW)
        assert without(images()).aux == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": []}, r"scales: \[\]; expected different numbers above 0"),
        ({"scales": [1.0, 0.0]}, r"scales: \[1.0, 0.0\]; expected different numbers above 0, at most 2"),
        ({"scales": [1.0, 1.0]}, r"scales: \[1.0, 1.0\]; expected different"),
        ({"scales": ["1"]}, r"scales: \['1'\]; expected different numbers"),
        ({"rates": []}, r"rates: \[\]; expected at least one"),
        ({"rates": [6, -1]}, r"rates.1: expected a whole number of at least 1, found -1"),
        ({"fc_channels": -1}, r"fc_channels: expected a whole number of at least 1, found -1"),
        ({"norm": "group"}, r"norm: 'group' is not one of batch, frozen"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("deeplab_v2", options)
