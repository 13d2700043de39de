"""UPerNet: its decoder against transformers' on the same numbers, its levels, and the encoders it stands on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.models.upernet import Decoder, PyramidPooling

# What transformers 5.23's UperNetHead (hidden_size 6, num_labels 3, in_channels 4, 5, 6, 7) printed for `maps()` with
# the weights of `filled`: the sum of its scores, and those of the second image at every eighth row and sixth column.
THEIR_SUM = -1009.2995047420263
THEIR_SCORES = [
    *[-1.645764, -1.736414, -2.049271, -1.829513, -1.838454, -1.887775, -3.718017, -5.414541, -4.325647],
    *[-0.368529, -0.358998, -0.53312, -0.527222, -0.522744, -0.552947, -1.286681, -2.141598, -1.94732],
    *[-0.265127, -0.183822, 0.299765, 0.074224, 0.078774, 0.15771, 2.707394, 5.242182, 3.962795],
]


def maps() -> list[Tensor]:
    shapes = ((2, 4, 17, 13), (2, 5, 9, 7), (2, 6, 5, 4), (2, 7, 3, 2))
    found = []
    for shape in shapes:
        wave = torch.cos(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * 0.3 + shape[1])
        found.append(wave.reshape(shape).float())
    return found


def filled(decoder: Decoder, last: nn.Conv2d) -> None:
    """Each tensor another part of a sine wave, in the order of transformers' modules."""
    units = [*decoder.pooling.views, decoder.pooling.bottleneck, *decoder.laterals, *decoder.levels, decoder.fusion]
    tensors = [
        (name, tensor)
        for conv, norm, _ in units
        for name, tensor in (
            ("weight", conv.weight),
            *((name, getattr(norm, name)) for name in ("weight", "bias", "running_mean", "running_var")),
        )
    ]
    with torch.no_grad():
        for number, (name, tensor) in enumerate([*tensors, ("weight", last.weight), ("bias", last.bias)]):
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + number).reshape(tensor.shape)
            if name == "running_var":
                wave = 1 + 0.5 * wave
            elif tensor.ndim == 4:
                wave = wave / tensor[0].numel() ** 0.5
            tensor.copy_(wave.float())


def test_scores_are_transformers() -> None:
    decoder, last = Decoder((4, 5, 6, 7), 6).eval(), nn.Conv2d(6, 3, 1)
    filled(decoder, last)
    with torch.no_grad():
        scores = last(decoder(maps()))
    assert scores.shape == (2, 3, 17, 13)
    assert float(scores.double().sum()) == pytest.approx(THEIR_SUM, abs=1e-3)
    torch.testing.assert_close(scores[1, :, ::8, ::6].flatten(), torch.tensor(THEIR_SCORES), rtol=0, atol=1e-5)


def test_pyramid_pooling_looks_at_1_2_3_and_6_cells() -> None:
    pooling, cells = PyramidPooling(7, 5).eval(), []
    for view in pooling.views:
        view.register_forward_pre_hook(lambda module, given: cells.append(tuple(given[0].shape[-2:])))
    with torch.no_grad():
        assert pooling(torch.zeros(1, 7, 9, 4)).shape == (1, 5, 9, 4)
    assert cells == [(1, 1), (2, 2), (3, 3), (6, 6)]
    assert pooling.bottleneck[0].in_channels == 7 + 4 * 5


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
