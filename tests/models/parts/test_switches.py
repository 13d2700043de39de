"""Switches: an encoder's poolings remembered and undone, and the decoder that mirrors it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from segpipe.models.parts.backbones import build_backbone
from segpipe.models.parts.switches import encoded, mirrored
from segpipe.models.parts.upsampling import MaxUnpool


def test_the_encoder_says_what_the_backbone_does_and_remembers_its_poolings() -> None:
    torch.manual_seed(0)
    backbone, images = build_backbone("vgg16_bn_slim").eval(), torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        expected = backbone(images)
        found, poolings = encoded(backbone.children(), images)
    assert torch.equal(found, expected[-1])
    assert [(each.height, each.width) for each in poolings] == [(45, 70), (23, 35), (12, 18), (6, 9), (3, 5)]
    for pooling, maps in zip(poolings, expected, strict=True):
        undone = MaxUnpool()(maps, pooling.height, pooling.width, pooling.switches_NChw)
        assert undone.shape[-2:] == (pooling.height, pooling.width)
        assert torch.equal(F.max_pool2d(undone, 2, ceil_mode=True), maps)  # of ReLU's maps none is below zero


def test_the_decoder_narrows_where_the_encoder_widens() -> None:
    with torch.device("meta"):
        stages = mirrored(build_backbone("vgg11_bn").children())
    assert stages == [
        [(512, 512), (512, 512)],
        [(512, 512), (512, 256)],
        [(256, 256), (256, 128)],
        [(128, 64)],
        [(64, 64)],
    ]
