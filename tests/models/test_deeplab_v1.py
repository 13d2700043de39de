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
        fc6 = model.backbone.get_submodule("fc6")
        for layer in model.backbone.children():
            if isinstance(layer, nn.MaxPool2d) or layer is fc6:
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
    *convolutions, fc6, fc7 = (layer for layer in model.backbone.children() if isinstance(layer, nn.Conv2d))
    assert [layer.dilation[0] for layer in convolutions] == [1] * 10 + [2] * 3
    assert (fc6.kernel_size, fc6.dilation, fc6.padding, fc6.out_channels) == ((3, 3), (12, 12), (12, 12), 1024)
    assert (fc7.kernel_size, fc7.out_channels) == ((1, 1), 1024)
    assert [layer.p for layer in model.backbone.children() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


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


def imagenets() -> dict[str, torch.Tensor]:
    """A slim VGG's whole classifier, with 64 x 7 x 7 inputs and hidden layers of 32 outputs."""
    torch.manual_seed(1)
    convolutions = {f"features.{key}": value for key, value in build_backbone("vgg16_slim").state_dict().items()}
    sizes = {"classifier.0": (32, 64 * 7 * 7), "classifier.3": (32, 32), "classifier.6": (1000, 32)}
    hidden = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
    return {**convolutions, **hidden, **{f"{name}.bias": torch.randn(size[0]) for name, size in sizes.items()}}


@pytest.mark.parametrize(
    ("options", "rows", "channels"),
    [
        ({"fc_channels": 16}, [0, 3, 6], slice(0, 31, 2)),
        ({"fc_channels": 8, "kernel_size": 4}, [0, 2, 4, 6], slice(1, 30, 4)),
        ({"fc_channels": 32, "kernel_size": 7}, [0, 1, 2, 3, 4, 5, 6], slice(0, 32)),
        ({"fc_channels": 32, "kernel_size": 1}, [3], slice(0, 32)),
    ],
)
def test_imagenets_layers_are_subsampled(
    options: dict[str, int], rows: list[int], channels: slice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = imagenets()
    torch.save(theirs, tmp_path / "slim.pth")
    options = {"kernel_size": 3, "dilation": 2, **options}
    file = str(tmp_path / "slim.pth")
    state = models.create("deeplab_v1", 3, backbone="vgg16_slim", pretrained=file, **options).state_dict()
    for key, value in theirs.items():
        if key.startswith("features."):
            assert torch.equal(state[key.replace("features.", "backbone.")], value)
    said = "backbone.fc6.weight of shape (32, 64, 7, 7) subsampled to "
    assert (said in caplog.text) is (options["kernel_size"] < 7)
    fc6 = theirs["classifier.0.weight"].reshape(32, 64, 7, 7)[channels][:, :, rows][..., rows]
    assert torch.equal(state["backbone.fc6.weight"], fc6)
    assert torch.equal(state["backbone.fc6.bias"], theirs["classifier.0.bias"][channels])
    assert torch.equal(state["backbone.fc7.weight"][..., 0, 0], theirs["classifier.3.weight"][channels][:, channels])
    assert torch.equal(state["backbone.fc7.bias"], theirs["classifier.3.bias"][channels])


def test_more_than_imagenet_has_is_refused(tmp_path: Path) -> None:
    torch.save(imagenets(), tmp_path / "slim.pth")
    with pytest.raises(
        InputError, match=r"another shape \(backbone.fc6.weight: file \(32, 64, 3, 3\), model \(64, 64,"
    ):
        models.create("deeplab_v1", 3, backbone="vgg16_slim", fc_channels=64, pretrained=str(tmp_path / "slim.pth"))


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
