"""What every meter of a split holds to: each image counts exactly once, and what is merged was measured alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from segpipe.errors import InputError

ImageId = TypeVar("ImageId", bound=int | str)


def refuse_twice(image_ids: Iterable[object], counted: Collection[object]) -> None:
    """Raises InputError where one of them was counted already."""
    if twice := [image_id for image_id in image_ids if image_id in counted]:
        raise InputError(
            f"meter: image {twice[0]!r} is counted twice ({len(twice)} such); every image of a split must be evaluated "
            "exactly once: look at the reader's sharding by rank"
        )


def in_order(image_ids: Sequence[ImageId] | None, counted: Collection[ImageId]) -> list[ImageId]:
    """`image_ids`, or by default those counted, numbers before texts, each rising. Raises InputError unless the two are
    the same."""
    if image_ids is None:
        return sorted(counted, key=lambda image_id: (isinstance(image_id, str), image_id))
    wanted = list(image_ids)
    if len(wanted) != len(counted) or set(wanted) != set(counted):
        odd = ", ".join(sorted(map(repr, set(wanted) ^ set(counted) or wanted))[:3])
        raise InputError(f"meter: {len(wanted)} images expected, {len(counted)} counted; they differ in {odd}")
    return wanted


def refuse_unlike(mine: Mapping[str, object], theirs: Mapping[str, object]) -> None:
    """Raises InputError where two meters, told by what they measure, would not add up."""
    if odd := [name for name in mine if mine[name] != theirs[name]]:
        raise InputError(
            "meter: parts of a split must be measured alike, and these differ in "
            + "; ".join(f"{name}: {mine[name]!r:.200} and {theirs[name]!r:.200}" for name in odd)
        )
