"""What the metrics take: arrays of NumPy or torch, on any device, seen as NumPy arrays.

torch is not imported to ask whether something is a tensor: the gate reads metrics where no model is about.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Mask = npt.NDArray[np.bool_]


def as_array(values: Any) -> npt.NDArray[Any]:
    """`values` as a NumPy array: not copied where it is one already, or a tensor on the CPU."""
    return values.detach().cpu().numpy() if is_tensor(values) else np.asarray(values)


def as_mask(values: Any, what: str, where: str) -> Mask:
    """A mask of shape (H, W), bool or integer with non-zero = inside, as bool. Raises InputError on others, saying
    `what` it is and `where` it was met."""
    array = as_array(values)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(
            f"{where}: expected a {what} of shape (H, W), bool or integer, found {array.shape} {array.dtype}"
        )
    return array if array.dtype.kind == "b" else array != 0


def is_tensor(values: object) -> TypeGuard[Tensor]:
    """Whether it is one of torch's, of which there are none where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)
