"""Joining names: a part can never leave its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import storage
from segpipe.errors import InputError


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("a", ("b",), "a/b"),
        ("/", ("b",), "/b"),
        ("/a/", ("b/c", "d.json"), "/a/b/c/d.json"),
        ("s3://bucket", ("k",), "s3://bucket/k"),
        ("s3://bucket/p/", ("..k", "..."), "s3://bucket/p/..k/..."),
        ("a", (), "a"),
    ],
)
def test_join(uri: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(uri, *parts) == joined


@pytest.mark.parametrize(
    "part", ["..", "../x", "a/../../x", "/etc/passwd", "", ".", "a//b", "a/", "a\\b", "x\0", "s3://other/key"]
)
def test_a_part_that_could_leave_the_folder_is_refused(part: str) -> None:
    with pytest.raises(InputError, match="is not a relative path inside this folder"):
        storage.join("/data", part)


@given(st.lists(st.text(alphabet="./\\a\0", max_size=6), max_size=4))
def test_whatever_is_accepted_stays_inside(parts: list[str]) -> None:
    try:
        joined = storage.join("/data/set", *parts)
    except InputError:
        return
    assert joined == "/".join(["/data/set", *parts])
    assert not {"..", ".", ""} & set(joined[1:].split("/"))


@pytest.mark.parametrize("uri", ["", "a\0b"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="not a storage URI"):
        storage.exists(uri)
    with pytest.raises(InputError):
        storage.read_bytes(uri)


def test_an_empty_base_is_refused() -> None:
    with pytest.raises(InputError, match="is empty"):
        storage.join("", "a")
