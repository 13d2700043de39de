"""One network at two output strides: coarse where it is trained, fine where it is evaluated, with the same weights.

Rethinking Atrous Convolution for Semantic Image Segmentation, Chen et al., 2017, arXiv:1706.05587, section 4.1: a model
trained at output stride 16 is evaluated at 8, its strides turned into dilation and its rates doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import torch
from torch import nn

# Of a convolution: stride, padding, dilation.
Setting = tuple[Any, Any, Any]
Network = TypeVar("Network", bound="EvaluationStride")


class EvaluationStride(nn.Module):
    """A network whose convolutions have other strides and rates in evaluation than in training, if it was told any."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[bool, Mapping[str, Setting]] = {}

    def evaluate_as(self, finer: nn.Module) -> None:
        """From now on `eval()` gives every convolution the stride, padding and dilation that it has in `finer`.

        `finer` is the same network built for another output stride; it needs no memory ("meta") and is not kept.
        """
        coarse, fine = _settings(self), _settings(finer)
        # The others are left alone, whoever sets them anew (models/parts/placed.py).
        changed = [name for name, setting in coarse.items() if setting != fine[name]]
        self._settings = {True: {n: coarse[n] for n in changed}, False: {n: fine[n] for n in changed}}
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, (stride, padding, dilation) in self._settings.get(mode, {}).items():
            conv = self.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            conv.stride, conv.padding, conv.dilation = stride, padding, dilation
        return self


def at_strides(build_at: Callable[[int], Network], output_stride: int, evaluation_stride: int) -> Network:
    """The network of `output_stride`, which is that of `evaluation_stride` in evaluation; 0 means one for both."""
    network = build_at(output_stride)
    if evaluation_stride:
        with torch.device("meta"):
            network.evaluate_as(build_at(evaluation_stride))
    return network


def _settings(model: nn.Module) -> dict[str, Setting]:
    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return {name: (conv.stride, conv.padding, conv.dilation) for name, conv in convolutions.items()}
