"""DeepLab-LargeFOV: the authors' sizes, cells that lie at every eighth pixel, the holes, the table's other forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.backbones import build_backbone


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    model = models.create("deeplab_v1", 3, backbone="vgg16_slim", fc_channels=16, **options).eval()
    for parameter in model.fc8.parameters():
        nn.init.normal_(parameter)
    return model


def test_maps_of_the_authors_crop_have_the_authors_sizes() -> None:
    """Their prototxt's comment: of 321 pixels, pooling leaves 161, 81, 41."""
    with torch.device("meta"):
        model, sizes = models.create("deeplab_v1", 21).eval(), []
        for layer in [*model.backbone.children(), model.fc6]:
            if isinstance(layer, nn.MaxPool2d) or layer is model.fc6:
                layer.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[1:])))
        logits = model(torch.empty(1, 3, 321, 321)).logits_NKHW
    assert sizes == [(64, 161, 161), (128, 81, 81), (256, 41, 41), (512, 41, 41), (512, 41, 41), (1024, 41, 41)]
    assert logits.shape == (1, 21, 321, 321)


def test_the_layers_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = models.create("deeplab_v1", 21)
    pools = [
        (layer.kernel_size, layer.stride) for layer in model.backbone.children() if isinstance(layer, nn.MaxPool2d)
    ]
    assert pools == [(3, 2), (3, 2), (3, 2), (3, 1), (3, 1)]
    convolutions = [layer for layer in model.backbone.children() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in convolutions] == [1] * 10 + [2] * 3
    assert (model.fc6.kernel_size, model.fc6.dilation, model.fc6.out_channels) == ((3, 3), (12, 12), 1024)
    assert (model.fc7.kernel_size, model.fc7.out_channels) == ((1, 1), 1024)
    assert model.dropout.p == 0.5


@pytest.mark.parametrize("options", [{}, {"kernel_size": 4, "dilation": 4}, {"kernel_size": 7, "dilation": 4}])
def test_cells_lie_at_every_eighth_pixel(options: dict[str, int]) -> None:
    """A mirrored image under mirrored kernels gives mirrored scores, on 8 k + 1 pixels: then and only then is no cell
    off its place. Even poolings, as in plain VGG, would shift it."""
    model, mirrored = small(**options), small(**options)
    with torch.no_grad():
        for layer in mirrored.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(layer.weight.flip(-1))
        images = torch.randn(1, 3, 41, 65)
        expected = model(images).logits_NKHW.flip(-1)
        found = mirrored(images.flip(-1)).logits_NKHW
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_every_eighth_pixel_has_the_score_of_its_cell() -> None:
    model, scores = small(), []
    model.fc8.register_forward_hook(lambda module, given, result: scores.append(result))
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 30, 44)).logits_NKHW
    read = logits[..., ::8, ::8]
    assert read.shape[-2:] == (4, 6)
    torch.testing.assert_close(read, scores[0][..., :4, :6])
    between = (scores[0][..., 0, 0] + scores[0][..., 0, 1]) / 2
    torch.testing.assert_close(logits[..., 0, 4], between)


def test_imagenets_weights_fill_the_convolutions(tmp_path: Path) -> None:
    theirs = {f"features.{key}": value for key, value in build_backbone("vgg16_slim").state_dict().items()}
    torch.save({**theirs, "classifier.0.weight": torch.randn(4, 4)}, tmp_path / "slim.pth")
    state = models.create("deeplab_v1", 3, backbone="vgg16_slim", pretrained=str(tmp_path / "slim.pth")).state_dict()
    assert all(torch.equal(state[key.replace("features.", "backbone.")], value) for key, value in theirs.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kernel_size": 4, "dilation": 3},
            r"dilation: 3 puts the middle of fc6's kernel, of size 4, between",
        ),
        ({"backbone": "vgg16_bn"}, r"backbone: 'vgg16_bn' is not one of vgg16, vgg16_slim"),
        ({"fc_channels": 0}, r"fc_channels: expected a whole number of at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create("deeplab_v1", 3, **options)
