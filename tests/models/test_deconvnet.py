"""DeconvNet: the layer table of the paper, torchvision's VGG-16 with fc6 and fc7, images other than 224 x 224."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.backbones import build_backbone
from segpipe.models.parts.switches import encoded

# Name, kernel, size and channels of the output: the paper's table of layers, for 224 x 224.
TABLE = """
conv1-1 3 224 64   conv1-2 3 224 64   conv2-1 3 112 128  conv2-2 3 112 128
conv3-1 3 56 256   conv3-2 3 56 256   conv3-3 3 56 256   conv4-1 3 28 512   conv4-2 3 28 512   conv4-3 3 28 512
conv5-1 3 14 512   conv5-2 3 14 512   conv5-3 3 14 512   fc6 7 1 4096       fc7 1 1 4096       deconv-fc6 7 7 512
deconv5-1 3 14 512 deconv5-2 3 14 512 deconv5-3 3 14 512 deconv4-1 3 28 512 deconv4-2 3 28 512 deconv4-3 3 28 256
deconv3-1 3 56 256 deconv3-2 3 56 256 deconv3-3 3 56 128 deconv2-1 3 112 128 deconv2-2 3 112 64
deconv1-1 3 224 64 deconv1-2 3 224 64 output 1 224 21
"""


def small(num_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return models.create("deconvnet", num_classes, backbone="vgg16_bn_slim", fc_channels=16).eval()


def test_the_layers_are_those_of_the_papers_table() -> None:
    found = []
    with torch.device("meta"):
        model = models.create("deconvnet", 21).eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(
                    lambda layer, _, result: found.append((layer.kernel_size[0], result.shape[-1], result.shape[1]))
                )
        model(torch.empty(1, 3, 224, 224))
    words = TABLE.split()
    expected = [tuple(map(int, words[place + 1 : place + 4])) for place in range(0, len(words), 4)]
    assert found == expected


def test_every_layer_but_the_last_has_norm_and_relu() -> None:
    with torch.device("meta"):
        modules = list(models.create("deconvnet", 21).modules())
    counts = {kind: sum(isinstance(module, kind) for module in modules) for kind in (nn.BatchNorm2d, nn.ReLU)}
    layers = sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in modules)
    assert counts == {nn.BatchNorm2d: layers - 1, nn.ReLU: layers - 1}


def test_fc6_has_one_cell_at_224_and_more_of_a_larger_image() -> None:
    model = small()
    corner: list[Tensor] = []
    model.fc6.register_forward_hook(lambda module, given, result: corner.append(result))
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
        model(torch.zeros(1, 3, 300, 260))
        model(torch.zeros(1, 3, 20, 230))
    assert [tuple(maps.shape[-2:]) for maps in corner] == [(1, 1), (4, 3), (1, 2)]


def test_the_small_map_is_filled_up_with_zeros() -> None:
    """One cell of stride 32: fc6 is then its first kernel place alone."""
    model, images = small(), torch.randn(1, 3, 20, 30)
    seen: list[Tensor] = []
    model.fc6.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        model(images)
        (*layers, fc6, _) = model.backbone.children()
        coarsest, _ = encoded(layers, images)
        expected = torch.einsum("oc,nc->no", fc6.weight[:, :, 0, 0], coarsest[..., 0, 0]) + fc6.bias
    assert coarsest.shape[-2:] == (1, 1)
    torch.testing.assert_close(seen[0].flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_unpooled_values_lie_where_the_encoder_found_its_maxima() -> None:
    model, images = small(), torch.randn(1, 3, 64, 64)
    unpooled: list[Tensor] = []
    for stage in model.decoder:
        stage.register_forward_pre_hook(lambda module, given: unpooled.append(given[0]))
    with torch.no_grad():
        model(images)
        *layers, _, _ = model.backbone.children()
        _, poolings = encoded(layers, images)
    for maps, pooling in zip(unpooled, poolings[::-1], strict=True):
        places = torch.zeros_like(maps).flatten(2).scatter(2, pooling.switches_NChw.flatten(2), 1.0)
        assert not maps.flatten(2)[places == 0].any()
        assert bool(maps.any())


def test_imagenets_classifier_fills_encoder_fc6_and_fc7(tmp_path: Path) -> None:
    theirs = {f"features.{key}": value for key, value in build_backbone("vgg16_bn_slim").state_dict().items()}
    theirs |= {
        "classifier.0.weight": torch.randn(16, 64 * 49),
        "classifier.0.bias": torch.randn(16),
        "classifier.3.weight": torch.randn(16, 16),
        "classifier.3.bias": torch.randn(16),
        "classifier.6.weight": torch.randn(1000, 16),
        "classifier.6.bias": torch.randn(1000),
    }
    path = tmp_path / "slim.pth"
    torch.save(theirs, path)
    model = models.create("deconvnet", 3, backbone="vgg16_bn_slim", fc_channels=16, pretrained=str(path))
    state = model.state_dict()
    assert torch.equal(state["backbone.0.weight"], theirs["features.0.weight"])
    assert torch.equal(state["backbone.fc6.weight"], theirs["classifier.0.weight"].reshape(16, 64, 7, 7))
    assert torch.equal(state["backbone.fc7.bias"], theirs["classifier.3.bias"])


def test_a_backbone_without_norms_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"backbone: 'vgg16' is not one of vgg11_bn, .*vgg16_bn_slim, which a DeconvNet"
    ):
        models.create("deconvnet", 3, backbone="vgg16")
