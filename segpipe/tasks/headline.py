"""What the report of every task begins with: the metric that decides, its value, how sure that is. No task itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from segpipe.errors import InputError
from segpipe.metrics import resampling_unit


class Ranked(Protocol):
    """The metric that decides, and the protocol by which it is measured: a `TaskOps`."""

    @property
    def primary(self) -> str: ...
    @property
    def protocol(self) -> str: ...


def headline(
    ops: Ranked,
    metrics: Mapping[str, float | None],
    bounds: Callable[..., tuple[float, float]],
    *,
    groups: Sequence[str],
    lacking: str,
) -> dict[str, Any]:
    """The fields of an `EvalReport` that say what was measured; those of evidence that only some tasks have are empty.

    `bounds(groups=...)` is the interval of the metric that decides, over whole groups (one entry an image), or over
    images where it is given None.
    Raises InputError, with what the images are `lacking`, where the metric that decides is undefined.
    """
    value = metrics[ops.primary]
    if value is None:
        raise InputError(
            f"{ops.primary} of these {len(groups)} images is undefined: {lacking}; choose another evaluate.split"
        )
    unit = resampling_unit(groups)
    low, high = bounds(groups=groups if unit == "groups" else None)
    return {
        "primary": ops.primary,
        "protocol": ops.protocol,
        "value": value,
        "low": low,
        "high": high,
        "resampled": unit,
        "metrics": metrics,
        "confusion": (),
        "detections": (),
    }
