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
