"""The checks of every meter: their words, and the order in which images are gone through."""

from __future__ import annotations

from typing import Any

import pytest

from segpipe.errors import InputError
from segpipe.metrics.once import in_order, refuse_twice, refuse_unlike


def test_an_image_that_comes_again_is_named_with_how_many_do() -> None:
    refuse_twice(["a", 3], {"b": 1, 4: 2})
    with pytest.raises(InputError, match=r"meter: image 'b' is counted twice \(2 such\); .* sharding by rank"):
        refuse_twice(["a", "b", 4], {"b": 1, 4: 2})


def test_images_go_by_number_and_then_by_name_or_as_they_are_wanted() -> None:
    assert in_order(None, {"b", 10, "a", 9}) == [9, 10, "a", "b"]
    assert in_order(["b", "a"], {"a": 1, "b": 2}) == ["b", "a"]
    assert in_order([], {}) == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["a"], "1 images expected, 2 counted; they differ in 'b'"),
        (["a", "b", "c"], "3 images expected, 2 counted; they differ in 'c'"),
        (["a", "a"], "2 images expected, 2 counted; they differ in 'b'"),
        (["a", "b", "b"], "3 images expected, 2 counted; they differ in 'a', 'b', 'b'"),
        (["a", "1"], "2 images expected, 2 counted; they differ in '1', 'b'"),
    ],
)
def test_what_is_wanted_and_what_was_counted_must_be_the_same(wanted: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=f"meter: {message}$"):
        in_order(wanted, ["a", "b"])


def test_meters_that_would_not_add_up_say_in_what_they_differ() -> None:
    refuse_unlike({"classes": 3}, {"classes": 3})
    with pytest.raises(
        InputError, match=r"measured alike, and these differ in classes: 3 and 4; ignored id: 255 and 0$"
    ):
        refuse_unlike({"classes": 3, "ignored id": 255}, {"classes": 4, "ignored id": 0})
