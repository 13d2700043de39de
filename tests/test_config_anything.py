"""Whatever stands in a recipe, an override or a file, it is taken or refused with a message."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.config import Recipe, RunConfig
from segpipe.errors import InputError
from tests.fixtures.recipes import MINIMAL, recipe_with

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
