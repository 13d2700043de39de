"""Monte Carlo dropout: what a model says when asked several times with dropout on, and how much the answers differ.

Bayesian SegNet, Kendall, Badrinarayanan, Cipolla, 2015, arXiv:1511.02680, section 3; for any dense model with dropout.

Letter legend: N batch, K classes, H W image size, T passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from segpipe.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampledProbabilities:
    """float32, of T passes: the mean of each class's probability, in 0..1, and its (population) variance, 0..0.25.

    Their arg max is the prediction; the variance's mean over the classes is the paper's map of uncertainty.
    """

    mean_NKHW: Tensor
    variance_NKHW: Tensor

    @property
    def uncertainty_NHW(self) -> Tensor:
        return self.variance_NKHW.mean(1)


def sampled_probabilities(model: nn.Module, images_NCHW: Tensor, *, passes: int, seed: int) -> SampledProbabilities:
    """Softmax probabilities of a model with `DenseOutput`, over `passes` masks of dropout drawn from `seed`.

    All else is as in evaluation: only dropout is on. Each image of a batch gets masks of its own, so that the answer
    depends on what else is in the batch. The paper takes T = 40 on CamVid; from 6 on the mean beats a pass without
    dropout. The model's mode and torch's random state are afterwards what they were; nothing is recorded for gradients.

    Raises InputError on fewer than one pass, and on a model without dropout, whose passes would all be one.
    """
    if not isinstance(passes, int) or isinstance(passes, bool) or passes < 1:
        raise InputError(f"passes: expected a whole number of at least 1, found {passes!r}")
    mean_NKHW = square_NKHW = torch.zeros(())
    with torch.no_grad(), _dropout_alone(model), _seeded(seed, images_NCHW.device):
        for number in range(1, passes + 1):
            logits_NKHW = model(images_NCHW).logits_NKHW.float()
            if logits_NKHW.shape[1] == 1:  # of two classes: (0, z), whose softmax is z's sigmoid
                logits_NKHW = torch.cat((torch.zeros_like(logits_NKHW), logits_NKHW), dim=1)
            probability_NKHW = logits_NKHW.softmax(1)
            # Welford's update: a sum of squares would lose small variances to rounding.
            if number == 1:
                mean_NKHW, square_NKHW = probability_NKHW, torch.zeros_like(probability_NKHW)
                continue
            step_NKHW = probability_NKHW - mean_NKHW
            mean_NKHW = mean_NKHW + step_NKHW / number
            square_NKHW = square_NKHW + step_NKHW * (probability_NKHW - mean_NKHW)
    return SampledProbabilities(mean_NKHW=mean_NKHW, variance_NKHW=square_NKHW / passes)


@contextmanager
def _dropout_alone(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation but dropout; afterwards each as it was."""
    before = [(module, module.training) for module in model.modules()]
    dropouts = [module for module in model.modules() if isinstance(module, _DropoutNd) and module.p > 0]
    if not dropouts:
        raise InputError(f"{type(model).__name__}: has no dropout, so that all passes would say the same")
    try:
        model.eval()
        for dropout in dropouts:
            dropout.training = True
        yield
    finally:
        model.train(before[0][1])  # some change more than a flag with their mode, such as the stride of their maps
        for module, training in before:
            module.training = training


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global state, which is set and given back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
