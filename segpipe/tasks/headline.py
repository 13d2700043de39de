"""What the report of every task begins with: the metric that decides, its value, how sure that is. No task itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segpipe.errors import InputError
from segpipe.metrics import resampling_unit
from segpipe.metrics.bootstrap import Scores, bounds, mean_of_defined

LEVEL, RESAMPLES, SEED = 0.95, 1000, 0


def headline(
    primary: str,
    protocol: str,
    metrics: Mapping[str, float | None],
    drawn: Callable[..., Scores],
    *,
    groups: Sequence[str],
    lacking: str,
) -> dict[str, Any]:
    """The fields of an `EvalReport` that say what was measured; those of evidence that only some tasks have are empty.

    `drawn(groups=..., resamples=..., seed=...)` is the score (R, K) of each class in each resample, nan where it is
    undefined, of whole groups (one entry an image), or of images where these are None; the metric that decides is the
    mean over classes.

    Raises InputError, with what the images are `lacking`, where the metric that decides is undefined.
    """
    value = metrics[primary]
    if value is None:
        raise InputError(
            f"{primary} of these {len(groups)} images is undefined: {lacking}; choose another evaluate.split"
        )
    unit = resampling_unit(groups)
    drawn_RK = drawn(groups=groups if unit == "groups" else None, resamples=RESAMPLES, seed=SEED)
    low, high = bounds(mean_of_defined(drawn_RK), LEVEL)
    of_classes = [bounds(drawn_R, LEVEL) for drawn_R in drawn_RK.T]
    return {
        "primary": primary,
        "protocol": protocol,
        "value": value,
        "low": low,
        "high": high,
        "class_bounds": tuple(None if math.isnan(each[0]) else each for each in of_classes),
        "resampled": unit,
        "metrics": metrics,
        "confusion": (),
        "detections": (),
    }
