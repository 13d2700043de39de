"""Panoptic-DeepLab: two decoders of the paper's widths, three maps of the input's size, offsets in pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import RegionTarget

K = 4
TINY = {"backbone": "mobilenet_v3_large", "channels": 16}


def test_widths_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = models.spec("panoptic_deeplab").build(
            num_classes=19, in_channels=3, **models.spec("panoptic_deeplab").options
        )

    def widths(parts: nn.Module) -> list[int]:
        return [
            part[-1][0].out_channels if isinstance(part[-1], nn.Sequential) else part[0].out_channels for part in parts
        ]

    semantic, instance = model.semantic_decoder, model.instance_decoder
    assert (widths(semantic.project), widths(semantic.fuse)) == ([64, 32], [256, 256])
    assert (widths(instance.project), widths(instance.fuse)) == ([32, 16], [128, 128])
    assert instance.aspp.project[0].out_channels == semantic.aspp.project[0].out_channels == 256
    for head, inner, outer in ((model.semantic_head, 256, 19), (model.centre_head, 32, 1), (model.offset_head, 32, 2)):
        assert (head[0][1][0].out_channels, head[1].out_channels) == (inner, outer)
        assert head[0][0][0].kernel_size == (5, 5)


def test_offsets_are_learnt_in_cells_and_come_out_in_pixels() -> None:
    model = models.create("panoptic_deeplab", K, **TINY).eval()
    with torch.no_grad():
        model.offset_head[1].weight.zero_()
        model.offset_head[1].bias.copy_(torch.tensor([1.0, -2.0]))
        offsets_2HW = model(torch.randn(1, 3, 64, 96)).offsets_N2HW[0]
        torch.testing.assert_close(offsets_2HW, torch.tensor([4.0, -8.0])[:, None, None].expand(2, 64, 96))
        uneven_2HW = model(torch.randn(1, 3, 65, 96)).offsets_N2HW[0]
    assert float(uneven_2HW[0, 0, 0]) == pytest.approx(65 / 17), "the map of stride 4 has 17 rows"


def test_centres_and_offsets_are_enlarged_in_float32_whatever_the_heads_run_in() -> None:
    """In bfloat16 pixels beside a centre would equal it: of what is enlarged, rounding would leave less than half."""
    torch.manual_seed(0)
    model, images = models.create("panoptic_deeplab", K, **TINY).eval(), torch.randn(1, 3, 64, 96)
    nn.init.normal_(model.centre_head[1].weight)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(images)
    assert mixed.centres_N1HW.dtype == mixed.offsets_N2HW.dtype == torch.float32
    rounded = mixed.centres_N1HW.bfloat16().unique()
    assert len(mixed.centres_N1HW.unique()) > 2 * len(rounded)


def test_targets_change_nothing() -> None:
    torch.manual_seed(0)
    model, images = models.create("panoptic_deeplab", K, **TINY).eval(), torch.randn(1, 3, 32, 48)
    target = RegionTarget(
        boxes_M4=torch.ones(1, 4), class_ids_M=torch.ones(1), masks_MHW=torch.ones(1, 32, 48, dtype=torch.bool)
    )
    with torch.no_grad():
        assert torch.equal(model(images).centres_N1HW, model(images, (target,)).centres_N1HW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 40}, r"channels: 40 is not a positive multiple of 16"),
        ({"channels": 0}, r"channels: 0 is not a positive multiple of 16"),
        ({"output_stride": 32}, r"output_stride: 32 is not one of 8, 16"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("panoptic_deeplab", options)
