"""Raw mask values -> class ids: which value is which class, which are void, and the id of what is ignored. Part of
`reading`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from segpipe.errors import InputError
from segpipe.types import IGNORE_8BIT, IGNORE_16BIT, LabelCoding


def ignored_beside(num_classes: int) -> int:
    """The id of what is ignored: the widest that one byte holds, where the classes leave it free, else two."""
    return IGNORE_8BIT if num_classes <= IGNORE_8BIT else IGNORE_16BIT


def value_table(
    where: str, names: Mapping[int, str], *, void: Iterable[int] = (), ignore: int, reduce_zero: bool
) -> tuple[dict[int, int], int]:
    """Mask value -> class id, in the order of `names` (raw value -> name), and the id to which void values go.

    Void are the raw values `void`, the mask value `ignore` (none below 0), the id of what is ignored where it is no
    class; with `reduce_zero` also 0, and raw value k is k + 1 in a mask, which Transformers call do_reduce_labels.
    Raises InputError, which begins with `where`.
    """
    if not 0 < len(names) < IGNORE_16BIT:
        raise InputError(f"{where}: {len(names)} classes; expected 1 to {IGNORE_16BIT - 1}: list the classes")
    ignored, shift = ignored_beside(len(names)), int(reduce_zero)
    table = {raw + shift: class_id for class_id, raw in enumerate(names)}
    for raw in (
        *((0,) if reduce_zero else ()),
        *(raw + shift for raw in void),
        *((ignore,) if ignore >= 0 else ()),
        *((ignored,) if ignored not in table else ()),
    ):
        if table.setdefault(raw, ignored) != ignored:
            raise InputError(
                f"{where}: mask value {raw} is class {names[raw - shift]!r} and is to be ignored; expected one of the "
                "two: change the options ignore or reduce_zero, or the class's id"
            )
    return table, ignored


def coding(table: Mapping[int, int], *rules: str) -> LabelCoding:
    """The coding of a source whose raw values become class ids by `table`; `rules` are what it cannot say."""
    return LabelCoding(values=tuple(sorted(table.items())), rules=rules)
