"""Recipes: what is refused and how it is said."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from segpipe.config import Recipe, expand_root
from segpipe.errors import InputError
from tests.fixtures.recipes import MINIMAL, recipe_with, refusal

RECIPES = sorted((Path(__file__).parents[1] / "flows" / "recipes").glob("*.yaml"))


def load_refusal(tmp_path: Path, content: str | bytes, *overrides: str) -> str:
    path = tmp_path / "my.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        Recipe.load(path, overrides)
    assert str(path) in str(caught.value) or overrides
    return str(caught.value)


def test_the_minimal_recipe_gets_the_documented_defaults() -> None:
    recipe = Recipe.parse(MINIMAL, origin="my.yaml")
    assert recipe.train.augment.crop == (64, 96)
    assert (recipe.train.seed, recipe.train.optimizer, recipe.train.schedule) == (0, "adamw", "poly")
    assert (recipe.evaluate.split, recipe.resources.workers, recipe.promote.margin) == ("test", 1, 0.0)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid_and_survives_being_written_out(path: Path) -> None:
    recipe = Recipe.load(path)
    again = Recipe.parse(yaml.safe_load(recipe.to_yaml()), origin="again")
    assert again.model_dump() == recipe.model_dump(), "all but where a grid's entries stood"
    assert again.run_configs() == recipe.run_configs()
    assert path.read_text().startswith("#"), "the head comment says hypothesis and sources"


def test_an_architecture_may_have_another_loss_and_not_further_terms_of_the_common_one() -> None:
    document = recipe_with("train.loss", {"cross_entropy": 1.0, "dice": {"weight": 0.5, "smooth": 1.0}})
    document["architectures"][1]["train"] = {"loss": {"focal": {"gamma": 3}}}
    common, own = (run.train.loss for run in Recipe.parse(document, origin="my.yaml").run_configs())
    assert {name: term.weight for name, term in common.terms.items()} == {"cross_entropy": 1.0, "dice": 0.5}
    assert own.model_dump() == {"focal": {"weight": 1.0, "gamma": 3.0, "alpha": None}}


BOTH = {"ensemble": ["deeplab_v3plus", "unet"], "label": "both"}


def test_a_budget_needs_what_its_rungs_are_laid_out_by_and_names_no_other_run() -> None:
    recipe = Recipe.parse(MINIMAL, origin="my.yaml", overrides=("budget.hours=2",))
    assert recipe.budget is not None
    assert (recipe.budget.hours, recipe.budget.keep, recipe.budget.first_rung) == (2, 0.5, 0.1)
    assert recipe.run_configs() == Recipe.parse(MINIMAL, origin="my.yaml").run_configs()
    untried = {**MINIMAL, "budget": {"hours": 2.0}, "rehearsal": {"seconds": 0.0}}
    assert "rehearsal.seconds is 0: raise it, or leave the budget out" in refusal(untried)
    staged = recipe_with("budget", {"hours": 2.0})
    staged["architectures"].append({"arch": "unet", "label": "second", "start_from": "unet"})
    assert "architectures.2.start_from: it waits for the finished weights of unet" in refusal(staged)


def test_an_ensemble_is_a_run_with_its_members_and_comes_after_them() -> None:
    recipe = Recipe.parse({**MINIMAL, "architectures": [*MINIMAL["architectures"], BOTH]}, origin="my.yaml")
    unet, deeplab, both = recipe.run_configs()
    assert (both.awaits, unet.awaits) == (("deeplab_v3plus", "unet"), ())
    assert (both.arch, both.label, both.members) == ("ensemble", "both", (deeplab, unet))
    assert both.identity["members"] == [deeplab.identity, unet.identity]
    assert "train" not in both.identity
    assert Recipe.parse(yaml.safe_load(recipe.to_yaml()), origin="again") == recipe
    without = Recipe.parse(MINIMAL, origin="my.yaml")
    assert [run.digest for run in without.run_configs()] == [unet.digest, deeplab.digest]
    other = Recipe.parse(recipe.model_dump(mode="json"), origin="my.yaml", overrides=("architectures.0.train.seed=3",))
    assert other.run_config(2).digest != both.digest
    assert other.run_config(1).digest == deeplab.digest


@pytest.mark.parametrize("train", [{"input_scale": 0.5}, {"inference": {"mirror": True}}, {"sigmoid": True}])
def test_members_of_an_ensemble_see_images_alike(train: dict[str, Any]) -> None:
    first, second = MINIMAL["architectures"]
    document = {**MINIMAL, "architectures": [{**first, "train": train}, second, BOTH]}
    assert f"ensemble 'both': the mean is of logits for the same pixels, and train.{next(iter(train))}" in refusal(
        document
    )


def test_there_is_no_ensemble_of_objects() -> None:
    document = {**MINIMAL, "task": "instance", "architectures": [*MINIMAL["architectures"], BOTH]}
    assert "ensemble 'both': of task instance there is no mean; leave it out" in refusal(document)


def test_there_are_recipes_to_test() -> None:
    assert {path.stem for path in RECIPES} >= {"scenes", "camvid"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epochz", 3, "  train.epochz: unknown key; did you mean 'epochs'? expected one of: accumulate, augm"),
        ("learning_rate", 0.1, "  learning_rate: unknown key; expected one of: architectures, budget,"),
        (
            "architectures.1.backbone",
            "resnet18",
            "  architectures.1.backbone: unknown key; expected one of: arch, ensemble, label,",
        ),
        ("train.augment.size", [8, 8], "  train.augment.size: unknown key; expected one of: blur, blur_sigma, colour,"),
        ("train.epochs", ..., "  train.epochs: missing; this key is required"),
        ("dataset", ..., "  dataset: missing"),
        ("train.epochs", "3", "  train.epochs: Input should be a valid integer (found '3')"),
        ("train.epochs", 3.5, "  train.epochs: Input should be a valid integer"),
        ("train.epochs", True, "  train.epochs: Input should be a valid integer (found True)"),
        ("train.epochs", 0, "  train.epochs: Input should be greater than 0 (found 0)"),
        ("train.learning_rate", "fast", "  train.learning_rate: Input should be a valid number (found 'fast')"),
        ("train.learning_rate", float("nan"), "train.learning_rate: nan is not a number to work with"),
        ("train.learning_rate", float("-inf"), "train.learning_rate: -inf is not a number"),
        ("train.momentum", 0.8, "  train: momentum is sgd's, adamw would ignore it: leave it out"),
        ("train.class_weight_power", 0.5, "  train: class_weight_power without class weights does nothing"),
        (
            "architectures.0.arch",
            "",
            "  architectures.0: name an architecture as `arch`, or the labels of several ent",
        ),
        ("architectures.0.arch", "ensemble", "  architectures.0: name an architecture as `arch`, or the labels of s"),
        ("architectures.0.ensemble", ["a", "b"], "  architectures.0: an ensemble is of models that other entries desc"),
        ("architectures", [{"ensemble": ["a"]}], "  architectures.0: an ensemble is of two or more different entries"),
        ("architectures", [{"ensemble": ["a", "a"]}], "different entries, found ['a', 'a']"),
        (
            "architectures",
            [{"arch": "deeplab_v3plus"}, {"ensemble": ["deeplab_v3plus", "unet"], "label": "both"}],
            "architectures.1.ensemble: no entry above that is trained is labelled unet; there are: deeplab_v3plus",
        ),
        ("train.loss", {}, "  train.loss: without a term there is nothing to learn: name one of cross_entropy, boot"),
        ("train.loss", "dice", "  train.loss: expected terms with their weights, such as {dice: 1.0} (found 'dice')"),
        ("train.loss.dise", 1.0, "  train.loss.dise: unknown key; did you mean 'dice'? expected one of: bootstr"),
        ("train.loss.dice", 0, "  train.loss.dice.weight: Input should be greater than 0 (found 0)"),
        ("train.loss.dice", "much", "  train.loss.dice: Input should be an object (found 'much')"),
        ("train.loss.dice", {"gamma": 2}, "  train.loss.dice.gamma: unknown key; expected one of: per_image, smooth,"),
        ("train.loss.focal", {"alpha": 2}, "  train.loss.focal.alpha: Input should be less than or equal to 1 (found"),
        ("train.loss.tversky", {"alpha": 0, "beta": 0}, "  train.loss.tversky: alpha and beta are both 0, so that "),
        ("train.loss.bootstrapped_cross_entropy", 1, "  train.loss.bootstrapped_cross_entropy: without threshold and"),
        ("train.loss.bootstrapped_cross_entropy", {"top_k": 0}, ".top_k: Input should be greater than 0 (found 0)"),
        (
            "train",
            {**MINIMAL["train"], "loss": {"dice": 1, "lovasz": 1}, "class_weights": "enet"},
            "  train: class_weights is enet, and of the loss dice, lovasz no term knows of them (cross_entropy and ",
        ),
        (
            "train",
            {**MINIMAL["train"], "loss": {"focal": {"alpha": 0.25}}, "class_weights": "enet"},
            "  train: class_weights and the alpha of focal both weigh classes: leave one of them out",
        ),
        ("train.inference.window", {"size": [64]}, "  train.inference.window.size.1: missing; this key is required"),
        (
            "train.inference.window",
            {"size": [64, 0]},
            "  train.inference.window.size.1: Input should be greater than 0",
        ),
        (
            "train.inference.window",
            {"size": [64, 64], "overlap": 1},
            "  train.inference.window.overlap: Input should be less than or equal to 0.9 (found 1)",
        ),
        ("train.momentum", 1.5, "  train.momentum: Input should be less than or equal to 1 (found 1.5)"),
        ("train.optimizer", "adam", "  train.optimizer: Input should be 'sgd' or 'adamw' (found 'adam')"),
        ("train.augment.crop", [64], "  train.augment.crop.1: missing"),
        ("train.augment.crop", [64, 0], "  train.augment.crop.1: Input should be greater than 0 (found 0)"),
        ("train.augment.scale", [2.0, 0.5], "  train.augment: scale must be 0 < low <= high, got 2.0, 0.5"),
        ("train.augment.rotation", 181, "  train.augment.rotation: Input should be less than or equal to 180"),
        ("train.augment.elastic", -1, "  train.augment.elastic: Input should be greater than or equal to 0"),
        ("train.augment.copy_paste", 1.1, "  train.augment.copy_paste: Input should be less than or equal to 1"),
        ("train.augment.min_area", 0, "  train.augment.min_area: Input should be greater than 0 (found 0)"),
        ("train.augment.blur_sigma", [0, 1], "  train.augment: blur_sigma must be 0 < low <= high, got 0.0, 1.0"),
        ("train.augment.blur_sigma", [1, 2], "  train.augment: blur_sigma without blur does nothing: set blur or"),
        ("train.augment.keypoint_pairs", [[1, 2], [2, 3]], "  train.augment: keypoint_pairs must name each place once"),
        ("train.augment.keypoint_pairs", [[-1, 2]], "  train.augment: keypoint_pairs must name each place once"),
        ("train.augment", None, "  train.augment: Input should be an object (found None)"),
        ("train.channels_last", "yes", "  train.channels_last: Input should be a valid boolean (found 'yes')"),
        ("name", "My Recipe", "  name: String should match pattern"),
        ("name", "../../etc", "  name: String should match pattern"),
        ("dataset.name", "a/b", "  dataset.name: String should match pattern"),
        ("architectures", [], "  architectures: Tuple should have at least 1 item"),
        ("architectures.1.label", "unet", "architectures.0 and architectures.1 are labelled 'unet': give each a dif"),
        (
            "architectures.0.train.epochz",
            1,
            "  architectures.0.train.epochz: unknown key; did you mean 'epochs'? expected one of: accumulate,",
        ),
        ("architectures.1.train.epochs", "all", "  architectures.1.train.epochs: Input should be a valid integer"),
        (
            "architectures.0.train.augment.crop",
            3,
            "  architectures.0.train.augment.crop: Input should be a valid array",
        ),
        (
            "dataset.options.seed",
            [1],
            "  dataset.options.seed: Input should be text, a number, true or false (found [1])",
        ),
        ("dataset.max_quarantine", 2, "  dataset.max_quarantine: Input should be less than or equal to 1 (found 2)"),
        ("task", "instances", "  task: Input should be 'semantic', 'instance'"),
        ("evaluate.pictures", 65, "  evaluate.pictures: Input should be less than or equal to 64 (found 65)"),
        ("resources.gpus_per_worker", -1, "  resources.gpus_per_worker: Input should be greater than or equal to 0"),
        ("budget", {"keep": 0.5}, "  budget.hours: missing; this key is required"),
        ("budget", {"hours": 1.0, "keep": 1.0}, "  budget.keep: Input should be less than 1"),
        ("budget.hours", 0, "  budget.hours: Input should be greater than 0"),
        ("budget", {"hours": 1.0, "rungs": 3}, "  budget.rungs: unknown key; expected one of: first_rung, hours, keep"),
        ("description", b"bytes", "description: b'bytes' is a bytes; expected text or a number: quote it"),
        ("description", "half \ud800", "description: 'half \\ud800' holds half of a surrogate pair"),
        ("train", [], "  train: Input should be an object (found [])"),
    ],
)
def test_a_fault_is_named_by_path_value_and_expectation(path: str, value: Any, message: str) -> None:
    found = refusal(recipe_with(path, value))
    assert message in found
    assert found.startswith("my.yaml: ")


def test_every_fault_is_named_at_once() -> None:
    document = recipe_with("train.epochz", 1)
    document["name"], document["extra"] = 7, None
    document["dataset"]["options"] = {"a": {}, "b": []}
    found = refusal(document)
    assert found.splitlines()[0] == "my.yaml: 5 faults in the recipe"
    for path in ("name", "dataset.options.a", "dataset.options.b", "train.epochz", "extra"):
        assert f"\n  {path}: " in found


def test_faulty_overrides_of_all_architectures_are_named_at_once() -> None:
    document = recipe_with("architectures.0.train.epochs", -1)
    document["architectures"][1]["train"] = {"ema_decay": 1.0}
    found = refusal(document)
    assert "architectures.0.train.epochs" in found
    assert "architectures.1.train.ema_decay" in found


def test_a_long_value_is_shortened_in_the_message() -> None:
    assert len(refusal(recipe_with("train.epochs", "x" * 100_000))) < 300


@pytest.mark.parametrize("document", [None, [], "recipe", 7])
def test_a_recipe_is_a_mapping(document: Any) -> None:
    assert "a recipe is a mapping of keys to values" in refusal(document)


def test_keys_that_are_not_text_are_refused_by_path() -> None:
    assert "my.yaml: dataset.options: the key 1 is not text" in refusal(recipe_with("dataset.options", {1: "a"}))


def test_a_document_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    nested["again"] = nested
    assert "nested too deeply" in refusal(recipe_with("architectures.0.options", nested))


# --- the file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: a\ntask: semantic\nname: b\n", "line 3: the key 'name' is given twice; keep one"),
        ("train:\n  epochs: 1\n  epochs: 2\n", "line 3: the key 'epochs' is given twice"),
        ("name: [unclosed\n", "not valid YAML: while parsing a flow sequence"),
        ("name: 2024-13-45\n", "not valid YAML: month must be in 1..12"),
        ("name: 2024-11-05\n", "name: datetime.date(2024, 11, 5) is a date; expected text or a number: quote it"),
        ("on: 1\n", "line 1: the key True is not text; put it in quotes"),
        ("2: 1\n", "line 1: the key 2 is not text"),
        ("? [a, b]\n: 1\n", "line 1: the key ['a', 'b'] is not text"),
        ("seed: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor for the tag"),
        ("a: &a [x, x]\nb: [*a, *a]\n", "line 2: *a is an alias"),
        ("a: &a\n  b: *a\n", "line 2: *a is an alias"),
        ("[" * 5000, "nested too deeply"),
        (b"name: caf\xe9\n", "expected UTF-8 text: save the recipe as UTF-8"),
        ("name: \x00\n", "not valid YAML"),
        ("", "a recipe is a mapping of keys to values, found NoneType"),
        ("--- {}\n--- {}\n", "not valid YAML: expected a single document"),
        ("#" + "x" * 1_000_000, "1000001 bytes; a recipe has at most 1000000"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in load_refusal(tmp_path, content)


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ['a0: &a0 ["lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol"]']
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "alias" in load_refusal(tmp_path, "\n".join(lines))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    cases = {
        tmp_path / "absent.yaml": "no such recipe; the ones that ship are in flows/recipes/",
        tmp_path: "is a folder or a device; expected a recipe file",
        tmp_path / "pipe.yaml": "is a folder or a device",
        tmp_path / "pipe.yaml" / "below.yaml": "cannot be read: Not a directory",
        Path("nul\0.yaml"): "embedded null byte",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            Recipe.load(path)


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(MINIMAL).replace("\n", "\r\n").encode())
    assert Recipe.load(path) == Recipe.parse(MINIMAL, origin="my.yaml")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) + "promote: {floor: 5e-1, margin: 1E-3}\n")
    found = Recipe.load(path, ("train.learning_rate=2e-4",))
    assert (found.promote.floor, found.promote.margin, found.train.learning_rate) == (0.5, 0.001, 2e-4)


# --- overrides


def test_a_config_cannot_be_changed_after_it_was_checked() -> None:
    recipe = Recipe.parse(MINIMAL, origin="my.yaml")
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 5  # type: ignore[misc]


def test_a_root_is_expanded_and_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_root("$SOMEWHERE/camvid") == expand_root("${SOMEWHERE}/camvid") == "/data/camvid"
    assert expand_root("~/camvid") == "/home/me/camvid"
    assert expand_root("s3://bucket/camvid") == "s3://bucket/camvid"
    assert expand_root("camvid") == os.path.abspath("camvid"), "a cluster's workers stand in another folder"
    assert expand_root("") == "", "a source without files has no root"
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(InputError, match=r"root '\$SOMEWHERE/camvid' names an environment variable"):
        expand_root("$SOMEWHERE/camvid")
