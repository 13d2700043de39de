"""Several models as one: the mean of their logits. No architecture: `models/__init__.py` makes one of those there are.

Letter legend: N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpipe.models.spec import DenseOutput


class Ensemble(nn.Module):
    """Maps images_NCHW to the mean of its members' logits, float32: the geometric mean of their class probabilities.

    Logits are defined up to a number for each pixel, which changes the class of none. Auxiliary heads, which nothing
    is predicted from, are left out.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        total_NKHW: Tensor | None = None
        for member in self.members:
            logits_NKHW = member(images_NCHW).logits_NKHW.float()
            total_NKHW = logits_NKHW if total_NKHW is None else total_NKHW + logits_NKHW
        assert total_NKHW is not None
        return DenseOutput(scores_NKhw=torch.div(total_NKHW, len(self.members)))
