"""Monte Carlo dropout: what a model says when asked several times with dropout on, and how much the answers differ.

Bayesian SegNet, Kendall, Badrinarayanan, Cipolla, 2015, arXiv:1511.02680, section 3; for any dense model with dropout.
The mean of the passes is the prediction, the variance's mean over the classes the paper's map of uncertainty. The paper
takes 40 passes on CamVid; from 6 on the mean beats a pass without dropout. Used by `tasks/`.

Letter legend: N batch, K classes, C channels, H W image size, h w size of the scores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.spec import device_of, dropouts

# A module's mode and torch's random state are shared by all threads, and a served model answers in several.
_ALONE = threading.Lock()


class Moments(NamedTuple):
    """The mean of tensors of one shape, and their (population) variance: of probabilities 0..0.25."""

    mean: Tensor
    variance: Tensor


def moments(passes: Iterable[Iterable[Tensor]]) -> list[Moments]:
    """Of at least one pass, each of which comes in as many parts (bands of an image): those of each part.

    In memory are mean and variance of all parts, and two tensors more of the one that has come.
    """
    parts: list[Moments] = []
    number = 0
    for number, found_parts in enumerate(passes, start=1):
        for at, found in enumerate(found_parts):
            if number == 1:
                parts.append(Moments(found.clone(), torch.zeros_like(found)))
                continue
            # Welford's update: a sum of squares would lose small variances to rounding.
            mean, squares = parts[at]
            step = found - mean
            mean += step / number
            squares += step.mul_(found - mean)
    for _, squares in parts:
        squares /= number
    return parts


def sampled_pass(model: nn.Module, images_NCHW: Tensor, *, seeds: Sequence[int]) -> Tensor:
    """The scores that a dense model gives each image with dropout drawn from its seed, and all else as in evaluation.

    (N, K, h, w) without gradients, of the model's own size. Image by image, since torch draws for a whole batch: what
    is beside an image changes nothing of its answer. The model's mode and torch's random state are afterwards what they
    were.

    Raises InputError on a model without dropout, whose passes would all be one.
    """
    device = device_of(model)
    with (
        _ALONE,
        torch.no_grad(),
        _dropout_alone(model),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        said = []
        for image_CHW, seed in zip(images_NCHW, seeds, strict=True):
            torch.manual_seed(seed)  # dropout draws from torch's global state
            said.append(model(image_CHW[None]).scores_NKhw)
        return torch.cat(said)


@contextmanager
def _dropout_alone(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation but dropout; afterwards each as it was."""
    before = [(module, module.training) for module in model.modules()]
    dropping = dropouts(model)
    if not dropping:
        raise InputError(f"{type(model).__name__}: has no dropout, so that all passes would say the same")
    try:
        model.eval()
        for dropout in dropping:
            dropout.training = True
        yield
    finally:
        model.train(before[0][1])  # some change more than a flag with their mode, such as the stride of their maps
        for module, training in before:
            module.training = training
