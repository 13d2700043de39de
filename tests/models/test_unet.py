"""U-Net: where the decoder ends, how maps of odd sizes meet, how wide the stages are."""

from __future__ import annotations

import pytest
import torch

from segpipe import models
from segpipe.models.unet import UNet, UpBlock


@pytest.mark.parametrize(
    ("head_stride", "widths"), [(1, [256, 128, 64, 32, 16]), (2, [256, 128, 64, 32]), (4, [256, 128, 64])]
)
def test_the_decoder_ends_at_the_head_stride(head_stride: int, widths: list[int]) -> None:
    model = models.create("unet", 3, backbone="resnet18", head_stride=head_stride).eval()
    assert isinstance(model, UNet)
    assert [block.second[0].out_channels for block in model.decoder] == widths
    sizes = []
    model.head.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[-2:])))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 33, 64)).logits_NKHW.shape == (1, 3, 33, 64)
    assert sizes == [(-(-33 // head_stride), 64 // head_stride)]


def test_each_stage_joins_the_encoder_map_of_its_stride() -> None:
    model = models.create("unet", 3, backbone="resnet50", width=8)
    joined = [block.first[0].in_channels for block in model.decoder]
    assert joined == [2048 + 1024, 128 + 512, 64 + 256, 32 + 64, 16 + 0]


def test_upsampling_repeats_cells_and_crops_to_an_odd_size() -> None:
    block = UpBlock(1, 0, 1)
    block.first = block.second = torch.nn.Identity()
    coarse = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = torch.tensor([[[[1.0, 1.0, 2.0], [1.0, 1.0, 2.0], [3.0, 3.0, 4.0]]]])
    assert torch.equal(block(coarse, None, 3, 3), expected)
