"""What the metrics take: arrays of NumPy or torch, on any device, seen as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor


def as_array(values: Any) -> npt.NDArray[Any]:
    """`values` as a NumPy array: not copied where it is one already, or a tensor on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
