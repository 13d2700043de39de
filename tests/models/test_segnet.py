"""SegNet, SegNet-Basic, Bayesian SegNet: the authors' layers, torchvision's encoder, where dropout stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.backbones import build_backbone
from segpipe.models.parts.upsampling import UPSAMPLERS
from segpipe.models.segnet import SegNet

# Outputs of the decoder's convolutions in the authors' Models/segnet_inference.prototxt, conv5_3_D to conv1_1_D.
DECODER = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 11]


def outline(name: str, **options: object) -> SegNet:
    with torch.device("meta"):
        model = models.create(name, 11, **options).eval()
    assert isinstance(model, SegNet)
    return model


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("name", ["segnet", "bayesian_segnet"])
def test_the_decoder_is_that_of_the_authors(name: str) -> None:
    model = outline(name)
    layers = [*convolutions(model.decoder), *convolutions(model.classifier)]
    assert [layer.out_channels for layer in layers] == DECODER
    assert {layer.kernel_size for layer in layers} == {(3, 3)}
    norms = [layer for layer in model.decoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == len(DECODER) - 1
    assert not [layer for layer in model.modules() if isinstance(layer, nn.ConvTranspose2d | nn.Upsample)]


def test_segnet_basic_has_seven_by_sevens_and_no_relu_in_its_decoder() -> None:
    model = outline("segnet_basic")
    assert [(layer.kernel_size, layer.out_channels) for layer in convolutions(model.backbone)] == [((7, 7), 64)] * 4
    assert [(layer.kernel_size, layer.out_channels) for layer in convolutions(model.decoder)] == [((7, 7), 64)] * 4
    assert model.classifier.kernel_size == (1, 1)
    assert not [layer for layer in model.decoder.modules() if isinstance(layer, nn.ReLU)]
    first = next(iter(model.backbone.children()))
    assert isinstance(first, nn.LocalResponseNorm)
    assert (first.size, first.alpha, first.beta, first.k) == (5, 1e-4, 0.75, 1.0)


def test_maps_of_a_camvid_image_have_the_authors_sizes() -> None:
    """360 x 480: their Upsample layers are told 23 x 30 and 45 x 60, since 45 rows pool to 23 and 23 to 12."""
    model, sizes = outline("segnet"), []
    for stage in model.decoder:
        stage.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape[-2:])))
    assert model(torch.empty(1, 3, 360, 480, device="meta")).logits_NKHW.shape == (1, 11, 360, 480)
    assert sizes == [(23, 30), (45, 60), (90, 120), (180, 240), (360, 480)]


def test_a_decoder_stage_sees_values_at_the_maxima_and_zeros_elsewhere() -> None:
    torch.manual_seed(0)
    model = models.create("segnet_basic", 3, width=4).eval()
    seen: list[Tensor] = []
    model.decoder[-1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 48))
    windows = seen[0].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert int((windows != 0).sum(-1).max()) == 1
    assert float((windows != 0).any(-1).float().mean()) > 0.99


@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
@pytest.mark.parametrize("upsampling", [name for name in UPSAMPLERS if name != "max_unpool"])
def test_other_ways_of_upsampling_stand_in_for_the_places(name: str, upsampling: str) -> None:
    torch.manual_seed(0)
    small = {"width": 4} if name == "segnet_basic" else {"backbone": "vgg16_bn_slim"}
    model = models.create(name, 3, upsampling=upsampling, **small).train()
    logits = model(torch.randn(2, 3, 33, 50)).logits_NKHW
    assert logits.shape == (2, 3, 33, 50)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    learned = {"transposed", "subpixel"}
    assert bool(list(model.upsamplers.parameters())) == (upsampling in learned)
    if upsampling not in learned:
        plain = models.create(name, 3, **small)
        plain.load_state_dict(model.state_dict(), strict=True)
        images = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert not torch.allclose(plain.eval()(images).logits_NKHW, model.eval()(images).logits_NKHW)


@pytest.mark.parametrize("name", ["segnet", "bayesian_segnet"])
def test_torchvisions_weights_fill_the_encoder(name: str, tmp_path: Path) -> None:
    theirs = {f"features.{key}": value for key, value in build_backbone("vgg16_bn_slim").state_dict().items()}
    theirs |= {"classifier.0.weight": torch.randn(4, 4), "classifier.0.bias": torch.randn(4)}
    path = tmp_path / "slim.pth"
    torch.save(theirs, path)
    state = models.create(name, 3, backbone="vgg16_bn_slim", pretrained=str(path)).state_dict()
    kept = {key: value for key, value in theirs.items() if key.startswith("features.")}
    assert all(torch.equal(state[key.replace("features.", "backbone.")], value) for key, value in kept.items())


def test_bayesian_segnet_is_segnet_while_dropout_is_off() -> None:
    torch.manual_seed(0)
    plain, bayesian = (
        models.create(name, 3, backbone="vgg16_bn_slim").eval() for name in ("segnet", "bayesian_segnet")
    )
    bayesian.load_state_dict(plain.state_dict(), strict=True)
    images = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(bayesian(images).logits_NKHW, plain(images).logits_NKHW)


def test_dropout_stands_behind_the_central_blocks() -> None:
    """As encdrop3 to 5 and decdrop5 to 3 in the authors' prototxt: behind poolings, and before the next unpooling."""
    model, seen = outline("bayesian_segnet"), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_hook(
                lambda layer, given, result, name=name: seen.append((name, *result.shape[-3:]))
            )
    model(torch.empty(1, 3, 64, 64, device="meta"))
    assert seen == [
        ("backbone.encdrop3", 256, 8, 8),
        ("backbone.encdrop4", 512, 4, 4),
        ("backbone.encdrop5", 512, 2, 2),
        ("decoder.0.decdrop", 512, 4, 4),
        ("decoder.1.decdrop", 256, 8, 8),
        ("decoder.2.decdrop", 128, 16, 16),
    ]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segnet", {"backbone": "vgg16"}, r"backbone: 'vgg16' is not one of vgg11_bn, .*which a SegNet mirrors"),
        (
            "segnet_basic",
            {"upsampling": "unpool"},
            r"upsampling: unknown 'unpool'; expected one of: nearest, .*max_unpool",
        ),
        ("segnet_basic", {"width": 0}, r"width: expected a whole number of at least 1, found 0"),
        ("bayesian_segnet", {"dropout": 1.0}, r"dropout: expected a share of at least 0 and below 1, found 1.0"),
        ("bayesian_segnet", {"dropout": -0.5}, r"dropout: .* found -0.5"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create(name, 3, **options)
