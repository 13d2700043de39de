"""Semantic FPN: the pyramid and the branch of Panoptic FPN, number by number, and PANet's second pass where asked."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segpipe import models
from segpipe.errors import InputError


def test_it_is_the_semantic_part_of_panoptic_fpn() -> None:
    torch.manual_seed(0)
    panoptic = models.create("panoptic_fpn", 5, **models.spec("panoptic_fpn").tiny).eval()
    channels = panoptic.pyramid.channels
    ours = models.create("fpn", 5, backbone=panoptic.backbone.name, channels=channels).eval()
    # Panoptic FPN's pyramid has one level more, without tensors.
    missing, _ = ours.load_state_dict(panoptic.state_dict(), strict=False)
    assert missing == []
    images = torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits_NKHW, panoptic(images).logits_NKHW)


def test_widths_and_strides_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = models.create("fpn", 19).eval()
        levels = model.pyramid(model.backbone(torch.empty(1, 3, 128, 64)))
        assert [tuple(level.shape) for level in levels] == [(1, 256, 128 // s, 64 // s) for s in (4, 8, 16, 32)]
        assert model.semantic(levels).shape == (1, 19, 32, 16)
    assert (model.semantic.head.in_channels, model.semantic.head.kernel_size) == (128, (1, 1))


def test_an_image_of_any_size_is_padded_with_its_mean_colour() -> None:
    torch.manual_seed(0)
    model = models.create("fpn", 3, **models.spec("fpn").tiny).eval()
    images = torch.randn(1, 3, 40, 61)
    with torch.no_grad():
        whole = model(F.pad(images, (0, 3, 0, 24))).logits_NKHW
        assert torch.equal(model(images).logits_NKHW, whole[..., :40, :61])


def test_the_second_pass_changes_every_level_but_the_finest() -> None:
    torch.manual_seed(0)
    with_pass = models.create("fpn", 3, backbone="resnet18", channels=16, second_pass=True).eval()
    without = models.create("fpn", 3, backbone="resnet18", channels=16).eval()
    missing, unexpected = without.load_state_dict(with_pass.state_dict(), strict=False)
    assert missing == []
    assert all(key.startswith("pyramid.second_pass.") for key in unexpected)
    assert unexpected
    with torch.no_grad():
        maps = with_pass.backbone(torch.randn(1, 3, 64, 64))
        pairs = list(zip(with_pass.pyramid(maps), without.pyramid(maps), strict=True))
    assert [torch.equal(ours, plain) for ours, plain in pairs] == [True, False, False, False]


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"channels: 20 is not a positive multiple of 8"):
        models.check("fpn", {"channels": 20})
