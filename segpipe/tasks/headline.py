"""What the report of every task begins with: the metric that decides, its value, how sure that is. No task itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segpipe.errors import InputError
from segpipe.metrics import resampling_unit


def headline(
    primary: str,
    protocol: str,
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
    value = metrics[primary]
    if value is None:
        raise InputError(
            f"{primary} of these {len(groups)} images is undefined: {lacking}; choose another evaluate.split"
        )
    unit = resampling_unit(groups)
    low, high = bounds(groups=groups if unit == "groups" else None)
    return {
        "primary": primary,
        "protocol": protocol,
        "value": value,
        "low": low,
        "high": high,
        "resampled": unit,
        "metrics": metrics,
        "confusion": (),
        "detections": (),
    }
