"""timm's networks as backbones: what is said where it is missing, and, mostly with one made up, what is asked of it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.backbones import build_backbone

WIDTHS = (4, 8, 12, 16)


class Features(nn.Module):
    """As timm's FeatureListNet: parts of the classifier, flattened; `feature_info`; a list of maps.

    Rounds sizes down, as many a network of patches.
    """

    def __init__(self, in_chans: int, strides: tuple[int, ...], output_fmt: str) -> None:
        super().__init__()
        self.feature_info = SimpleNamespace(reduction=lambda: list(strides), channels=lambda: list(WIDTHS))
        self.output_fmt = output_fmt
        self.stem_0 = nn.Conv2d(in_chans, WIDTHS[0], 4, stride=4)
        for number, (before, after) in enumerate(itertools.pairwise(WIDTHS)):
            stride = strides[number + 1] // strides[number]
            self.add_module(f"stages_{number}", nn.Conv2d(before, after, stride, stride=stride))

    def forward(self, images_NCHW: Tensor) -> list[Tensor]:
        maps = [self.stem_0(images_NCHW)]
        for number in range(3):
            maps.append(self.get_submodule(f"stages_{number}")(maps[-1]))
        return maps if self.output_fmt == "NCHW" else [features.permute(0, 2, 3, 1) for features in maps]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A timm of three networks; what `create_model` was asked for."""
    calls: list[dict[str, Any]] = []

    def create_model(name: str, *, in_chans: int, output_stride: int = 32, **options: Any) -> nn.Module:
        calls.append({"name": name, "in_chans": in_chans, "output_stride": output_stride, **options})
        if name == "unknown":
            raise RuntimeError("Unknown model (unknown)")
        if name == "plain":
            return Features(in_chans, (16, 16, 16, 16), "NCHW")
        if name == "fixed":
            made = Features(in_chans, (4, 8, 16, 32), "NCHW")
            made.register_forward_pre_hook(refuse)
            return made
        strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
        return Features(in_chans, strides, "NHWC" if name == "last" else "NCHW")

    def refuse(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise AssertionError("Input height (64) doesn't match model (224).")

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return calls


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm/resnet18 needs the package timm, .*pip install 'segpipe\[timm\]'"):
        models.create("unet", 2, backbone="timm/resnet18")


def test_timm_is_not_imported_where_it_is_not_asked_for() -> None:
    code = "import sys; from segpipe import models; models.create('unet', 2); sys.exit('timm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["first", "last"])
@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16))])
def test_maps_are_those_of_timms_network_at_the_promised_sizes(
    name: str, output_stride: int, strides: tuple[int, ...], asked: list[dict[str, Any]]
) -> None:
    backbone = build_backbone(f"timm/{name}", in_channels=2, output_stride=output_stride).eval()
    assert backbone.channels == (0, *WIDTHS)
    assert backbone.get_parameter(f"{backbone.stem}.weight").shape == (4, 2, 4, 4)
    image = torch.randn(1, 2, 33, 66)
    padded = torch.zeros(1, 2, 64, 96)
    padded[..., :33, :66] = image
    with torch.no_grad():
        first, *found = backbone(image)
        expected = backbone.body.body(padded)
    assert first.shape == (1, 0, 17, 33)
    for mine, theirs, stride in zip(found, expected, strides, strict=True):
        theirs = theirs.permute(0, 3, 1, 2) if name == "last" else theirs
        assert torch.equal(mine, theirs[..., : -(-33 // stride), : -(-66 // stride)])
    wanted = {"name": name, "in_chans": 2, "output_stride": output_stride, "pretrained": False, "features_only": True}
    assert all(call == wanted for call in asked)


def test_it_serves_an_architecture_and_takes_the_file_of_a_whole_classifier(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    theirs = Features(3, (4, 8, 16, 32), "NCHW").state_dict()
    whole = {key.replace("_", ".", 1): value for key, value in theirs.items()}
    whole |= {"head.fc.weight": torch.zeros(10, 16), "norm_pre.weight": torch.zeros(16)}
    torch.save(whole, tmp_path / "classifier.pth")
    model = models.create("unet", 2, backbone="timm/first", pretrained=str(tmp_path / "classifier.pth"))
    loaded = model.backbone.body.body.state_dict()
    assert loaded.keys() == theirs.keys()
    assert all(torch.equal(loaded[key], theirs[key]) for key in theirs)
    assert model(torch.randn(1, 3, 5, 7)).logits_NKHW.shape == (1, 2, 5, 7)
    del whole["stem.0.weight"]
    torch.save(whole, tmp_path / "classifier.pth")
    with pytest.raises(InputError, match=r"1 missing \(backbone.body.body.stem_0.weight\)"):
        models.create("unet", 2, backbone="timm/first", pretrained=str(tmp_path / "classifier.pth"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unknown", {}, r"timm does not make timm/unknown with output_stride=32: Unknown model \(unknown\)"),
        ("plain", {}, r"timm/plain has maps of strides 16, 16, 16, 16; expected 2, 4, 8, 16, 32, with or without the"),
        (
            "fixed",
            {},
            r"timm/fixed cannot be given images of any size: Input height \(64\) doesn't match model \(224\)",
        ),
        ("first", {"norm": "frozen"}, r"timm/first has timm's norms, maps and dilation"),
        ("first", {"taps": {"1": 3}}, r"timm/first has timm's norms, maps and dilation"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    name: str, options: dict[str, Any], message: str, asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(f"timm/{name}", **options)


@pytest.mark.parametrize(
    ("name", "channels", "stem"),
    [("resnet18", (64, 64, 128, 256, 512), "conv1"), ("convnext_tiny", (0, 96, 192, 384, 768), "stem_0")],
)
@pytest.mark.parametrize("output_stride", [32, 16])
def test_the_real_timm_is_asked_rightly(name: str, channels: tuple[int, ...], stem: str, output_stride: int) -> None:
    """The one that the lock installs, without memory: a network of kernels, and one of patches without stride 2."""
    with torch.device("meta"):
        backbone = build_backbone(f"timm/{name}", in_channels=5, output_stride=output_stride).eval()
        maps = backbone(torch.empty(1, 5, 33, 65))
    assert backbone.channels == channels
    assert backbone.stem == f"body.body.{stem}"
    strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]
    assert [tuple(features.shape) for features in maps] == [
        (1, count, -(-33 // stride), -(-65 // stride)) for count, stride in zip(channels, strides, strict=True)
    ]
