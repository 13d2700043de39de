"""Recipes: overrides of the command line, `--set KEY.PATH=VALUE`."""

import copy
import re
from typing import Any

import pytest

from segpipe.config import Recipe
from tests.fixtures.recipes import MINIMAL, recipe_with, refusal


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=7", "train.epochs", 7),
        ("train.augment.crop=[32, 48]", "train.augment.crop", [32, 48]),
        ("architectures.0.options.backbone=resnet18", "architectures.0.options.backbone", "resnet18"),
        ("architectures.1.train.learning_rate=1e-2", "architectures.1.train.learning_rate", 0.01),
        ("evaluate.split=val", "evaluate.split", "val"),
        ("description=a=b", "description", "a=b"),
        ('description=""', "description", ""),
        ("train.patience=null", "train.patience", None),
        ("architectures=[{arch: unet}]", "architectures", [{"arch": "unet"}]),
    ],
)
def test_an_override_is_the_same_as_writing_it(override: str, path: str, value: Any) -> None:
    before = copy.deepcopy(MINIMAL)
    assert Recipe.parse(MINIMAL, origin="a", overrides=(override,)) == Recipe.parse(
        recipe_with(path, value), origin="b"
    )
    assert before == MINIMAL, "the caller's document is left alone"


def test_the_last_override_of_a_key_counts_and_an_empty_section_is_filled() -> None:
    document = {**MINIMAL, "evaluate": {}}
    recipe = Recipe.parse(document, origin="my.yaml", overrides=("evaluate.split=val", "evaluate.split=train"))
    assert recipe.evaluate.split == "train"
    assert "evaluate: Input should be an object" in refusal({**MINIMAL, "evaluate": None})
    emptied = Recipe.parse({**MINIMAL, "evaluate": None}, origin="my.yaml", overrides=("evaluate.split=val",))
    assert emptied.evaluate.split == "val"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "expected KEY=VALUE, for example train.epochs=3"),
        ("=3", "expected KEY=VALUE"),
        ("name.first=x", "'first' lies below a plain value"),
        ("name.first.second=x", "'first' lies below a plain value"),
        ("architectures.2.arch=unet", "expected an index below 2, found '2'"),
        ("architectures.-1.arch=unet", "expected an index below 2, found '-1'"),
        ("architectures.².arch=unet", "expected an index below 2, found '²'"),
        ("architectures.first=unet", "expected an index below 2, found 'first'"),
        ("train.augment.crop=[32,", "not valid YAML"),
        ("dataset.options={a: 1, a: 2}", "the key 'a' is given twice"),
        ("train.epochs=" + "[" * 3000, "nested too deeply"),
    ],
)
def test_a_faulty_override_is_named(override: str, message: str) -> None:
    found = refusal(MINIMAL, override)
    assert message in found
    assert found.startswith(f"--set {override!r}")


@pytest.mark.parametrize("override", ["train.epochz=3", "train..epochs=3", "trian.epochs=3"])
def test_an_override_of_an_unknown_key_is_refused_as_in_the_file(override: str) -> None:
    assert re.search(r"unknown key; (did you mean '\w+'\? )?expected one of", refusal(MINIMAL, override))


def test_overrides_of_one_architecture_leave_the_others_alone() -> None:
    document = recipe_with("architectures.0.train", {"epochs": 9, "augment": {"flip": 0.0}})
    document["architectures"][0]["label"] = "long"
    recipe = Recipe.parse(document, origin="my.yaml")
    first, second = recipe.run_config(0), recipe.run_config(1)
    assert (first.label, first.train.epochs, first.train.augment.flip) == ("long", 9, 0.0)
    assert first.train.augment.crop == (64, 96), "what the override does not name stays"
    assert (second.label, second.train) == ("deeplab_v3plus", recipe.train)
    assert second.options == {"backbone": "resnet18"}
