"""HRNet for pixels: the authors' layers added up, their names, bilinear fusion, and all four maps in the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.hrnet import HRNet

TINY = dict(models.spec("hrnet_w18").tiny)


def conv_norm(before: int, after: int, kernel: int) -> int:
    return before * after * kernel**2 + 2 * after


def exchange(widths: list[int]) -> int:
    """One of the authors' modules: four residual blocks a branch, then every branch to every other."""
    total = sum(8 * conv_norm(width, width, 3) for width in widths)
    for target, out in enumerate(widths):
        for source, width in enumerate(widths):
            if source > target:
                total += conv_norm(width, out, 1)
            elif source < target:
                total += (target - source - 1) * conv_norm(width, width, 3) + conv_norm(width, out, 3)
    return total


def counted_by_hand(width: int, num_classes: int) -> int:
    """lib/models/seg_hrnet.py with 1, 4 and 3 modules in stages 2 to 4, as every configuration of the authors."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    stem = conv_norm(3, 64, 3) + conv_norm(64, 64, 3)
    within = conv_norm(64, 64, 3) + conv_norm(64, 256, 1)
    layer1 = conv_norm(64, 256, 1) + conv_norm(64, 64, 1) + 3 * conv_norm(256, 64, 1) + 4 * within
    transitions = conv_norm(256, width, 3) + conv_norm(256, 2 * width, 3)
    transitions += conv_norm(2 * width, 4 * width, 3) + conv_norm(4 * width, 8 * width, 3)
    stages = exchange(widths[:2]) + 4 * exchange(widths[:3]) + 3 * exchange(widths)
    joined = sum(widths)
    head = (joined + 1) * joined + 2 * joined + (joined + 1) * num_classes
    return stem + layer1 + transitions + stages + head


@pytest.mark.parametrize(("width", "millions"), [(18, 9.6), (32, 29.5), (48, 65.8)])
def test_the_count_is_that_of_the_authors_layers(width: int, millions: float) -> None:
    (counted,) = models.spec(f"hrnet_w{width}").counted
    assert counted.parameters == counted_by_hand(width, 19)
    assert counted.parameters // 100_000 == round(millions * 10)  # the authors cut: 65.86 M is 65.8 M


RELEASED = {
    "model.conv1.weight": (64, 3, 3, 3),
    "model.layer1.0.downsample.1.running_var": (256,),
    "model.transition1.1.0.0.weight": (36, 256, 3, 3),
    "model.transition3.3.0.0.weight": (144, 72, 3, 3),
    "model.stage2.0.branches.1.3.conv2.weight": (36, 36, 3, 3),
    "model.stage3.3.fuse_layers.2.0.0.2.weight": None,
    "model.stage4.2.fuse_layers.3.0.2.0.weight": (144, 18, 3, 3),
    "model.stage4.2.fuse_layers.0.3.1.bias": (18,),
    "model.last_layer.0.weight": (270, 270, 1, 1),
    "model.last_layer.0.bias": (270,),
    "model.last_layer.1.running_mean": (270,),
    "model.last_layer.3.weight": (19, 270, 1, 1),
}


def released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as the authors save theirs: the network beside its loss, which has the weights of classes."""
    return {f"model.{key.removeprefix('backbone.')}": value for key, value in state.items()} | {
        "loss.criterion.weight": torch.ones(19)
    }


def test_weights_have_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        found = released(models.create("hrnet_w18", 19).state_dict())
    # What goes down two halvings has a ReLU, without tensors, behind its first convolution alone.
    assert {key: tuple(found[key].shape) if key in found else None for key in RELEASED} == RELEASED


def test_released_files_load(tmp_path: Path) -> None:
    ours = models.create("hrnet_w18", 19, **TINY).state_dict()
    torch.save(released(ours), tmp_path / "hrnet_cs.pth")
    found = models.create("hrnet_w18", 19, pretrained=str(tmp_path / "hrnet_cs.pth"), **TINY).state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in found.items())
    body = {key.removeprefix("backbone."): value for key, value in ours.items() if key.startswith("backbone.")}
    classifier = {**body, "incre_modules.0.0.conv1.weight": torch.zeros(1), "classifier.weight": torch.zeros(1, 1)}
    torch.save(classifier, tmp_path / "hrnetv2_w18_imagenet.pth")
    of_pixels = models.create("hrnet_w18", 7, pretrained=str(tmp_path / "hrnetv2_w18_imagenet.pth"), **TINY)
    assert all(torch.equal(value, body[key]) for key, value in of_pixels.backbone.state_dict().items())


@pytest.mark.parametrize("enlargement", ["nearest", "bilinear"])
def test_an_exchange_is_the_sum_of_what_comes_up_and_goes_down(enlargement: str) -> None:
    """The authors' formula, path by path: pose networks come up by the nearest cell, networks for pixels bilinearly."""
    torch.manual_seed(0)
    body = HRNet("hrnet_w4", 4, stem=8, blocks=1, modules=(1, 1, 1), enlargement=enlargement).eval()
    unit = body.get_submodule("stage4.0")
    maps = tuple(torch.randn(2, 4 << n, -(-33 // 2**n), 24 >> n) for n in range(4))
    with torch.no_grad():
        through = [branch(features) for branch, features in zip(unit.branches, maps, strict=True)]
        for target, fused in enumerate(unit(maps)):
            expected = through[target].clone()
            for source, features in enumerate(through):
                moved = unit.fuse_layers[target][source](features)
                if source > target:
                    moved = F.interpolate(moved, size=maps[target].shape[-2:], mode=enlargement)
                expected = expected + moved if source != target else expected
            torch.testing.assert_close(fused, expected.relu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changed", range(4))
def test_every_map_has_its_say(changed: int) -> None:
    torch.manual_seed(0)
    model = models.create("hrnet_w18", 3, **TINY).eval()
    maps = [torch.randn(1, 18 << n, 16 >> n, 16 >> n) for n in range(4)]

    def answer() -> Tensor:
        model.backbone.forward = lambda images_NCHW: tuple(maps)
        return model(torch.zeros(1, 3, 64, 64)).logits_NKHW

    with torch.no_grad():
        before = answer()
        maps[changed] = maps[changed] + 1
        assert not torch.allclose(answer(), before)
        assert before.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": [1, 4]}, r"modules: \[1, 4\]; expected the exchange units of stages 2, 3 and 4, as \[1, 4, 3\]"),
        ({"modules": [1, 0, 3]}, r"modules.1: expected a whole number of at least 1, found 0"),
        ({"stem": 0}, r"stem: expected a whole number of at least 1, found 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("hrnet_w32", options)
