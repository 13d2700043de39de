"""The paper's U-Net: the sizes of its figure, tiles that agree, mirrored surroundings, the released network's size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.borders import mirrored_places
from segpipe.models.unet_valid import UNetValid


def made(num_classes: int = 2, **options: object) -> UNetValid:
    torch.manual_seed(0)
    model = models.create("unet_valid", num_classes, **{"in_channels": 1, **options}).eval()
    assert isinstance(model, UNetValid)
    return model


def test_sizes_are_those_of_figure_1() -> None:
    found: list[tuple[int, int]] = []
    with torch.device("meta"):
        model = made()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(lambda m, given, result: found.append((result.shape[1], result.shape[-1])))
        scores = model.score(torch.empty(1, 1, 572, 572))
    assert scores.shape == (1, 2, 388, 388)
    down = [(64, 570), (64, 568), (128, 282), (128, 280), (256, 138), (256, 136), (512, 66), (512, 64)]
    bottom = [(1024, 30), (1024, 28)]
    up = [(512, 56), (512, 54), (512, 52), (256, 104), (256, 102), (256, 100)]
    up += [(128, 200), (128, 198), (128, 196), (64, 392), (64, 390), (64, 388), (2, 388)]
    assert found == down + bottom + up
    assert len(found) == 23, "In total the network has 23 convolutional layers"


def test_a_grey_network_has_the_released_ones_parameters_but_for_its_last_up_convolution() -> None:
    """phseg_v5 has 31,100,354: its last up-convolution keeps 128 channels, where figure 1 has 64."""
    with torch.device("meta"):
        ours = sum(parameter.numel() for parameter in made().parameters())
    wider = 64 * (128 * 2 * 2 + 1) + 64 * 64 * 3 * 3
    assert ours + wider == 31_100_354


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_of_overlapping_tiles_are_those_of_one_pass(channels: int) -> None:
    model = made(3, in_channels=channels, width=2)
    images = torch.randn(2, channels, 250, 268)  # 188 + 62 and + 80: neither is a whole number of tiles apart
    rows = torch.arange(250)[mirrored_places(250, 0, 252)]
    images = images[:, :, rows]
    with torch.no_grad():
        whole = model.score(images)
        assert whole.shape == (2, 3, 252 - 184, 268 - 184)
        for top, height in ((0, 188), (16, 204), (64, 188)):
            for left, width in ((0, 220), (48, 220), (80, 188)):
                tile = model.score(images[..., top : top + height, left : left + width])
                part = whole[..., top : top + height - 184, left : left + width - 184]
                torch.testing.assert_close(tile, part, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_an_image_is_scored_as_one_tile_with_its_mirrored_surroundings() -> None:
    model = made(width=2)
    image = torch.randn(1, 1, 196, 212)
    around = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (92, 92), (92, 92)), mode="reflect"))
    with torch.no_grad():
        assert torch.equal(model(image).logits_NKHW, model.score(around))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 5), (20, 37), (388, 389)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_tiles_are_the_smallest_that_pool_evenly(height: int, width: int, padding: str) -> None:
    seen: list[tuple[int, ...]] = []
    with torch.device("meta"):
        model = made(padding=padding, width=1)
        model.backbone.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape[-2:])))
        assert model(torch.empty(1, 1, height, width)).logits_NKHW.shape[-2:] == (height, width)
    first, around = (4, 184) if padding == "valid" else (16, 0)
    covered = [max(first, math.ceil((side - first) / 16) * 16 + first) for side in (height, width)]
    assert seen == [tuple(side + around for side in covered)]


def test_the_padded_form_is_the_same_network_where_no_padding_is_seen() -> None:
    valid, same = made(width=2), made(width=2, padding="same")
    same.load_state_dict(valid.state_dict(), strict=True)
    image = torch.randn(1, 1, 304, 304)
    with torch.no_grad():
        # A tile of 300 that begins at pixel 2, from where both pool the same cells; its scores begin at 2 + 92.
        ours, padded = valid.score(image[..., 2:302, 2:302]), same.score(image)
    assert padded.shape[-2:] == (304, 304)
    assert ours.std() > 0
    torch.testing.assert_close(padded[..., 94:210, 94:210], ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_dropout_is_at_the_end_of_the_contracting_path() -> None:
    model = made(width=1).train()
    given: list[Tensor] = []
    model.backbone.dropout.register_forward_hook(lambda module, maps, result: given.append(result))
    model(torch.randn(1, 1, 8, 8))
    assert model.backbone.dropout.p == 0.5
    assert [maps.shape[1] for maps in given] == [8, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "mirror"}, r"padding: 'mirror' is not one of valid, same"),
        ({"width": 0}, r"width: expected a whole number of at least 1, found 0"),
        ({"dropout": 1.0}, r"dropout: expected a share of at least 0 and below 1, found 1.0"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create("unet_valid", 2, **options)
