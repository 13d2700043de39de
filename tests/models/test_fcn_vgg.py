"""FCN-32s, -16s, -8s: offsets derived anew, torchvision's classifiers made convolutional, the staged forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.fcn_vgg import ALEXNET_CROP, CROP, CROP_POOL3, CROP_POOL4, FCN
from segpipe.models.parts.convolutionalised import adapt_classifier

STAGED = ["fcn32s", "fcn16s", "fcn8s"]
ALL = [*STAGED, "fcn8s_at_once"]


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def lively(name: str, num_classes: int = 3) -> FCN:
    """With scores and upsampling that are not as they begin, so that a forgotten stream shows."""
    torch.manual_seed(0)
    model = models.create(name, num_classes, backbone="vgg16_slim", fc_channels=16).eval()
    for key, parameter in model.named_parameters():
        if not key.startswith("backbone."):
            nn.init.normal_(parameter, 0, 0.5)
    assert isinstance(model, FCN)
    return model


class Place:
    """Caffe's coordinates of a map in its input: cell i lies at scale * i + shift."""

    def __init__(self, scale: float = 1, shift: float = 0) -> None:
        self.scale, self.shift = scale, shift

    def convolved(self, kernel: int, stride: int = 1, pad: int = 0) -> Place:
        return Place(self.scale * stride, self.shift + self.scale * ((kernel - 1) / 2 - pad))

    def upsampled(self, kernel: int, stride: int) -> Place:
        fine = self.scale / stride
        return Place(fine, self.shift - fine * (kernel - 1) / 2)

    def crop(self, other: Place) -> float:
        """How many cells of this map lie before the other's first."""
        assert self.scale == other.scale
        return (other.shift - self.shift) / self.scale


def vgg_places() -> tuple[Place, Place, Place]:
    """pool3, pool4 and fc7: the 3 x 3 convolutions, padded by 1 after the first, move nothing."""
    place, pools = Place().convolved(3, pad=100), []
    for _ in range(5):
        place = place.convolved(2, stride=2)
        pools.append(place)
    return pools[2], pools[3], place.convolved(7)


def test_the_crops_are_where_the_layers_put_the_image() -> None:
    pool3, pool4, fc7 = vgg_places()
    assert fc7.upsampled(64, 32).crop(Place()) == CROP[32] == 19
    twice = fc7.upsampled(4, 2)
    assert pool4.crop(twice) == CROP_POOL4 == 5
    assert twice.upsampled(32, 16).crop(Place()) == CROP[16] == 27
    four_times = twice.upsampled(4, 2)
    assert pool3.crop(four_times) == CROP_POOL3 == 9
    assert four_times.upsampled(16, 8).crop(Place()) == CROP[8] == 31
    place = (
        Place().convolved(11, stride=4, pad=100).convolved(3, stride=2).convolved(3, stride=2).convolved(3, stride=2)
    )
    assert place.convolved(6).upsampled(63, 32).crop(Place()) == ALEXNET_CROP == 18


def test_fcn8s_is_the_authors_net_layer_by_layer() -> None:
    """From the maps of the backbone on, with a full K x K kernel where ours has one a class."""
    model, num_classes, images = lively("fcn8s"), 3, noise(2, 3, 41, 70)
    kernels = {}
    for name in ("upscore2", "upscore_pool4"):
        kernels[name] = torch.zeros(num_classes, num_classes, 4, 4)
        for k in range(num_classes):
            kernels[name][k, k] = getattr(model, name).weight[k, 0]
    along = 1 - (torch.arange(16) - 7.5).abs() / 8
    final = torch.zeros(num_classes, num_classes, 16, 16)
    final[range(num_classes), range(num_classes)] = along[:, None] * along[None, :]
    with torch.no_grad():
        pool3, pool4, fc7 = model.backbone(images)
        scores = F.conv_transpose2d(model.score_fr(fc7), kernels["upscore2"], stride=2)
        height, width = scores.shape[-2:]
        scores = scores + model.score_pool4(pool4)[..., 5 : 5 + height, 5 : 5 + width]
        scores = F.conv_transpose2d(scores, kernels["upscore_pool4"], stride=2)
        height, width = scores.shape[-2:]
        scores = scores + model.score_pool3(pool3)[..., 9 : 9 + height, 9 : 9 + width]
        expected = F.conv_transpose2d(scores, final, stride=8)[..., 31 : 31 + 41, 31 : 31 + 70]
        found = model(images).logits_NKHW
    assert expected.shape == found.shape == (2, 3, 41, 70)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_sizes_on_the_way_are_those_of_caffe() -> None:
    """500 x 500, as in the authors' deploy.prototxt: 698 after conv1, pooled to 349, 175, 88, 44, 22, and fc7 of 16."""
    with torch.device("meta"):
        model = models.create("fcn8s", 21)
        sizes = [tuple(maps.shape[1:]) for maps in model.backbone(torch.empty(1, 3, 500, 500))]
        assert sizes == [(256, 88, 88), (512, 44, 44), (4096, 16, 16)]


@pytest.mark.parametrize(("name", "fcn", "scores"), [("vgg16", "fcn32s", 512 * 49), ("alexnet", "fcn32s", 256 * 36)])
def test_a_convolutional_classifier_answers_as_torchvisions_on_224(name: str, fcn: str, scores: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    adapted = adapt_classifier(theirs.state_dict())
    with torch.device("meta"):
        ours = models.create(fcn, 2, backbone=name).eval()
    assert {key for key in ours.state_dict() if key.startswith("backbone.")} == set(adapted)
    assert adapted["backbone.fc6.weight"].shape[1:].numel() == scores
    ours.load_state_dict(adapted, strict=False, assign=True)
    stem = ours.backbone.get_submodule(ours.backbone.stem)
    stem.padding = (1, 1) if name == "vgg16" else (2, 2)  # as the classifier has it, instead of the FCN's 100
    images = noise(1, 3, 224, 224)
    with torch.no_grad():
        *_, fc7 = ours.backbone(images)
        last = theirs.classifier[-1]
        found = F.linear(fc7.flatten(1), last.weight, last.bias)
        expected = theirs(images)
    assert fc7.shape == (1, 4096, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert expected.std() > 0


def test_imagenets_weights_bring_fc6_and_fc7_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    theirs = torchvision.models.alexnet(weights=None).state_dict()
    torch.save(theirs, folder / Path(torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url).name)
    ours = models.create("fcn32s", 5, backbone="alexnet", pretrained="IMAGENET1K_V1").state_dict()
    assert torch.equal(ours["backbone.0.weight"], theirs["features.0.weight"])
    assert torch.equal(ours["backbone.fc6.weight"].flatten(1), theirs["classifier.1.weight"])
    assert torch.equal(ours["backbone.fc7.weight"].flatten(1), theirs["classifier.4.weight"])
    assert not ours["score_fr.weight"].any()
    with pytest.raises(
        InputError, match=r"of another shape \(backbone.fc6.weight: file \(4096, 256, 6, 6\), model \(8,"
    ):
        models.create("fcn32s", 5, backbone="alexnet", fc_channels=8, pretrained="IMAGENET1K_V1")


def test_its_own_weights_come_back_and_other_classes_lose_the_scores_alone(tmp_path: Path) -> None:
    source = lively("fcn8s").state_dict()
    path = str(tmp_path / "own.safetensors")
    safetensors.torch.save_file(source, path)
    options = {"backbone": "vgg16_slim", "fc_channels": 16, "pretrained": path}
    again = models.create("fcn8s", 3, **options).state_dict()
    assert all(torch.equal(again[key], source[key]) for key in source)
    other = models.create("fcn8s", 7, **options).state_dict()
    kept = {key for key in source if torch.equal(source[key], other[key])}
    assert kept == {key for key in source if key.startswith("backbone.")}


@pytest.mark.parametrize(
    ("coarse", "fine", "new"),
    [
        ("fcn32s", "fcn16s", {"upscore2.weight", "score_pool4.weight", "score_pool4.bias"}),
        ("fcn16s", "fcn8s", {"upscore_pool4.weight", "score_pool3.weight", "score_pool3.bias"}),
    ],
)
def test_each_stage_begins_where_the_coarser_one_ended(coarse: str, fine: str, new: set[str]) -> None:
    trained = lively(coarse)
    finer = models.create(fine, 3, backbone="vgg16_slim", fc_channels=16).eval()
    loaded = finer.load_state_dict(trained.state_dict(), strict=False)
    assert set(loaded.missing_keys) == new
    assert loaded.unexpected_keys == []
    images = noise(1, 3, 64, 96)
    with torch.no_grad():
        before, after = trained(images).logits_NKHW, finer(images).logits_NKHW
    # The skip adds nothing yet, and two bilinear steps say nearly what one says.
    assert float((before - after).abs().mean()) < 0.2 * float(before.std())
    assert before.std() > 0.1


def test_at_once_scales_what_the_skips_see() -> None:
    """Scores a hundred and ten thousand times as large give what the staged net gives, its upsampling bilinear."""
    staged, at_once = lively("fcn8s"), lively("fcn8s_at_once")
    state = staged.state_dict()
    fresh = models.create("fcn8s", 3, backbone="vgg16_slim", fc_channels=16).state_dict()
    staged.load_state_dict({**state, **{key: fresh[key] for key in ("upscore2.weight", "upscore_pool4.weight")}})
    ours = {key: state[key] for key in at_once.state_dict()}
    ours["score_pool4.weight"] = state["score_pool4.weight"] * 100
    ours["score_pool3.weight"] = state["score_pool3.weight"] * 10_000
    at_once.load_state_dict(ours, strict=True)
    images = noise(1, 3, 50, 40)
    with torch.no_grad():
        expected = staged(images).logits_NKHW
        torch.testing.assert_close(
            at_once(images).logits_NKHW, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


def test_at_once_scales_can_be_set() -> None:
    model = models.create("fcn8s_at_once", 3, backbone="vgg16_slim", fc_channels=16, scale_pool4=1.0, scale_pool3=0.5)
    assert isinstance(model, FCN)
    assert model.scales == (1.0, 0.5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_of_nothing_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match=r"scale_pool3: expected a number above 0, found"):
        models.create("fcn8s_at_once", 3, backbone="vgg16_slim", fc_channels=16, scale_pool3=scale)


@pytest.mark.parametrize("name", ALL)
def test_scores_begin_at_zero_and_the_last_upsampling_is_fixed(name: str) -> None:
    model = models.create(name, 3, backbone="vgg16_slim", fc_channels=16)
    scores = [parameter for key, parameter in model.named_parameters() if key.startswith("score_")]
    assert len(scores) == {"fcn32s": 2, "fcn16s": 4}.get(name, 6)
    assert not any(bool(parameter.any()) for parameter in scores)
    learned = {key for key, _ in model.named_parameters() if key.startswith("upscore")}
    assert learned == {"fcn16s": {"upscore2.weight"}, "fcn8s": {"upscore2.weight", "upscore_pool4.weight"}}.get(
        name, set()
    )


def test_only_fcn32s_is_made_of_alexnet() -> None:
    with pytest.raises(InputError, match=r"backbone: 'alexnet' is not one of vgg11, .*vgg16_bn_slim, which"):
        models.create("fcn16s", 3, backbone="alexnet")
    with pytest.raises(InputError, match=r"backbone: 'resnet50' is not one of vgg11, .*alexnet"):
        models.create("fcn32s", 3, backbone="resnet50")
    with pytest.raises(InputError, match=r"fc_channels: expected a whole number of at least 1, found 0"):
        models.create("fcn32s", 3, fc_channels=0)
    with torch.device("meta"):
        parameters = sum(each.numel() for each in models.create("fcn32s", 21, backbone="alexnet").parameters())
    assert round(parameters / 1e6) == 57  # FCN-AlexNet in table 1
