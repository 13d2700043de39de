"""PSPNet: grids of means, the authors' dilation and stem, their count and their keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError

K = 5


def counted_by_hand(body: int, num_classes: int) -> int:
    """The layers of the authors' model/pspnet.py and model/resnet.py; `body`: torchvision's without classifier."""

    def conv_norm(before: int, after: int, kernel: int) -> int:
        return before * after * kernel**2 + 2 * after

    def head(before: int, within: int) -> int:
        return conv_norm(before, within, 3) + (within + 1) * num_classes

    stem = conv_norm(3, 64, 3) + conv_norm(64, 64, 3) + conv_norm(64, 128, 3) - conv_norm(3, 64, 7)
    wider_layer1 = 64 * 64 + 64 * 256  # its first 1 x 1 and its shortcut see 128 channels instead of 64
    return body + stem + wider_layer1 + 4 * conv_norm(2048, 512, 1) + head(4096, 512) + head(1024, 256)


@pytest.mark.parametrize("depth", [50, 101])
def test_the_count_is_that_of_the_authors_layers(depth: int) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    body = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith("fc."))
    (counted,) = (c for c in models.spec("pspnet").counted if c.options["backbone"] == f"resnet{depth}_deep")
    assert counted.parameters == counted_by_hand(body, 150)


def test_stages_are_dilated_as_in_the_authors_code() -> None:
    with torch.device("meta"):
        model = models.create("pspnet", K, backbone="resnet50_deep").eval()
        *_, fourth, last = model.backbone(torch.empty(1, 3, 473, 473))
    assert {unit.conv2.dilation for unit in model.backbone.layer3} == {(2, 2)}
    assert {unit.conv2.dilation for unit in model.backbone.layer4} == {(4, 4)}
    assert last.shape[-2:] == fourth.shape[-2:] == (60, 60)
    assert (model.cls[0].in_channels, model.cls[0].out_channels) == (4096, 512)
    assert [type(layer) for layer in model.cls][3] is nn.Dropout2d
    assert (model.aux_classifier[0].in_channels, model.aux_classifier[0].out_channels) == (1024, 256)


def test_the_deep_stem_is_three_small_convolutions() -> None:
    with torch.device("meta"):
        backbone = models.create("pspnet", K, backbone="resnet50_deep").backbone
        maps = backbone(torch.empty(1, 3, 64, 48))
    stem = [m for name, m in backbone.named_children() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in stem] == [
        (3, 64, (3, 3), (2, 2)),
        (64, 64, (3, 3), (1, 1)),
        (64, 128, (3, 3), (1, 1)),
    ]
    assert tuple(maps[0].shape) == (1, 128, 32, 24)


def test_grids_may_be_any_number() -> None:
    """Of three, a third of 512 channels is 170, and the map and its means are 1022."""
    model = models.create("pspnet", K, backbone="resnet18", bins=[1, 3, 5]).eval()
    assert model.cls[0].in_channels == 512 + 3 * 170
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 33, 17)).logits_NKHW.shape == (1, K, 33, 17)


def of_the_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of their files: a list for the stem, pooling as a layer of its own."""
    places = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.removeprefix("backbone.").partition(".")
        if part in places:
            name = f"layer0.{places[part]}.{rest}"
        elif part == "ppm":
            _, grid, layer, what = rest.split(".")
            name = f"ppm.features.{grid}.{int(layer) + 1}.{what}"
        else:
            name = f"{part.replace('aux_classifier', 'aux')}.{rest}"
        renamed[f"module.{name}"] = value
    return renamed


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    return models.create("pspnet", K, backbone="resnet50_deep").state_dict()


def test_released_keys_load(trained: dict[str, Tensor], tmp_path: Path) -> None:
    theirs = of_the_authors(trained)
    assert {
        "module.layer0.0.weight",
        "module.layer0.7.running_mean",
        "module.layer1.0.downsample.1.bias",
        "module.ppm.features.3.1.weight",
        "module.ppm.features.0.2.running_var",
        "module.cls.4.bias",
        "module.aux.4.weight",
    } <= theirs.keys()
    torch.save({"epoch": 100, "state_dict": theirs}, tmp_path / "train_epoch_100.pth")
    file = str(tmp_path / "train_epoch_100.pth")
    for aux in (True, False):
        found = models.create("pspnet", K, backbone="resnet50_deep", aux=aux, pretrained=file).state_dict()
        assert all(torch.equal(value, trained[key]) for key, value in found.items())
        assert any(key.startswith("aux_classifier.") for key in found) is aux


def test_the_authors_classifiers_fit_the_deep_stem(trained: dict[str, Tensor], tmp_path: Path) -> None:
    place = "backbone."
    body = {key.removeprefix(place): value for key, value in trained.items() if key.startswith(place)}
    torch.save({**body, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "v2.pth")
    found = models.create("pspnet", K, backbone="resnet50_deep", pretrained=str(tmp_path / "v2.pth"))
    assert all(torch.equal(value, body[key]) for key, value in found.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": []}, r"bins: \[\]; expected at least one grid"),
        ({"bins": [1, 0]}, r"bins.1: expected a whole number of at least 1, found 0"),
        ({"output_stride": 4}, r"output_stride: 4 is not one of 8, 16, 32"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("pspnet", options)
