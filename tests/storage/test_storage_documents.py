"""JSON as strict as hashes need it."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import storage
from segpipe.errors import CorruptError, InputError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read(document: object) -> None:
    data = storage.canonical_json(document)
    assert storage.parse_json(data, where="x") == document
    assert storage.canonical_json(storage.parse_json(data, where="x")) == data


@given(st.binary(max_size=40))
def test_any_bytes_give_a_document_or_a_corrupt_error(data: bytes) -> None:
    try:
        document = storage.parse_json(data, where="x")
    except CorruptError:
        return
    assert storage.parse_json(storage.canonical_json(document), where="x") == document


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"b": {"a": 1, "a": 1}}', "given twice"),
        ("[NaN]", "NaN is not a JSON number"),
        ("-Infinity", "Infinity"),
        ("1e999", "beyond the range"),
        ('"\\ud800"', "surrogates"),
        ("[" * 100_000, "recursion"),
        ("1" * 5000, "digits"),
        ("{}{}", "Extra data"),
        ("", "Expecting value"),
    ],
)
def test_what_is_not_strict_is_corrupt(text: str, reason: str) -> None:
    with pytest.raises(CorruptError, match=reason):
        storage.parse_json(text.encode(), where="x")


def test_bytes_that_are_no_text_are_corrupt() -> None:
    with pytest.raises(CorruptError, match="utf-8"):
        storage.parse_json(b'"\xff"', where="x")


@pytest.mark.parametrize("document", [math.nan, [math.inf], {"a": b"bytes"}, {("a",): 1}])
def test_what_json_cannot_say_is_not_stored(document: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        storage.write_json_once(str(tmp_path / "x"), document)
    assert list(tmp_path.iterdir()) == []


def test_a_document_beyond_the_cap_is_not_parsed(tmp_path: Path) -> None:
    storage.write_once(str(tmp_path / "big.json"), json.dumps("x" * 100).encode())
    with pytest.raises(InputError, match=r"big\.json: 102 bytes; at most 50"):
        storage.read_json(str(tmp_path / "big.json"), limit=50)
