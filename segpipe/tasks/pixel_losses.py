"""The loss that a recipe chose for a class for every pixel: `train.loss`, read. No task itself.

Legend: N batch, K classes (1: one logit for two classes), h w size of the scores, H W crop size.
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
MAIN = "main"  # what a model's own output is called among its heads
RESIZES = ("cross_entropy",)  # terms that take scores of any size, and are the faster for it


def pixel_losses(
    scores_NKhw: Tensor,
    labels_NHW: Tensor,
    config: LossConfig,
    *,
    size: tuple[int, int] | None = None,
    weight_K: Tensor | None,
    ignore_index: int,
) -> dict[str, Tensor]:
    """Each term by its name, times its weight: float32 scalars. `weight_K` are weights of classes.

    With `size`, that of the labels, scores of another one are first resized to it, bilinearly.
    """
    found = {}
    if not config.terms.keys() <= set(RESIZES):
        scores_NKhw = losses.resized(losses.precise(scores_NKhw), size)
    for name, term in config.terms.items():
        arguments = term.model_dump(exclude={"weight"})
        if name in WEIGHS_CLASSES:
            arguments["weight"] = weight_K
        if name in RESIZES:
            arguments["size"] = size
        found[name] = term.weight * LOSSES[name](scores_NKhw, labels_NHW, ignore_index=ignore_index, **arguments)
    return found


def term_name(head: str, term: str, config: LossConfig) -> str:
    """What a term of a head is called in the loss of a step: "<head>/<term>", or "<head>" where there is one alone."""
    return head if len(config.terms) == 1 else f"{head}/{term}"


def cross_entropy_in(terms: Mapping[str, float], config: LossConfig) -> float | None:
    """The cross entropy of a model's own output, times its weight, among the terms of a step's loss; None where they
    are without."""
    return terms.get(term_name(MAIN, "cross_entropy", config)) if "cross_entropy" in config.terms else None
