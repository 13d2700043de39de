"""U-Net: where the decoder ends, how maps of odd sizes meet, how wide the stages are."""

from __future__ import annotations

import pytest
import torch

from segpipe import models
from segpipe.errors import InputError
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


def test_bilinear_upsampling_is_torchs_and_cropped() -> None:
    block = UpBlock(1, 0, 1, upsampling="bilinear")
    block.first = block.second = torch.nn.Identity()
    coarse = torch.tensor([[[[0.0, 4.0]]]])
    assert torch.equal(block(coarse, None, 1, 3), torch.tensor([[[[0.0, 1.0, 3.0]]]]))


def test_encoder_maps_may_be_added() -> None:
    model = models.create("unet", 3, backbone="resnet50", width=8, skips="addition").eval()
    assert [block.first[0].in_channels for block in model.decoder] == [2048, 128, 64, 32, 16]
    assert [None if block.add is None else tuple(block.add.weight.shape[:2]) for block in model.decoder] == [
        (2048, 1024),
        (128, 512),
        (64, 256),
        (32, 64),
        None,
    ]
    block = UpBlock(1, 2, 1, skips="addition")
    block.first = block.second = torch.nn.Identity()
    torch.nn.init.ones_(block.add.weight)
    torch.nn.init.zeros_(block.add.bias)
    skip = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]])
    assert torch.equal(block(torch.tensor([[[[100.0]]]]), skip, 1, 2), torch.tensor([[[[111.0, 122.0]]]]))


@pytest.mark.parametrize("skips", ["concatenation", "addition"])
@pytest.mark.parametrize("backbone", ["swin_t", "convnext_tiny"])
def test_an_encoder_that_begins_at_stride_4_has_nothing_to_join_at_stride_2(backbone: str, skips: str) -> None:
    model = models.create("unet", 2, backbone=backbone, skips=skips, width=2)
    assert model.decoder[3].first[0].in_channels == 2 * 4
    assert model.decoder[3].add is None
    logits = model(torch.randn(1, 3, 33, 47)).logits_NKHW
    assert logits.shape == (1, 2, 33, 47)
    logits.square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("option", ["upsampling", "skips"])
def test_an_unknown_choice_is_named(option: str) -> None:
    with pytest.raises(InputError, match=rf"{option}: 'other' is not one of .*, "):
        models.create("unet", 2, **{option: "other"})
