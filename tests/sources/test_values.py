"""Mask values -> class ids: which value is which class, which are void, and what cannot be both."""

import pytest

from segpipe.errors import InputError
from segpipe.sources.reading import ignored_beside, value_table

NAMES = {3: "road", 7: "car"}


@pytest.mark.parametrize(
    ("void", "ignore", "reduce_zero", "table"),
    [
        ((), -1, False, {3: 0, 7: 1, 255: 255}),
        ((4, 5), 9, False, {3: 0, 7: 1, 4: 255, 5: 255, 9: 255, 255: 255}),
        ((4,), -1, True, {4: 0, 8: 1, 0: 255, 5: 255, 255: 255}),
        ((), 255, True, {4: 0, 8: 1, 0: 255, 255: 255}),
    ],
)
def test_values_become_ids_in_the_order_of_the_names(
    void: tuple[int, ...], ignore: int, reduce_zero: bool, table: dict[int, int]
) -> None:
    assert value_table("x", NAMES, void=void, ignore=ignore, reduce_zero=reduce_zero) == (table, 255)


def test_a_value_that_is_a_class_is_not_taken_for_the_ignored_one() -> None:
    table, ignored = value_table("x", {255: "sky", 1: "road"}, ignore=-1, reduce_zero=False)
    assert (table, ignored) == ({255: 0, 1: 1}, 255)


@pytest.mark.parametrize(("ignore", "reduce_zero", "value", "name"), [(7, False, 7, "car"), (4, True, 4, "road")])
def test_a_value_cannot_be_a_class_and_void(ignore: int, reduce_zero: bool, value: int, name: str) -> None:
    with pytest.raises(InputError, match=f"^x: mask value {value} is class '{name}' and is to be ignored; .*change"):
        value_table("x", NAMES, ignore=ignore, reduce_zero=reduce_zero)


@pytest.mark.parametrize("count", [0, 65535])
def test_there_are_at_least_one_class_and_as_many_as_16_bits_hold(count: int) -> None:
    with pytest.raises(InputError, match=f"^x: {count} classes; expected 1 to 65534"):
        value_table("x", {k: str(k) for k in range(count)}, ignore=-1, reduce_zero=False)


def test_what_is_ignored_has_the_largest_id_that_the_classes_leave_free() -> None:
    assert [ignored_beside(count) for count in (1, 255, 256, 65534)] == [255, 255, 65535, 65535]
    assert value_table("x", {k: str(k) for k in range(256)}, ignore=-1, reduce_zero=False)[0][65535] == 65535
