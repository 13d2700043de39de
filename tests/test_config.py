"""Recipes: what is refused and how it is said, overrides, and which parts make a run's identity."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.config import WITHOUT_EFFECT, Recipe, RunConfig, TrainConfig, digest, expand_root
from segpipe.errors import InputError

RECIPES = sorted((Path(__file__).parents[1] / "flows" / "recipes").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "name": "streets",
    "dataset": {"name": "streets", "format": "scenes"},
    "architectures": [{"arch": "unet"}, {"arch": "deeplab_v3plus", "options": {"backbone": "resnet18"}}],
    "train": {"epochs": 3, "batch_size": 4, "augment": {"crop": [64, 96]}},
}


def recipe_with(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one key set, or taken out where `value` is ...; indices are written as in overrides."""
    document = copy.deepcopy(MINIMAL)
    node: Any = document
    *parents, last = path.split(".")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return document


def refusal(document: Any, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        Recipe.parse(document, origin="my.yaml", overrides=overrides)
    return str(caught.value)


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
    assert Recipe.parse(yaml.safe_load(recipe.to_yaml()), origin="again") == recipe
    assert path.read_text().startswith("#"), "the head comment says hypothesis and sources"


def test_there_are_recipes_to_test() -> None:
    assert {path.stem for path in RECIPES} >= {"scenes", "camvid"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epochz", 3, "  train.epochz: unknown key; expected one of: accumulate, augment,"),
        ("learning_rate", 0.1, "  learning_rate: unknown key; expected one of: architectures, dataset,"),
        (
            "architectures.1.backbone",
            "resnet18",
            "  architectures.1.backbone: unknown key; expected one of: arch, label,",
        ),
        ("train.augment.size", [8, 8], "  train.augment.size: unknown key; expected one of: colour, crop, flip, scale"),
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
        ("train.momentum", 1.5, "  train.momentum: Input should be less than or equal to 1 (found 1.5)"),
        ("train.optimizer", "adam", "  train.optimizer: Input should be 'sgd' or 'adamw' (found 'adam')"),
        ("train.augment.crop", [64], "  train.augment.crop.1: missing"),
        ("train.augment.crop", [64, 0], "  train.augment.crop.1: Input should be greater than 0 (found 0)"),
        ("train.augment.scale", [2.0, 0.5], "  train.augment: scale must be 0 < low <= high, got 2.0, 0.5"),
        ("train.augment", None, "  train.augment: Input should be an object (found None)"),
        ("train.channels_last", "yes", "  train.channels_last: Input should be a valid boolean (found 'yes')"),
        ("name", "My Recipe", "  name: String should match pattern"),
        ("name", "../../etc", "  name: String should match pattern"),
        ("dataset.name", "a/b", "  dataset.name: String should match pattern"),
        ("architectures", [], "  architectures: Tuple should have at least 1 item"),
        ("architectures.1.label", "unet", "architectures with the same label ['unet']: give each a different `label`"),
        (
            "architectures.0.train.epochz",
            1,
            "  architectures.0.train.epochz: unknown key; expected one of: accumulate,",
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
        ("task", "instances", "  task: Input should be 'semantic' (found 'instances')"),
        ("evaluate.pictures", 65, "  evaluate.pictures: Input should be less than or equal to 64 (found 65)"),
        ("resources.gpus_per_worker", -1, "  resources.gpus_per_worker: Input should be greater than or equal to 0"),
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
    assert Recipe.load(path, ("train.learning_rate=2e-4",)).promote.model_dump() == {"floor": 0.5, "margin": 0.001}
    assert Recipe.load(path, ("train.learning_rate=2e-4",)).train.learning_rate == 2e-4


# --- overrides


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
    assert "unknown key; expected one of" in refusal(MINIMAL, override)


def test_overrides_of_one_architecture_leave_the_others_alone() -> None:
    document = recipe_with("architectures.0.train", {"epochs": 9, "augment": {"flip": 0.0}})
    document["architectures"][0]["label"] = "long"
    recipe = Recipe.parse(document, origin="my.yaml")
    first, second = recipe.run_config(0), recipe.run_config(1)
    assert (first.label, first.train.epochs, first.train.augment.flip) == ("long", 9, 0.0)
    assert first.train.augment.crop == (64, 96), "what the override does not name stays"
    assert (second.label, second.train) == ("deeplab_v3plus", recipe.train)
    assert second.options == {"backbone": "resnet18"}


# --- identity


def digests(document: Any, *overrides: str) -> list[str]:
    recipe = Recipe.parse(document, origin="my.yaml", overrides=overrides)
    return [recipe.run_config(index).digest for index in range(len(recipe.architectures))]


def reversed_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: reversed_keys(value) for key, value in reversed(node.items())}
    return [reversed_keys(item) for item in node] if isinstance(node, list) else node


def test_the_digest_is_that_of_the_meaning_not_of_the_text() -> None:
    expected = digests(MINIMAL)
    assert len(set(expected)) == 2
    assert all(len(found) == 64 for found in expected)
    assert digests(reversed_keys(MINIMAL)) == expected, "order of keys"
    written_out = yaml.safe_load(Recipe.parse(MINIMAL, origin="my.yaml").to_yaml())
    assert written_out["train"]["weight_decay"] == 1e-4
    assert digests(written_out) == expected, "defaults written out"
    assert digests(MINIMAL, "architectures.0.train={epochs: 3}") == expected, "an override that changes nothing"
    assert digests(MINIMAL, "train.ema_decay=null", "train.learning_rate=0.001") == expected
    assert digests(MINIMAL, "train.aux_weight=1") == digests(MINIMAL, "train.aux_weight=1.0")


@pytest.mark.parametrize(
    "override",
    [
        "resources.workers=8",
        "resources.gpus_per_worker=1",
        "resources.max_failures=0",
        "evaluate.workers=4",
        "evaluate.split=val",
        "promote.margin=0.5",
        "description=another",
        "dataset.options={seed: 3}",
        "train.loader_threads=7",
        "train.checkpoint_every=5",
        "architectures.0.train={loader_threads: 3, checkpoint_every: 1}",
    ],
)
def test_what_is_not_the_training_leaves_the_digest_alone(override: str) -> None:
    assert digests(MINIMAL, override) == digests(MINIMAL)


@pytest.mark.parametrize(
    "override",
    ["train.seed=1", "train.epochs=4", "train.augment.flip=0.4", "train.precision=bfloat16", "train.clip_norm=1.0"],
)
def test_what_changes_the_result_changes_every_digest(override: str) -> None:
    assert not set(digests(MINIMAL, override)) & set(digests(MINIMAL))


def test_a_change_of_one_architecture_changes_its_digest_only() -> None:
    before = digests(MINIMAL)
    for override in (
        "architectures.0.options.backbone=resnet18",
        "architectures.0.pretrained=DEFAULT",
        "architectures.0.label=mine",
        "architectures.0.train={epochs: 4}",
    ):
        after = digests(MINIMAL, override)
        assert after[0] != before[0]
        assert after[1] == before[1]


def test_every_other_key_of_train_is_part_of_the_identity() -> None:
    identity = Recipe.parse(MINIMAL, origin="my.yaml").run_config(0).identity
    assert set(identity["train"]) == set(TrainConfig.model_fields) - set(WITHOUT_EFFECT)
    assert set(WITHOUT_EFFECT) < set(TrainConfig.model_fields)
    assert set(identity) == set(RunConfig.model_fields) - {"pretrained_id"}


def test_the_identity_holds_which_weights_and_not_where_they_lie() -> None:
    run = Recipe.parse(recipe_with("architectures.0.pretrained", "a/weights.pth"), origin="my.yaml").run_config(0)
    here, moved = (
        run.model_copy(update={"pretrained": path, "pretrained_id": "sha256:12"}) for path in ("a.pth", "b.pth")
    )
    other = moved.model_copy(update={"pretrained_id": "sha256:34"})
    assert here.identity["pretrained"] == "sha256:12"
    assert here.digest == moved.digest
    assert len({run.digest, here.digest, other.digest}) == 3


def test_the_digest_is_pinned() -> None:
    """A change of these values makes every finished run unknown: change them on purpose only."""
    assert digest({"b": [1, 2.5, None], "a": "\u00e4"}) == digest({"a": "\u00e4", "b": [1, 2.5, None]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert digests(MINIMAL) == [
        "099b719bd47adea619d1af4cfcd3e222810518230ea25ca12963c6092c8222c1",
        "957dc773eebbf6be22c03016ffa07df954de4996b582d57acf51b09ddf9370e1",
    ]


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
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(InputError, match=r"dataset.root: '\$SOMEWHERE/camvid' names an environment variable"):
        expand_root("$SOMEWHERE/camvid")


# --- anything at all

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    "name", "description", "task", "dataset", "dataset.name", "dataset.options", "dataset.options.seed",
    "architectures", "architectures.0", "architectures.0.arch", "architectures.0.options", "architectures.0.train",
    "architectures.0.train.epochs", "architectures.1.label", "train", "train.augment", "train.augment.crop",
    "train.epochs", "train.learning_rate", "train.seed", "resources", "evaluate.split", "promote.floor", "surprise",
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PATHS), PLAIN), min_size=1, max_size=3))
def test_any_recipe_is_taken_or_refused_with_an_input_error(changes: list[tuple[str, Any]]) -> None:
    document = copy.deepcopy(MINIMAL)
    for path, value in changes:
        try:
            document = _set(document, path, value)
        except (TypeError, ValueError, IndexError, AttributeError):
            continue  # an earlier change took the place away
    taken_or_refused(lambda: Recipe.parse(document, origin="fuzz"))


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text(alphabet="[]{}:,&*!|>-? \n#%'\"ab01.e", max_size=60))
def test_any_override_is_taken_or_refused_with_an_input_error(override: str) -> None:
    for text in (override, f"train.epochs={override}", f"architectures.0.options={override}"):
        taken_or_refused(lambda text=text: Recipe.parse(MINIMAL, origin="fuzz", overrides=(text,)))


@settings(max_examples=150)
@given(
    at=st.integers(0, 400),
    removed=st.integers(0, 6),
    added=st.binary(max_size=6) | st.sampled_from([b"*a", b"&a ", b"<<: ", b"!!set ", b"\n- ", b"? ", b"\xff", b"\0"]),
)
def test_any_damaged_file_is_taken_or_refused_with_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, removed: int, added: bytes
) -> None:
    text = yaml.safe_dump(MINIMAL).encode()
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "my.yaml"
    path.write_bytes(text[:at] + added + text[at + removed :])
    taken_or_refused(lambda: Recipe.load(path))


@pytest.mark.parametrize(
    "text", ["1e-3", "no", "2024-11-05", "&a *a", "0x1f", "12:30", "~", "ünï 🚲", " a: b #", "1_0"]
)
def test_a_recipe_written_out_reads_back_whatever_its_texts_look_like(tmp_path: Path, text: str) -> None:
    recipe = Recipe.parse({**recipe_with("dataset.options.split", text), "description": text}, origin="my.yaml")
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.load(path) == recipe


def taken_or_refused(read: Any) -> None:
    try:
        recipe = read()
    except InputError as error:
        assert str(error).strip()  # noqa: PT017 - both outcomes are right
        return
    assert Recipe.parse(json.loads(json.dumps(recipe.model_dump(mode="json"))), origin="again") == recipe
    for index in range(len(recipe.architectures)):
        assert isinstance(recipe.run_config(index), RunConfig)


def _set(document: Any, path: str, value: Any) -> Any:
    node = document
    *parents, last = path.split(".")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    node[int(last) if isinstance(node, list) else last] = value
    return document
