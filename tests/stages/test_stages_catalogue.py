"""What `segpipe list` shows."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from segpipe.errors import InputError
from segpipe.models import MODELS
from segpipe.sources import SOURCES
from segpipe.stages import catalogue
from segpipe.tasks import TASKS
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


@pytest.mark.parametrize(
    ("entries", "names", "fields"),
    [
        (catalogue.models, list(MODELS), {"task", "tasks", "paper", "options", "differs", "published"}),
        (catalogue.sources, list(SOURCES), {"tasks", "summary", "licence", "options", "layout", "known_bad"}),
        (catalogue.tasks, [str(task) for task in TASKS], {"primary", "needs", "models"}),
    ],
    ids=["models", "sources", "tasks"],
)
def test_everything_there_is_to_choose_from_as_plain_data(
    entries: Callable[[], list[dict[str, Any]]], names: list[str], fields: set[str]
) -> None:
    found = entries()
    assert [entry["name"] for entry in found] == names
    assert all(set(entry) == fields | {"name"} for entry in found)
    assert json.loads(json.dumps(found)) == found


def test_one_source_is_told_in_full() -> None:
    found = catalogue.source("cityscapes")
    (listed,) = (entry for entry in catalogue.sources() if entry["name"] == "cityscapes")
    assert {key: option["default"] for key, option in found["options"].items()} == listed["options"]
    assert found["options"]["segments"]["type"] == "bool"
    assert "instanceIds" in found["options"]["segments"]["help"]
    assert found["expected"] == {"train": 2975, "val": 500}
    assert {**found, "options": listed["options"]} == {**listed, "expected": found["expected"]}
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(InputError, match=r"unknown source format 'cityscape'; did you mean 'cityscapes'\?"):
        catalogue.source("cityscape")


def test_one_architecture_is_told_in_full() -> None:
    options = {"backbone": "resnet18", "multi_grid": [1, 1]}
    found = catalogue.model("deeplab_v3", options, num_classes=3, size=(64, 96), runs=0)
    (listed,) = (entry for entry in catalogue.models() if entry["name"] == "deeplab_v3")
    assert {key: found[key] for key in listed} == listed
    assert set(found) - set(listed) == {"counted", "drawing", "profile"}
    assert "3x3, rate 6 or 12" in found["drawing"]
    profile = found["profile"]
    assert (profile["name"], profile["num_classes"], profile["size"]) == ("deeplab_v3", 3, [64, 96])
    assert profile["options"] == {**listed["options"], **options}
    assert profile["latency_seconds"] is None
    assert {"parameters", "multiply_adds", "inference_bytes", "training_bytes", "receptive_field"} <= set(profile)
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(InputError, match=r"unknown 'deeplabv3'; did you mean 'deeplab_v3'\?"):
        catalogue.model("deeplabv3", {}, num_classes=3, size=(64, 96), runs=0)


def test_a_task_lists_its_models_and_what_it_needs() -> None:
    semantic = next(entry for entry in catalogue.tasks() if entry["name"] == "semantic")
    assert (semantic["primary"], semantic["needs"]) == ("miou", ["label_map"])
    assert {"unet", "deeplab_v3plus", "fcn_resnet50"} <= set(semantic["models"])


def test_a_version_is_named_in_full(shapes: Shapes) -> None:
    assert catalogue.dataset_version(shapes.data) == shapes.version
    assert catalogue.dataset_version(shapes.data, shapes.version[:8]) == shapes.version
    with pytest.raises(InputError, match="expected 8 to 64 hex digits"):
        catalogue.dataset_version(shapes.data, shapes.version[:7])
    with pytest.raises(InputError, match="no dataset here"):
        catalogue.dataset_version(f"{shapes.data}/nowhere")
