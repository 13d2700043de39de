"""Grids of a recipe: a matrix of encoders and decoders in one entry."""

from typing import Any

import pytest

from segpipe.config import Recipe
from segpipe.errors import InputError
from tests.fixtures.recipes import MINIMAL, recipe_with


def parsed(*entries: dict[str, Any]) -> Recipe:
    return Recipe.parse(recipe_with("architectures", list(entries)), origin="my.yaml")


def test_every_combination_is_an_entry_of_its_own() -> None:
    grid = {"arch": ["unet", "deeplab_v3plus"], "options.backbone": ["resnet18", "resnet34"]}
    recipe = parsed({"arch": "fcn_resnet18"}, {"grid": grid, "train": {"epochs": 2}})
    assert [(run.arch, run.label, run.options) for run in recipe.run_configs()] == [
        ("fcn_resnet18", "fcn_resnet18", {}),
        ("unet", "unet-resnet18", {"backbone": "resnet18"}),
        ("unet", "unet-resnet34", {"backbone": "resnet34"}),
        ("deeplab_v3plus", "deeplab_v3plus-resnet18", {"backbone": "resnet18"}),
        ("deeplab_v3plus", "deeplab_v3plus-resnet34", {"backbone": "resnet34"}),
    ]
    assert [run.train.epochs for run in recipe.run_configs()] == [3, 2, 2, 2, 2]
    written_out = recipe.model_dump(mode="json")
    assert Recipe.parse(written_out, origin="x").model_dump(mode="json") == written_out
    assert Recipe.parse(written_out, origin="x").run_configs() == recipe.run_configs(), "it is the same recipe"


def test_values_of_the_entry_stand_beside_those_of_the_grid() -> None:
    entry = {
        "arch": "unet",
        "label": "mine",
        "options": {"width": 8},
        "grid": {"options.backbone": ["resnet18"], "train.learning_rate": [0.01, 1e-3], "train.augment.flip": [0.0]},
    }
    first, second = parsed(entry).run_configs()
    assert (first.label, second.label) == ("mine-resnet18-0_01-0_0", "mine-resnet18-0_001-0_0")
    assert first.options == {"width": 8, "backbone": "resnet18"}
    assert (first.train.learning_rate, second.train.learning_rate, first.train.augment.flip) == (0.01, 0.001, 0.0)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], r"architectures.0.grid: expected keys with lists of values"),
        ({}, r"architectures.0.grid: expected keys with lists of values"),
        ({"options.backbone": "resnet18"}, r"grid.options.backbone: expected a list of values \(found 'resnet18'\)"),
        ({"options.backbone": []}, r"grid.options.backbone: expected a list of values \(found \[\]\)"),
        ({"label": ["a"]}, r"grid.label: expected arch, pretrained, options.NAME or train.KEY"),
        ({"arch": ["unet"]}, r"grid.arch: the entry has a value of its own for it"),
        ({"arch.x": [1]}, r"grid.arch.x: arch of the entry is 'unet', not keys with values"),
        ({"options.width": list(range(201))}, r"grids make more than 200 entries"),
        (
            {"options": ["resnet18"]},
            r"^my.yaml: 1 fault in the recipe\n  architectures.0.options \(grid: options resnet18\): Input should be",
        ),
        (
            {"options.backbone": ["a b", "a_b"]},
            r"architectures.0 \(grid: options.backbone a b\) and architectures.0 \(grid: "
            r"options.backbone a_b\) are labelled 'unet-a_b': give each a different `label`",
        ),
    ],
)
def test_what_is_no_grid_is_said(grid: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed({"arch": "unet", "grid": grid})


def test_recipes_without_a_grid_are_left_as_they_are() -> None:
    assert Recipe.parse(MINIMAL, origin="my.yaml").run_configs()[0].label == "unet"
    with pytest.raises(InputError, match=r"architectures: Input should be a valid"):
        Recipe.parse(recipe_with("architectures", 3), origin="my.yaml")


def test_faults_of_a_grids_entries_name_what_stands_in_the_file() -> None:
    grid = {"options.backbone": ["resnet18", "resnet34"], "train.epochs": [1, -1]}
    with pytest.raises(InputError) as caught:
        parsed({"arch": "fcn_resnet18"}, {"arch": "unet", "grid": grid}, {"arch": "fpn", "train": {"epochs": 0}})
    places = [line.strip().split(": ", 1)[0] for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert places == [
        "architectures.1.train.epochs (grid",
        "architectures.1.train.epochs (grid",
        "architectures.2.train.epochs",
    ]
    assert "architectures.1.train.epochs (grid: options.backbone resnet34, train.epochs -1): Input" in str(caught.value)


def test_a_label_of_a_grids_entry_that_is_taken_is_told_with_both() -> None:
    with pytest.raises(InputError, match=r"architectures.0 and architectures.1 \(grid: options.width 8\) are labelled"):
        parsed({"arch": "unet", "label": "unet-8"}, {"arch": "unet", "grid": {"options.width": [4, 8]}})
