"""ConvNeXt, as torchvision has it, with a layer norm on each map.

A ConvNet for the 2020s, Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, 2022, arXiv:2201.03545. It begins at stride 4. The
norms are those of the authors' code for pixels (facebookresearch/ConvNeXt, semantic_segmentation): the classifier has
one behind its pooling instead, so that they start anew beside ImageNet weights. On sides that are no multiples of 32
the last patches are filled up with zeros, where that code leaves rows and columns out. Dilated by the atrous rule, its
2 x 2 patches begin at every cell and its 7 x 7 kernels have holes.
"""

from __future__ import annotations

from functools import partial

from torchvision import models
from torchvision.models.convnext import LayerNorm2d

from segpipe.models.parts.backbones.layout import OUTPUT_STRIDES, patch_layout

_layout = partial(patch_layout, finish=partial(LayerNorm2d, eps=1e-6), output_strides=OUTPUT_STRIDES)
LAYOUTS = {
    "convnext_tiny": _layout(models.convnext_tiny, 96),
    "convnext_small": _layout(models.convnext_small, 96),
    "convnext_base": _layout(models.convnext_base, 128),
    "convnext_large": _layout(models.convnext_large, 192),
}
