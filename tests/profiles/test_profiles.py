"""The profile of any architecture: there is one for each line of MODELS, with its figure."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput, RegionOutput
from segpipe.profiles import drawing, profile
from segpipe.profiles.fields import fields_of

# One of those that are built alike, since they cost and are read alike.
KINDS_OF_BUILD = {
    spec.build.func if isinstance(spec.build, functools.partial) else spec.build: name
    for name, spec in models.MODELS.items()
}


@pytest.mark.parametrize("name", list(KINDS_OF_BUILD.values()))
def test_every_architecture_has_one(name: str) -> None:
    spec = models.spec(name)
    found = profile(name, 3, size=(64, 96), runs=0, **spec.tiny)
    assert (found.name, found.num_classes, found.size) == (name, 3, (64, 96))
    assert found.options == models.complete(name, spec.tiny)
    assert found.latency_seconds is None
    if spec.learns_by != "descent":
        assert (found.parameters, found.multiply_adds, found.flops) == (0, None, None)
        assert found.not_followed == ("it is no network",)
        return
    assert 0 < found.trainable_parameters <= found.parameters
    assert found.multiply_adds is not None
    assert found.inference_bytes is not None
    assert found.training_bytes is not None
    assert found.multiply_adds > 0
    assert 4 * found.parameters < found.inference_bytes < found.training_bytes
    if spec.output is RegionOutput:
        assert found.field_of_view is None
        assert found.not_followed[-1] == "the answer is no map"
    if spec.output is DenseOutput and found.field_of_view is not None and found.receptive_field is not None:
        assert all(answer >= cell for answer, cell in zip(found.field_of_view, found.receptive_field, strict=True))


@pytest.mark.parametrize("name", models.names())
def test_every_architecture_has_a_figure(name: str) -> None:
    figure = drawing(models.spec(name))
    assert figure, "the file of an architecture opens with a drawing of it, indented by four spaces"
    assert not figure.startswith("\n")


def test_fields_of_known_networks() -> None:
    """ResNet-34 of a U-Net: 7 x 7, pooling, and 6, 8, 12, 6 convolutions of 3 x 3, the first of a stage strided."""
    found = profile("unet", 2, size=(64, 64), runs=0)
    jumps = [4] * 6 + [4] + [8] * 7 + [8] + [16] * 11 + [16] + [32] * 5
    assert found.receptive_field == (11 + 2 * sum(jumps),) * 2 == (899, 899)
    assert profile("deeplab_v3", 2, size=(64, 64), runs=0, backbone="resnet18").field_of_view is None, "image pooling"
    dilated = profile("fcn_resnet50", 2, size=(64, 64), runs=0)
    assert dilated.receptive_field == (427, 427)
    # One 3 x 3 at stride 8 behind it, and the two cells that a pixel lies between.
    assert dilated.field_of_view == (427 + 2 * 8 + 8,) * 2


@pytest.mark.parametrize(
    ("name", "decoder", "pooled"),
    [
        # What the 3 x 3 convolutions of each stage of the decoder add, finest first; VGG-16 sees 212.
        ("segnet", (4, 4, 6, 6, 6), 212),
        # One of 7 x 7 each, as the four of the encoder: 1 + 6 (1 + 2 + 4 + 8), and as many poolings.
        ("segnet_basic", (6, 6, 6, 6), 106),
        # Two of 3 x 3 in each of four stages on either side and at the bottom.
        ("unet_valid", (4, 4, 4, 4), 140),
    ],
)
def test_fields_of_networks_that_unpool_or_mirror(name: str, decoder: tuple[int, ...], pooled: int) -> None:
    """Of n cells that are needed, unpooling by two needs n // 2 + 1, as they may begin with the second of a pair."""
    cells = 1
    for more in decoder:
        cells = (cells + more) // 2 + 1
    seen = pooled + (cells - 1) * 2 ** len(decoder)
    found = fields_of(name, 2, {})
    assert (found.receptive_field, found.field_of_view) == ((pooled, pooled), (seen, seen))
    assert found.not_followed == ()


@pytest.mark.parametrize(("name", "cell", "window"), [("patch_classifier", 63, 95), ("rcnn_pinheiro", 23, 155)])
def test_fields_of_networks_that_scan_are_their_papers_windows(name: str, cell: int, window: int) -> None:
    found = fields_of(name, 2, {})
    assert (found.receptive_field, found.field_of_view) == ((cell, cell), (window, window))
    assert found.not_followed == ()


def test_options_change_what_is_counted() -> None:
    coarse, fine = (profile("fcn_resnet18", 2, size=(512, 512), runs=0, output_stride=stride) for stride in (32, 8))
    assert coarse.parameters == fine.parameters
    assert (coarse.multiply_adds or 0) < (fine.multiply_adds or 0)
    assert (coarse.training_bytes or 0) < (fine.training_bytes or 0)


def test_passes_are_timed_where_asked_for() -> None:
    found = profile("unet", 2, size=(32, 32), runs=2, backbone="resnet18", width=4)
    assert found.latency_seconds is not None
    assert found.latency_seconds > 0
    assert (found.latency_runs, found.threads >= 1) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (31, 64)}, r"size: \(31, 64\); expected \(height, width\), each a whole number of 32 to 8192 pixels"),
        ({"size": (64, 64.0)}, r"size: \(64, 64.0\); expected"),
        ({"size": (64,)}, r"size: \(64,\); expected"),
        ({"runs": -1}, r"runs: -1; expected 0 or a whole number"),
        ({"num_classes": 0}, r"num_classes: expected a whole number of at least 1, found 0"),
        ({"depth": 3}, r"unet: unknown option 'depth'"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], message: str) -> None:
    given = {"num_classes": 2, "size": (64, 64), "runs": 0, **arguments}
    with pytest.raises(InputError, match=message):
        profile("unet", **given)
