"""Recurrent labelling: windows one by one with strides, context that grows, parameters that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.rcnn_pinheiro import RecurrentLabeller


def small(instances: int) -> RecurrentLabeller:
    torch.manual_seed(0)
    model = models.create("rcnn_pinheiro", 3, instances=instances, width=3).eval()
    assert isinstance(model, RecurrentLabeller)
    return model


def labels_of_a_window(model: RecurrentLabeller, window: Tensor, images: Tensor) -> Tensor:
    """f, strided as the paper has it, on planes and image of one window."""
    planes = torch.cat((window, images), dim=1)
    return model.classifier(model.backbone(planes)[-1])


def test_twice_round_is_f_of_f_on_every_window_by_itself() -> None:
    model, images = small(2), torch.randn(1, 3, 46, 44)
    padded = F.pad(images, (33, 33, 33, 33), mode="reflect")
    with torch.no_grad():
        output = model(images)
        for row, column in ((0, 0), (45, 43), (31, 20), (32, 20)):
            window = padded[..., row : row + 67, column : column + 67]
            first = labels_of_a_window(model, torch.zeros(1, 3, 67, 67), window)
            assert first.shape[-2:] == (23, 23)
            torch.testing.assert_close(output.aux["round1"][..., row, column], first[..., 11, 11], rtol=1e-4, atol=1e-6)
            # A label of every second pixel, 11 on; the image there as the mean of the 2 x 2 pixels that begin with it.
            coarse = F.avg_pool2d(window[..., 11:57, 11:57], 2, stride=2)
            second = labels_of_a_window(model, first, coarse)
            assert second.shape[-2:] == (1, 1)
            torch.testing.assert_close(output.logits_NKHW[..., row, column], second[..., 0, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("instances", "window"), [(1, 23), (2, 67), (3, 155)])
def test_context_grows_with_every_time_round(instances: int, window: int) -> None:
    """How far from a pixel an image may differ and still change its label: by the gradient. Parameters stay."""
    model = small(instances)
    assert model.window == 23
    assert sum(each.numel() for each in model.parameters()) == sum(each.numel() for each in small(1).parameters())
    size, middle = window + 4, (window + 4) // 2
    images = torch.randn(1, 3, size, size, requires_grad=True)
    model(images).logits_NKHW[0, 0, middle, middle].backward()
    assert images.grad is not None
    reached = images.grad[0].abs().sum(0).nonzero()
    assert int((reached - middle).abs().max()) <= window // 2
    assert int((reached - middle).abs().max()) > window // 2 - 2**instances


def test_earlier_rounds_are_auxiliary_logits() -> None:
    images = torch.randn(2, 3, 10, 12)
    with torch.no_grad():
        once, thrice = small(1)(images), small(3)(images)
    assert once.aux == {}
    assert {key: tuple(value.shape) for key, value in thrice.aux.items()} == {
        "round1": (2, 3, 10, 12),
        "round2": (2, 3, 10, 12),
    }
    torch.testing.assert_close(thrice.aux["round1"], once.logits_NKHW)
    assert not torch.allclose(thrice.aux["round2"], thrice.logits_NKHW)


def test_no_round_is_refused() -> None:
    with pytest.raises(InputError, match="instances: expected a whole number of at least 1, found 0"):
        models.create("rcnn_pinheiro", 3, instances=0)
