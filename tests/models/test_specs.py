"""What the entries of MODELS say of themselves: names, options, sources, the number of their parameters."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
import torch

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import Counted, DenseOutput
from segpipe.types import Task

K = 4
ROOM = Path(models.__file__).parent
SUPPORT = {"__init__", "spec", "pretrained", "start"}
_NO_PAPER = "a baseline put together here, of which no paper prints numbers on any of these datasets"
UNPUBLISHED = {
    "fcn_mobilenet_v3_large": "torchvision has no such network, and no other README.md was found to print it",
    "hrnet_w32": "the authors print W18, W40 and W48 for pixels, and MMSegmentation W18 and W48",
    "hrnet_pose_tiny": "a small form of this project, for tests and laptops",
    "colour_thresholds": _NO_PAPER,
    "kmeans": _NO_PAPER,
    "spectral_superpixels": _NO_PAPER,
    "watershed": _NO_PAPER,
    "graph_cut": _NO_PAPER,
    "grabcut": "no text of its paper's table, or of another's, was found that could be read",
}
every_architecture = pytest.mark.parametrize("name", models.names())
every_dense_network = pytest.mark.parametrize(
    "name", [name for name, spec in models.MODELS.items() if spec.output is DenseOutput and spec.learns_by == "descent"]
)


@pytest.mark.parametrize(
    ("name", "counted"),
    [(name, counted) for name, spec in models.MODELS.items() for counted in spec.counted],
    ids=lambda value: value if isinstance(value, str) else value.source[:40],
)
def test_it_has_as_many_parameters_as_others_count(name: str, counted: Counted) -> None:
    with torch.device("meta"):
        model = models.create(name, counted.num_classes, **counted.options)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.parameters
    assert counted.source


@every_dense_network
def test_somebody_else_counts_its_parameters(name: str) -> None:
    assert models.spec(name).counted, f"{name}: say in `counted` how many a paper or a reference has, or add them up"


@every_architecture
def test_the_spec_says_what_the_model_is(name: str) -> None:
    spec = models.spec(name)
    assert spec.name == name
    assert {spec.task, *spec.also} <= set(Task)
    assert spec.task not in spec.also
    # What was printed before there was arXiv is found by its journal or conference.
    assert re.search(r", \d{4}, (arXiv:\d{4}\.\d{4,5}|[A-Z][\w ]+( \d+\(\d+\))?)$", spec.paper), spec.paper
    assert spec.differs
    assert all(len(text) > 20 for text in spec.differs)
    assert spec.size_divisor >= 1
    with torch.device("meta"):
        assert set(spec.subsampled) <= models.create(name, K, **spec.tiny).state_dict().keys()
    for number in spec.published:
        assert number.source
        assert number.protocol
        assert 0 < number.value <= 1, "published numbers are shares, as ours are"


def test_somebody_printed_a_number_of_it_or_it_is_said_why_not() -> None:
    assert {name for name, spec in models.MODELS.items() if not spec.published} == UNPUBLISHED.keys()


@every_architecture
def test_options_written_out_mean_the_same_as_left_out(name: str) -> None:
    defaults = dict(models.spec(name).options)
    assert models.complete(name, {}) == models.complete(name, defaults) == defaults
    for option in defaults:
        assert models.complete(name, {option: defaults[option]}) == defaults
    known = f"known, .*: .*{next(iter(defaults))}=" if defaults else "it has none"
    with pytest.raises(InputError, match=rf"{name}: unknown option 'surprise'; {known}"):
        models.complete(name, {"surprise": 1})


def test_every_file_of_the_room_is_in_the_table() -> None:
    known = {spec.build.__module__ for spec in models.MODELS.values() if hasattr(spec.build, "__module__")}
    known |= {
        spec.build.func.__module__ for spec in models.MODELS.values() if isinstance(spec.build, functools.partial)
    }
    for file in sorted(ROOM.glob("*.py")):
        if file.stem in SUPPORT:
            continue
        module = f"segpipe.models.{file.stem}"
        assigned = {
            target.id
            for statement in ast.parse(file.read_text()).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        assert assigned & {"SPEC", "SPECS"}, f"{file.name} describes no architecture: it needs a SPEC = ModelSpec(...)"
        assert module in known, f"{file.name} is not in MODELS: add the line `{file.stem}.SPEC,` to models/__init__.py"


def test_names_are_listed_by_task() -> None:
    assert models.names() == list(models.MODELS)
    assert models.names(Task.SEMANTIC) == models.names("semantic")
    assert {name for task in Task for name in models.names(task)} == set(models.names())
    assert [task for task in Task if "mask2former" in models.names(task)] == ["semantic", "instance", "panoptic"]
    assert "unet" in models.names("semantic")
    assert "mask_rcnn" in models.names("instance")
    with pytest.raises(InputError, match=r"unknown 'senantic'.*semantic, instance"):
        models.names("senantic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unett", 3, {}), r"unknown 'unett'; did you mean 'unet'\?.*fcn_resnet50.*deeplab_v3plus"),
        (("unet", 3, {"backbon": "resnet18"}), r"unet: unknown option 'backbon'.*backbone='resnet34'.*head_stride=1"),
        (("unet", 3, {"backbone": "resnet19"}), r"unknown 'resnet19'; did you mean 'resnet18'\?.*mobilenet_v3_large"),
        (("unet", 3, {"backbone": 18}), r"unet: option backbone: expected str, found 18"),
        (("unet", 3, {"head_stride": 3}), r"head_stride: 3 is not one of 1, 2, 4"),
        (("unet", 3, {"width": 0}), r"width: expected a whole number of at least 1, found 0"),
        (("fcn_resnet18", 3, {"aux": "yes"}), r"option aux: expected bool, found 'yes'"),
        (("fcn_resnet18", 3, {"output_stride": 4}), r"output_stride: 4 is not one of 8, 16, 32"),
        (("deeplab_v3plus", 3, {"output_stride": 32}), r"output_stride: 32 is not one of 8, 16"),
        (("deeplab_v3plus", 3, {"channels": -1}), r"channels: expected a whole number of at least 1, found -1"),
        (("unet", 0, {}), r"num_classes: expected a whole number of at least 1, found 0"),
        (("unet", True, {}), r"num_classes: .* found True"),
        (("unet", 3, {"in_channels": 1.5}), r"in_channels: .* found 1.5"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_named_with_what_was_expected(arguments: tuple[str, int, dict], message: str) -> None:
    name, num_classes, options = arguments
    with pytest.raises(InputError, match=message):
        models.create(name, num_classes, **options)
