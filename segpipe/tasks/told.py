"""What a model must be told beside an image, when it is told where the objects are. No task itself."""

from __future__ import annotations

from collections.abc import Sequence

from segpipe.types import ClassInfo


def told_of_things(classes: Sequence[ClassInfo]) -> tuple[str, ...]:
    """The "boxes" of the objects, and their "class_ids" where several classes have any."""
    return ("boxes",) if len(things_of(classes)) == 1 else ("boxes", "class_ids")


def things_of(classes: Sequence[ClassInfo]) -> list[int]:
    """The classes that are things, or all where none is said to be one."""
    return [k for k, info in enumerate(classes) if info.is_thing] or list(range(len(classes)))
