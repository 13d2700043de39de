"""The loss that a recipe chose for a class for every pixel: `train.loss`, read. No task itself.

Legend: N batch, K classes (1: one logit for two classes), H W crop size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from segpipe import losses
from segpipe.config import LossConfig
from segpipe.config.loss import WEIGHS_CLASSES

# By the keys of `LossConfig`; what a term says beside its weight are arguments of its function.
LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    # Of a batch the hardest pixels would be other ones, and more of them, the more workers share it.
    "bootstrapped_cross_entropy": partial(losses.bootstrapped_cross_entropy, per_image=True),
    "focal": losses.focal_loss,
    "dice": losses.dice_loss,
    "jaccard": losses.jaccard_loss,
    "tversky": losses.tversky_loss,
    "lovasz": losses.lovasz_loss,
    "boundary": losses.boundary_loss,
}


def pixel_losses(
    logits_NKHW: Tensor, labels_NHW: Tensor, config: LossConfig, *, weight_K: Tensor | None, ignore_index: int
) -> dict[str, Tensor]:
    """Each term by its name, times its weight: float32 scalars. `weight_K` are weights of classes."""
    found = {}
    for name, term in config.terms.items():
        arguments = term.model_dump(exclude={"weight"})
        if name in WEIGHS_CLASSES:
            arguments["weight"] = weight_K
        found[name] = term.weight * LOSSES[name](logits_NKHW, labels_NHW, ignore_index=ignore_index, **arguments)
    return found
