"""UPerNet: its levels and the encoders it stands on. Its logits are compared in parts/test_released_upernet.py."""

from __future__ import annotations

import pytest
import torch

from segpipe import models


@pytest.mark.parametrize(
    ("backbone", "channels"), [("resnet50", (256, 512, 1024, 2048)), ("swin_t", (96, 192, 384, 768))]
)
def test_levels_are_of_strides_4_to_32(backbone: str, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = models.create("upernet", 150, backbone=backbone).eval()
        sizes: list[tuple[int, ...]] = []
        for lateral in model.decoder.laterals:
            lateral.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape[1:])))
        model.decoder.pooling.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape[1:])))
        model.decoder.fusion.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape[1:])))
        assert model(torch.empty(1, 3, 512, 480)).logits_NKHW.shape == (1, 150, 512, 480)
    strides = zip(channels, (4, 8, 16, 32), strict=True)
    assert sorted(sizes[:-1]) == sorted((count, 512 // stride, 480 // stride) for count, stride in strides)
    assert sizes[-1] == (4 * 512, 128, 120)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "convnext_tiny", "swin_t"])
def test_any_encoder_and_an_auxiliary_head_on_c4(backbone: str) -> None:
    model = models.create("upernet", 2, backbone=backbone, channels=4, aux=True)
    output = model(torch.randn(1, 3, 33, 47))
    assert {key: tuple(value.shape) for key, value in output.aux.items()} == {"aux": (1, 2, 33, 47)}
    (output.logits_NKHW.square().mean() + output.aux["aux"].square().mean()).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
