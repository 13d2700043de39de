"""Swin Transformer, as torchvision has it, with a layer norm on each map.

Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, 2021,
arXiv:2103.14030. It begins at stride 4 and is not dilated here: the atrous rule is one of kernels, and windows with
holes between their cells are another network than the authors'. The norms are those of the authors' code for pixels
(SwinTransformer/Swin-Transformer-Semantic-Segmentation), where each map has its own; they start anew beside ImageNet
weights, whose one norm is of the classifier. A map of at most one window is not shifted, as the classifier has it; that
code always shifts, which differs on sides of up to 224 pixels.

Letter legend: N batch, C channels, H W map size.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision import models
from torchvision.ops import Permute

from segpipe.models.parts.backbones.layout import patch_layout


def _finish(channels: int) -> nn.Module:
    """NHWC, as the blocks have it -> NCHW."""
    return nn.Sequential(nn.LayerNorm(channels), Permute([0, 3, 1, 2]))


_layout = partial(patch_layout, finish=_finish, output_strides=(32,))
LAYOUTS = {
    "swin_t": _layout(models.swin_t, 96),
    "swin_s": _layout(models.swin_s, 96),
    "swin_b": _layout(models.swin_b, 128),
}
