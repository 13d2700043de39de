"""What the metrics take: arrays of NumPy or torch, on any device, seen as NumPy arrays.

torch is not imported to ask whether something is a tensor: the gate reads metrics where no model is about.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


def as_array(values: Any) -> npt.NDArray[Any]:
    """`values` as a NumPy array: not copied where it is one already, or a tensor on the CPU."""
    return values.detach().cpu().numpy() if is_tensor(values) else np.asarray(values)


def is_tensor(values: object) -> TypeGuard[Tensor]:
    """Whether it is one of torch's, of which there are none where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)
