"""An encoder that remembers where its poolings took their maxima, and the decoder's shape as its mirror image.

Learning Deconvolution Network for Semantic Segmentation, Noh, Hong, Han, 2015, arXiv:1505.04366, and SegNet,
Badrinarayanan, Kendall, Cipolla, 2015, arXiv:1511.00561: both stand on this file.

Letter legend: N batch, C channels, H W map size, h w size of the pooled map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from segpipe.models.parts import upsampling
from segpipe.models.parts.backbones.vgg import Pool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pooling:
    """What is needed to undo one pooling: where each maximum stood, and the size of the map that was pooled."""

    switches_NChw: Tensor
    height: int
    width: int


def encoded(layers: Iterable[nn.Module], images_NCHW: Tensor) -> tuple[Tensor, list[Pooling]]:
    """Runs the layers one after another: the last map_NCHW, and each pooling on the way, finest first."""
    poolings, maps_NCHW = [], images_NCHW
    for layer in layers:
        if not isinstance(layer, Pool):
            maps_NCHW = layer(maps_NCHW)
            continue
        height, width = maps_NCHW.shape[-2:]
        maps_NCHW, switches_NChw = upsampling.pool_with_places(maps_NCHW)
        poolings.append(Pooling(switches_NChw=switches_NChw, height=height, width=width))
    return maps_NCHW, poolings


def mirrored(layers: Iterable[nn.Module]) -> list[list[tuple[int, int]]]:
    """(in, out) channels of the convolutions of each decoder stage, coarsest first: the encoder's stages reversed.

    As the encoder widens in the first convolution of a stage, the decoder narrows in the last one; only the finest
    stage ends as wide as it began, its end being the classifier's business.
    """
    stages: list[list[tuple[int, int]]] = [[]]
    for layer in layers:
        if isinstance(layer, Pool):
            stages.append([])
        elif isinstance(layer, nn.Conv2d):
            stages[-1].append((layer.out_channels, layer.in_channels))
    decoder = [stage[::-1] for stage in stages[::-1] if stage]
    finest = decoder[-1]
    finest[-1] = (finest[-1][0], finest[-1][0])
    return decoder
