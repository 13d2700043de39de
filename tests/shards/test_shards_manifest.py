"""Manifest <-> JSON: the version is a pure function of the content, and reading trusts nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import shards, storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards import ShardResult
from segpipe.types import Shard
from tests.fixtures.samples import manifest_of

SHA = "ab" * 32
SHARD = Shard(path=f"shards/train-{SHA[:20]}.parquet", rows=10, bytes=99, sha256=SHA, row_groups=(8, 2))
RESULT = ShardResult(
    shard=SHARD,
    class_pixels=((0, 5), (2, 7)),
    image_pixels=((0, 9), (2, 9)),
    ignored_pixels=3,
    images_of_class=((0, 1), (2, 1)),
    objects_of_class=(),
    objects_by_size=(0, 0, 0),
    crowds=0,
    sizes={"4x4": 1},
    sample_ids=(),
    groups=(),
    image_hashes=(),
)
MANIFEST = manifest_of([RESULT])
VERSION = "ea1d9ff5c09a858ad5e824e558f481d5832fb0f082e2d7d0269580ff78305335"
DOCUMENT = storage.parse_json(storage.canonical_json(shards.manifest_to_json(MANIFEST)), where="x")


def test_the_manifest_comes_back() -> None:
    assert shards.manifest_from_json(DOCUMENT, where="x") == MANIFEST
    assert MANIFEST.splits["train"].class_pixels == (5, 0, 7)


def test_the_version_is_that_of_the_content() -> None:
    version = shards.manifest_version(MANIFEST)
    assert version == VERSION, "every dataset gets a new version: raise SCHEMA_VERSION if that is meant"
    splits = {"val": MANIFEST.splits["train"], **MANIFEST.splits}
    turned = dict(reversed(splits.items()))
    assert shards.manifest_version(replace(MANIFEST, splits=splits)) == shards.manifest_version(
        replace(MANIFEST, splits=turned)
    )
    assert version != shards.manifest_version(replace(MANIFEST, licence="other"))


def leaf_paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(leaf for key, inner in items for leaf in leaf_paths(inner, (*path, key)))]


def changed(path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in path[:-1]:
        node = node[key]
    change(node, path[-1])
    return document


def put(value: Any) -> Callable[[Any, Any], None]:
    return lambda node, key: node.__setitem__(key, value)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "..", [], {}, [None], {"a": 1}])
def test_a_wrong_value_anywhere_is_refused_or_kept_as_it_is(value: Any) -> None:
    accepted = set()
    for path in leaf_paths(DOCUMENT)[1:]:
        document = changed(path, put(value))
        try:
            manifest = shards.manifest_from_json(document, where="the.json")
        except (CorruptError, InputError) as error:
            message = str(error)
            assert message.startswith("the.json: "), (path, message)
        else:
            assert shards.manifest_to_json(manifest) == document, path
            accepted.add(path[0])
    free_text = {"dataset", "source", "licence", "classes", "coding"} if value == ".." else set()
    optional = {None: {"quarantine_path"}, "True": {"classes"}}.get(value if value is None else str(value), set())
    lists, maps = {"annotations", "coding"}, {"quarantined", "splits"}
    empty = {"[]": lists, "{}": maps, "{'a': 1}": {"quarantined"}}.get(str(value), set())
    assert accepted == free_text | optional | empty


FIXED_FIELDS = [
    path
    for path in leaf_paths(DOCUMENT)
    if path and isinstance(path[-1], str) and path[-2:-1] not in (("quarantined",), ("splits",))
]


@pytest.mark.parametrize("path", FIXED_FIELDS)
def test_a_field_missing_or_renamed_is_corrupt(path: tuple[Any, ...]) -> None:
    with pytest.raises(CorruptError, match=f"every field of .*none called {path[-1]}"):
        shards.manifest_from_json(changed(path, lambda node, key: node.pop(key)), where="x")
    with pytest.raises(CorruptError, match=f"only the fields of .*also {path[-1]}_"):
        shards.manifest_from_json(changed(path, lambda node, key: node.update({f"{key}_": 1})), where="x")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.parquet", "shards/../../x", f"shards/val-{SHA[:20]}.parquet", "s3://b/k", ""]
)
def test_a_shard_that_lies_elsewhere_is_corrupt(path: str) -> None:
    with pytest.raises(CorruptError, match=r"x: splits\.train\.shards\.0: path is .*, expected shards/train-abab"):
        shards.manifest_from_json(changed(("splits", "train", "shards", 0, "path"), put(path)), where="x")


@pytest.mark.parametrize("path", ["../x", "/x", "a\\b", ""])
def test_a_quarantine_list_that_lies_elsewhere_is_corrupt(path: str) -> None:
    with pytest.raises(CorruptError, match="quarantine_path leaves the dataset"):
        shards.manifest_from_json(changed(("quarantine_path",), put(path)), where="x")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("splits", "train", "samples"), 11, "samples is 11, expected the 10 rows"),
        (("splits", "train", "shards", 0, "rows"), 11, "rows is 11, expected the 10 of its row groups"),
        (
            ("splits", "train", "shards"),
            [DOCUMENT["splits"]["train"]["shards"][0]] * 2,
            "samples is 10, expected the 20",
        ),
        (("splits", "train", "class_pixels"), [1, 2], "expected 3 counts"),
        (("classes", 1, "name"), "road", "each name once"),
        (("classes", 1, "colour"), [0, 0, 256], "3 bytes"),
        (("annotations",), ["boxes"], "expected one of label_map, .* found 'boxes'"),
        (("ignore_index",), 0, "ignore_index is 0"),
        (("coding", "values", 0, 1), 9, "coding is .*expected each raw value once, for a class id or 255"),
        (("coding", "values", 0, 0), 1, "each raw value once"),
    ],
)
def test_what_does_not_add_up_is_corrupt(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        shards.manifest_from_json(changed(path, put(value)), where="x")


def test_another_schema_version_says_so() -> None:
    with pytest.raises(InputError, match="schema version 99, this segpipe reads 4; ingest the dataset again"):
        shards.manifest_from_json({"schema_version": 99}, where="x")


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_document_gives_an_error(document: Any) -> None:
    with pytest.raises((CorruptError, InputError)):
        shards.manifest_from_json(document, where="x")


def test_class_ids_beyond_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"class id 2 in 7 pixels; expected ids below 2"):
        shards.make_split([RESULT], 2)
