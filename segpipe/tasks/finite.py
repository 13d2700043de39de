"""A model that has diverged says nothing: told by the sample at which it was noticed. For the tasks of this room."""

from __future__ import annotations

from torch import Tensor

from segpipe.errors import NonFiniteError


def refuse_non_finite(sample_id: str, what: str, *said: Tensor) -> None:
    """Raises NonFiniteError where a number of what a model said of a sample is NaN or infinite; `what` names them."""
    if not all(bool(each.isfinite().all()) for each in said):
        raise NonFiniteError(
            f"sample {sample_id}: the model's {what} are not finite; it has diverged: train it with a lower "
            "train.learning_rate or with train.clip_norm"
        )
