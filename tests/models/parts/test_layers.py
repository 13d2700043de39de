"""Shared blocks: a batch norm that survives single values, and resizing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.models.parts.layers import BatchNorm2d, resize


def test_a_single_value_is_normalised_by_the_running_statistics() -> None:
    norm = BatchNorm2d(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.fill_(4.0)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    pooled = torch.tensor([3.0, 2.0, -1.0]).reshape(1, 3, 1, 1).requires_grad_()
    normalised = norm(pooled)
    torch.testing.assert_close(normalised.flatten(), torch.tensor([1.0, 0.0, -2.0]), rtol=1e-4, atol=1e-5)
    normalised.sum().backward()
    assert (pooled.grad != 0).all()
    assert (norm.bias.grad != 0).all()
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(3).train()(pooled.detach())


def test_everywhere_else_it_is_torchs() -> None:
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    for shape in ((2, 3, 1, 1), (1, 3, 2, 1), (4, 3, 5, 6)):
        values = torch.randn(shape)
        assert torch.equal(ours.train()(values), theirs.train()(values))
        assert torch.equal(ours.eval()(values), theirs.eval()(values))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_resize_is_bilinear_and_free_when_nothing_changes() -> None:
    maps = torch.randn(1, 2, 3, 5)
    assert resize(maps, 3, 5) is maps
    expected = F.interpolate(maps, size=(7, 4), mode="bilinear", align_corners=False)
    assert torch.equal(resize(maps, 7, 4), expected)
