"""The contract that every architecture of MODELS inherits by being in the table."""

from __future__ import annotations

import copy
import functools
import io
import re
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts import upsampling
from segpipe.models.parts.memory_format import to_channels_last
from segpipe.models.spec import DenseOutput
from segpipe.types import Task
from tests.fixtures.model_kinds import KINDS, Kind

K = 4
SIZES = [(1, 1), (1, 6), (7, 1), (33, 65), (375, 500)]
WIDE = (64, 96)  # whose maps of stride 32 are of several cells
# Of a parameter's gradient in bfloat16, as a share of its own length: 0.65 was seen (the second pass of a small FPN),
# 0.44 elsewhere; what has nothing to do with it is 1 or more from it. Lengths below the second number, of the longest
# one, are rounding themselves.
GRADIENT_ERROR, LEAST_LENGTH = 0.8, 1e-4
BACKBONES = ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_large", "vgg16_slim", "vgg16_bn_slim"]
# Those of more than LARGEST_KEPT parameters, each with a group of its own: the tests of one follow each other on one
# worker, which makes it once and keeps no other. All four would fill 0.7 GB of the memory of each.
LARGEST, LARGEST_KEPT = ("hrnet_pose_w48", "fcn_resnet101", "fcn_resnet50", "hrnet_pose_w32"), 25_000_000


def every(names: Iterable[str]) -> pytest.MarkDecorator:
    """A test of each of these architectures."""
    large = {name: pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in LARGEST}
    return pytest.mark.parametrize("name", [large.get(name, name) for name in names])


DENSE = [name for name, spec in models.MODELS.items() if spec.output is DenseOutput]
# What descends on a loss has parameters, a graph of operations and a backbone; all others have none of these.
OF = {way: [name for name, spec in models.MODELS.items() if spec.learns_by == way] for way in ("descent", "counting")}
every_architecture = every(models.names())
every_descending = every(OF["descent"])
every_counting = every(OF["counting"])
every_other = every(name for name in models.names() if name not in OF["descent"])
every_dense = every(DENSE)
every_dense_network = every(name for name in DENSE if name in OF["descent"])


class Logits(nn.Module):
    """A dense model whose answer is tensors alone: `torch.export` knows no types of ours."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        output = self.model(images_NCHW)
        return (output.logits_NKHW, *output.aux.values())


kept: dict[str, nn.Module] = {}


def ready(name: str) -> nn.Module:
    """One model per architecture, made once and kept, but for the largest ones; tests that change a model copy it."""
    if name in LARGEST:
        return made(name)
    if name not in kept:
        kept[name] = made(name)
        numbers = sum(parameter.numel() for parameter in kept[name].parameters())
        assert numbers <= LARGEST_KEPT, f"{name}: {numbers} parameters; name it in LARGEST"
    return kept[name]


@functools.lru_cache(maxsize=1)  # a test that asks twice is given the same
def made(name: str) -> nn.Module:
    """Scores that start at zero get other numbers: of zeros any two answers are equal."""
    torch.manual_seed(0)
    model = models.create(name, K, **tiny(name)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


@functools.cache
def kind_of(name: str) -> Kind:
    with torch.no_grad():
        output = ready(name)(images(1, 1))
    assert type(output) is models.spec(name).output
    assert type(output) in KINDS, f"{name}: returns {type(output)}; say in KINDS what is to hold of it"
    return KINDS[type(output)]


def rows_of(name: str, num_classes: int = K) -> int:
    """Of the classes; a dense model of objects also says what is background."""
    background = models.spec(name).task is Task.INSTANCE and kind_of(name) is KINDS[DenseOutput]
    return num_classes + background


def images(height: int, width: int, *, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


def tiny(name: str) -> dict[str, object]:
    """The smallest member has all the parts, and two cores need not wait for it."""
    return dict(models.spec(name).tiny)


@every_architecture
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_the_output_fits_an_image_of_any_size(name: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        kind_of(name).check(ready(name)(images(*size)), images(*size), rows_of(name))


@every_descending
@pytest.mark.parametrize("size", [(1, 1), WIDE], ids=lambda size: "x".join(map(str, size)))
def test_one_training_step_on_one_image_reaches_every_parameter(name: str, size: tuple[int, int]) -> None:
    """Where no map is a single cell, of which a norm leaves nothing, the gradients are not zero either."""
    model = copy.deepcopy(ready(name)).train()
    loss = kind_of(name).loss
    assert loss is not None
    torch.manual_seed(1)
    loss(model, images(*size)).backward()
    lacking = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert lacking == []
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    if size == WIDE:
        assert [key for key, parameter in model.named_parameters() if not parameter.grad.any()] == []


@every_architecture
def test_train_and_eval_return_the_same_fields(name: str) -> None:
    with torch.no_grad():
        evaluated = ready(name)(images(20, 30, batch=2))
        trained = copy.deepcopy(ready(name)).train()(images(20, 30, batch=2))
    assert type(trained) is type(evaluated)
    assert kind_of(name).tensors(trained).keys() == kind_of(name).tensors(evaluated).keys()
    kind_of(name).check(trained, images(20, 30, batch=2), rows_of(name))


@every_architecture
def test_evaluation_is_deterministic_and_independent_of_neighbours_and_memory_format(name: str) -> None:
    model, batch, tensors = ready(name), images(33, 40, batch=2), kind_of(name).tensors
    with torch.no_grad():
        first, again = tensors(model(batch)), tensors(model(batch))
        alone = tensors(model(batch[1:]))
        last = tensors(model(batch.to(memory_format=torch.channels_last)))
    assert all(torch.equal(first[key], again[key]) for key in first)
    for key, value in first.items():
        # Rounding grows with the depth of a network whose norms are still idle, and with the size of its logits.
        tolerance = {"rtol": 0, "atol": 1e-4 * float(value.abs().max()) if value.numel() else 0}
        torch.testing.assert_close(last[key], value, **tolerance)
        if key.startswith("1."):  # what was found in the second image
            torch.testing.assert_close(alone[key.replace("1.", "0.", 1)], value, **tolerance)
        elif not key.startswith("0."):
            torch.testing.assert_close(alone[key], value[1:], **tolerance)


@every_architecture
@pytest.mark.parametrize("num_classes", [1, 2, 19, 150])
def test_any_number_of_classes(name: str, num_classes: int) -> None:
    model = models.create(name, num_classes, **tiny(name)).eval()
    with torch.no_grad():
        kind_of(name).check(model(images(17, 33)), images(17, 33), rows_of(name, num_classes))


class Places:
    """Poolings that find in half precision the places that they found in the exact run before it.

    Rounding may make another cell of a pooling its maximum, and what is unpooled there moves by a cell: right, and no
    small difference.
    """

    def __init__(self) -> None:
        self.find = upsampling.pool_with_places
        self.kept: list[Tensor] = []
        self.again = False

    def begin(self, *, again: bool) -> None:
        self.again = again
        if not again:
            self.kept.clear()

    def __call__(self, maps_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        pooled, switches = self.find(maps_NCHW)
        if not self.again:
            self.kept.append(switches)
            return pooled, switches
        switches = self.kept.pop(0)
        return maps_NCHW.flatten(2).gather(2, switches.flatten(2)).reshape(switches.shape), switches


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    kept = Places()
    monkeypatch.setattr(upsampling, "pool_with_places", kept)
    return kept


@every_architecture
def test_half_precision_says_nearly_the_same(name: str, places: Places) -> None:
    """As training and served models run on hardware that has it."""
    tensors = kind_of(name).tensors
    with torch.no_grad():
        places.begin(again=False)
        exact = tensors(ready(name)(images(33, 65)))
        places.begin(again=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = tensors(ready(name)(images(33, 65)))
    assert half.keys() == exact.keys()
    assert all(bool(value.float().isfinite().all()) for value in half.values())
    if kind_of(name) is KINDS[DenseOutput]:
        scale = float(exact["logits"].abs().max())
        torch.testing.assert_close(half["logits"].float(), exact["logits"], rtol=0, atol=0.1 * scale)


@every_descending
def test_gradients_in_half_precision_are_nearly_the_same(name: str, places: Places) -> None:
    """In the memory's order that training has on a CPU; norms by their statistics, as those of few cells make much of
    rounding."""
    loss = kind_of(name).loss
    assert loss is not None
    lengths, errors = dict[str, float](), dict[str, float]()
    exact: dict[str, Tensor] = {}
    for half in (False, True):
        model, shown = copy.deepcopy(ready(name)), images(*WIDE)
        if half:
            to_channels_last(model, torch.device("cpu"), "bfloat16")
            shown = shown.to(memory_format=torch.channels_last)
        places.begin(again=half)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            value = loss(model, shown)
        value.backward()
        found = {key: parameter.grad for key, parameter in model.named_parameters()}
        if half:
            errors = {key: float((found[key] - exact[key]).norm()) for key in exact}
        else:
            exact, lengths = found, {key: float(gradient.norm()) for key, gradient in found.items()}
    known = [key for key, length in lengths.items() if length > LEAST_LENGTH * max(lengths.values())]
    assert {key: errors[key] / lengths[key] for key in known if not errors[key] < GRADIENT_ERROR * lengths[key]} == {}


@every_dense_network
def test_the_exported_model_says_the_same(name: str) -> None:
    plain = Logits(ready(name))
    with torch.no_grad():
        program = torch.export.export(plain, (images(33, 65),))
        torch.testing.assert_close(program.module()(images(33, 65)), plain(images(33, 65)))


@every_dense
def test_the_whole_architecture_fits_an_image_of_any_size(name: str) -> None:
    """Shapes alone, of the architecture as it comes: nothing is computed."""
    with torch.device("meta"):
        model = models.create(name, K).eval()
        for height, width in ((33, 65), (375, 500)):
            assert model(torch.empty(1, 3, height, width)).logits_NKHW.shape == (1, rows_of(name), height, width)


@every_architecture
def test_weights_travel_as_a_plain_state_dict(name: str) -> None:
    model, file = ready(name), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = models.create(name, K, **tiny(name)).eval()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        theirs, ours = (kind_of(name).tensors(each(images(9, 9))) for each in (other, model))
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


@every_counting
def test_what_counts_learns_from_any_order_and_any_workers(name: str) -> None:
    """Its state are whole numbers that start from nothing and add up; pixels of other labels have no part in them."""
    shown, labels_NHW = images(20, 30, batch=3), torch.ones(3, 20, 30, dtype=torch.uint8)
    labels_NHW[:, :, 15:], labels_NHW[:, 4] = 2, 255
    one, *others = (models.create(name, K, **tiny(name)) for _ in range(3))
    assert list(one.parameters()) == []
    assert all(not each.is_floating_point() and not each.any() for each in one.state_dict().values())
    one.observe(shown, labels_NHW)
    others[0].observe(shown[[2]], labels_NHW[[2]])
    others[1].observe(shown[:2], labels_NHW[:2])
    summed = {key: value + others[1].state_dict()[key] for key, value in others[0].state_dict().items()}
    for key, value in one.state_dict().items():
        assert torch.equal(value, summed[key])
        assert int(value.sum()) == 3 * 19 * 30
    before = ready(name)(shown).logits_NKHW
    after = one(shown).logits_NKHW
    assert not torch.equal(before, after)
    one.load_state_dict(ready(name).state_dict())
    assert torch.equal(one(shown).logits_NKHW, before), "what was derived of other counts is forgotten"


@every_other
def test_what_does_not_descend_takes_no_weights_and_no_other_channels(name: str) -> None:
    assert list(models.create(name, K).parameters()) == []
    with pytest.raises(InputError, match=r"in_channels: 4: .* 3 channels alone"):
        models.create(name, K, in_channels=4)
    for refused in (
        lambda: models.check(name, {}, pretrained="DEFAULT"),
        lambda: models.create(name, K, pretrained="x"),
    ):
        with pytest.raises(InputError, match=f"pretrained: {name} has no weights.*; leave it out"):
            refused()
    for start in ((name, {}, "unet", {}), ("unet", {}, name, {})):
        with pytest.raises(InputError, match=f"start_from: {name} has no weights.*; leave it out"):
            models.check_start(*start)


@every_descending
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_input_channels(name: str, channels: int) -> None:
    model = models.create(name, 2, in_channels=channels, **tiny(name)).eval()
    with torch.no_grad():
        kind_of(name).check(model(images(8, 9, channels=channels)), images(8, 9), rows_of(name, 2))


@every_descending
def test_the_backbone_is_a_part_with_parameters_of_its_own(name: str) -> None:
    model = ready(name)
    backbone = {key for key, _ in model.named_parameters() if key.startswith("backbone.")}
    assert 0 < len(backbone) < len(list(model.parameters()))


@every_architecture
def test_the_same_seed_makes_the_same_weights(name: str) -> None:
    twice = []
    for _ in range(2):
        torch.manual_seed(3)
        twice.append(models.create(name, K, **tiny(name)).state_dict())
    assert all(torch.equal(value, twice[1][key]) for key, value in twice[0].items())


@pytest.mark.parametrize("name", ["unet", "deeplab_v3plus"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_in_every_architecture_that_takes_one(name: str, backbone: str) -> None:
    model = models.create(name, 2, backbone=backbone).eval()
    with torch.no_grad():
        assert model(images(17, 33)).logits_NKHW.shape == (1, 2, 17, 33)


def refused(name: str, backbone: str) -> str:
    """Why an architecture does not take a backbone; "" where it does."""
    try:
        models.check(name, {"backbone": backbone})
    except InputError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("name", [name for name in DENSE if "backbone" in models.spec(name).options])
@pytest.mark.parametrize("backbone", ["resnet50_deep", "mobilenet_v3_large", "xception_tiny"])
def test_a_backbone_of_each_family_fits_or_is_refused(name: str, backbone: str) -> None:
    """Shapes alone: nothing is computed. A refusal names the option that stands in the way."""
    if why := refused(name, backbone):
        assert re.match("backbone: |output_stride: ", why), why
        return
    with torch.device("meta"):
        model = models.create(name, K, backbone=backbone).eval()
        assert model(torch.empty(1, 3, 33, 65)).logits_NKHW.shape == (1, rows_of(name), 33, 65)
