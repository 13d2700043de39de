"""The patch classifier: table 1 of the paper, and all pixels in one pass against their windows one by one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from segpipe import models


def test_the_maps_are_those_of_the_papers_table() -> None:
    """Network N4: 48 maps of 92, 46, 42, 21, 18, 9, 6, 3 pixels, then 200 neurons and 2 of a window of 95."""
    with torch.device("meta"):
        model, sizes = models.create("patch_classifier", 2, in_channels=1).eval(), []
        for layer in [*model.backbone.children(), *model.classifier]:
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                layer.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[1:])))
        model.classifier(model.backbone(torch.empty(1, 1, 95, 95))[-1])
    assert model.window == 95
    assert sizes == [
        *((48, size, size) for size in (92, 46, 42, 21, 18, 9, 6, 3)),
        (200, 1, 1),
        (2, 1, 1),
    ]


def test_one_pass_over_an_image_is_every_window_by_itself() -> None:
    torch.manual_seed(0)
    model = models.create("patch_classifier", 3, width=3, hidden=4).eval()
    images = torch.randn(2, 3, 60, 71)
    padded = F.pad(images, (47, 47, 47, 47), mode="reflect")
    with torch.no_grad():
        found = model(images).logits_NKHW
        for row, column in ((0, 0), (59, 70), (30, 33), (31, 33), (7, 64)):
            window = padded[..., row : row + 95, column : column + 95]
            alone = model.classifier(model.backbone(window)[-1])
            torch.testing.assert_close(found[..., row, column], alone[..., 0, 0], rtol=1e-4, atol=1e-6)
    assert found.shape == (2, 3, 60, 71)
    assert found.std() > 1e-4
