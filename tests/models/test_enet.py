"""ENet: the sizes of table 1, how far it sees, where it unpools, and what its parameters add up to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.enet import Bottleneck, Down, ENet, Up

# Table 1, for an image of 512 x 512: name, maps, cells a side.
TABLE_1 = [
    ("backbone.initial", 16, 256),
    ("backbone.down1", 64, 128),
    ("backbone.section1", 64, 128),
    ("backbone.down2", 128, 64),
    ("backbone.section2", 128, 64),
    ("backbone.section3", 128, 64),
    ("up4", 64, 128),
    ("section4", 64, 128),
    ("up5", 16, 256),
    ("section5", 16, 256),
    ("head", 12, 512),
]


def enet(num_classes: int = 12) -> ENet:
    model = models.create("enet", num_classes).eval()
    assert isinstance(model, ENet)
    return model


def test_sizes_are_those_of_table_1() -> None:
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, result: Tensor | tuple[Tensor, ...]) -> None:
        found[name] = tuple((result[0] if isinstance(result, tuple) else result).shape[1:])

    with torch.device("meta"):
        model = enet()
        for name, *_ in TABLE_1:
            model.get_submodule(name).register_forward_hook(lambda module, given, result, name=name: note(name, result))
        model(torch.empty(1, 3, 512, 512))
    assert found == {name: (maps, cells, cells) for name, maps, cells in TABLE_1}


def test_bottlenecks_follow_each_other_as_in_table_1() -> None:
    def kind(bottleneck: nn.Module) -> str:
        assert isinstance(bottleneck, Bottleneck)
        middle = bottleneck.extension[3]
        if isinstance(middle, nn.Sequential):
            return f"asymmetric {'/'.join(str(conv.kernel_size) for conv in middle)}"
        return f"dilated {middle.dilation[0]}" if middle.dilation[0] > 1 else "regular"

    expected = ["regular", "dilated 2", "asymmetric (1, 5)/(5, 1)", "dilated 4"]
    expected += ["regular", "dilated 8", "asymmetric (1, 5)/(5, 1)", "dilated 16"]
    body = enet().backbone
    assert [kind(each) for each in body.section2] == [kind(each) for each in body.section3] == expected
    assert [kind(each) for each in body.section1] == ["regular"] * 4


def test_dropout_is_of_whole_maps_and_grows_with_bottleneck_2_0() -> None:
    rates = [module.p for module in enet().modules() if isinstance(module, nn.Dropout2d)]
    assert rates == [0.01] * 5 + [0.1] * (1 + 16 + 3 + 2)


def test_maxima_go_back_to_where_they_were_found() -> None:
    down, up = Down(4, 8, 0.0), Up(8, 4, nn.PReLU)
    down.extension = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 8, 1))
    up.extension = nn.Upsample(scale_factor=2)
    up.beside = nn.Identity()
    nn.init.zeros_(down.extension[1].weight)
    nn.init.zeros_(down.extension[1].bias)
    image = torch.zeros(1, 4, 4, 4)
    peaks = [(0, 1, 0), (1, 2, 3), (2, 3, 1), (3, 0, 2)]
    for channel, row, column in peaks:
        image[0, channel, row, column] = 1.0 + channel
    pooled, places = down(image)
    assert pooled.shape == (1, 8, 2, 2)
    assert not pooled[:, 4:].any(), "new channels begin as zeros"
    up.extension.forward = lambda maps: torch.zeros(1, 4, 4, 4)
    assert torch.equal(up(pooled[:, :4], places), image)


def test_the_parameters_are_the_papers_079th_of_segnet() -> None:
    """Table 3 counts the norms' statistics as parameters, too: 0.37 M, 79 times fewer than SegNet's 29.46 M."""
    with torch.device("meta"):
        model = models.create("enet", 20, decoder_activation="relu")
    statistics = sum(b.numel() for name, b in model.named_buffers() if not name.endswith("num_batches_tracked"))
    numbers = statistics + sum(parameter.numel() for parameter in model.parameters())
    assert statistics == 8_352
    assert (round(numbers / 1e6, 2), round(29.46e6 / numbers)) == (0.37, 79)


def test_every_prelu_has_a_slope_a_channel_and_norms_the_authors_epsilon() -> None:
    slopes = [module for module in enet().modules() if isinstance(module, nn.PReLU)]
    assert min(slope.num_parameters for slope in slopes) > 1
    assert {module.eps for module in enet().modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(("height", "width"), [(16, 24), (9, 17), (8, 18)])
def test_an_image_is_padded_at_its_far_ends(height: int, width: int) -> None:
    model = enet()
    image = torch.randn(1, 3, height, width)
    padded = torch.zeros(1, 3, -(-height // 8) * 8, -(-width // 8) * 8)
    padded[..., :height, :width] = image

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model(images).logits_NKHW

    assert torch.equal(logits(image), logits(padded)[..., :height, :width])


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(InputError, match=r"decoder_activation: 'gelu' is not one of prelu, relu"):
        models.create("enet", 2, decoder_activation="gelu")
