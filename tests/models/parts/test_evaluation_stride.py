"""One network at two output strides: in evaluation it is the finer network bit for bit, in training the coarser one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.models.parts.placed import placed

NAMES = ["deeplab_v3", "deeplab_v3_cascade", "deeplab_v3plus", "deeplab_v3plus_xception"]


def made(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, 3, **{**models.spec(name).tiny, "evaluation_stride": 0, **options})


@pytest.mark.parametrize("name", NAMES)
def test_each_mode_is_the_network_of_its_stride(name: str) -> None:
    both = made(name, evaluation_stride=8).eval()
    coarse, fine = (made(name, output_stride=stride).eval() for stride in (16, 8))
    images = torch.randn(1, 3, 65, 47)
    with torch.no_grad():
        evaluated = both(images).logits_NKHW
        assert torch.equal(evaluated, fine(images).logits_NKHW)
        assert not torch.equal(evaluated, coarse(images).logits_NKHW)
        cells = []
        for network, mode in ((both, True), (coarse, True), (both, False), (fine, True)):
            features = network.train(mode).backbone(images.expand(2, -1, -1, -1))[-1]
            cells.append(tuple(features.shape[-2:]))
    assert cells == [(5, 3), (5, 3), (9, 6), (9, 6)]


def test_it_begins_in_training_and_a_copy_keeps_both() -> None:
    network = made("deeplab_v3plus", evaluation_stride=8)
    assert network.training
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert network.backbone(images)[-1].shape[-1] == 4
        assert copy.deepcopy(network).eval().backbone(images)[-1].shape[-1] == 8
        assert network.backbone(images)[-1].shape[-1] == 4


def test_weights_are_the_same_for_both() -> None:
    state = made("deeplab_v3plus", evaluation_stride=8).state_dict()
    made("deeplab_v3plus").load_state_dict(state, strict=True)


def test_convolutions_alike_at_both_strides_stay_as_they_were_placed() -> None:
    network = placed(made("deeplab_v3plus", evaluation_stride=8), "cpu")
    cells = [module for module in network.modules() if getattr(module, "kernel_size", None) == (1, 1)]
    marked = [module for module in cells if module.dilation == (2, 2)]
    assert marked
    for is_training in (False, True):
        network.train(is_training)
        assert {module.dilation for module in marked} == {(2, 2)}
