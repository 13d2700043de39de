"""Mask2Former: a fixed set of learned queries, each of which becomes one mask and the class of that mask.

Masked-attention Mask Transformer for Universal Image Segmentation, Cheng, Misra, Schwing, Kirillov, Girdhar, CVPR 2022,
arXiv:2112.01527, figure 2.

    images -> backbone -> pixel decoder -> maps of stride 32, 16, 8 ---------------.
                                      `-> map of stride 4 --------------------.    | one after the other
    queries -> predict -> [masked attention -> self-attention -> FFN -> predict] x layers
                  `- mask: where the next layer may look -'

Letter legend: N batch, K classes, Q queries, C channels (hidden), S cells of a map, H W image size, h w of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.attention import Attention, FeedForward, check_heads, sine_positions
from segpipe.models.parts.backbones import Backbone, build_backbone
from segpipe.models.parts.layers import resize
from segpipe.models.parts.pixel_decoders import STRIDES, DeformablePixelDecoder, Extents, PlainPixelDecoder
from segpipe.models.spec import MASK_STRIDE, ModelSpec, Published, QueryOutput, RegionTarget, check_counts
from segpipe.types import Task

DIVISOR = STRIDES[0]
PIXEL_DECODERS: Mapping[str, Callable[..., nn.Module]] = {
    "deformable": DeformablePixelDecoder,
    "fpn": PlainPixelDecoder,
}


class DecoderLayer(nn.Module):
    """Figure 2, right: masked attention to a map, self-attention of the queries, feed-forward; a norm after each."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.cross = Attention(channels, heads)
        self.cross_norm = nn.LayerNorm(channels)
        self.among = Attention(channels, heads)
        self.among_norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, channels * 8)

    def forward(
        self, queries_NQC: Tensor, places_QC: Tensor, cells_NSC: Tensor, positions_SC: Tensor, attend_NQS: Tensor
    ) -> Tensor:
        seen = self.cross(queries_NQC + places_QC, cells_NSC + positions_SC, cells_NSC, attend_NQS)
        queries_NQC = self.cross_norm(queries_NQC + seen)
        placed = queries_NQC + places_QC
        queries_NQC = self.among_norm(queries_NQC + self.among(placed, placed, queries_NQC))
        return self.feed_forward(queries_NQC)  # type: ignore[no-any-return]


class QueryDecoder(nn.Module):
    """The transformer decoder with its predictions: one before the first layer, then one after each."""

    def __init__(self, num_classes: int, *, num_queries: int, layers: int, channels: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, channels))
        self.places = nn.Parameter(torch.randn(num_queries, channels))
        self.level_features = nn.Parameter(torch.randn(len(STRIDES), channels))
        self.layers = nn.ModuleList(DecoderLayer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.masks = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, levels: Sequence[Tensor], pixels_NChw: Tensor, extents: Extents) -> list[tuple[Tensor, Tensor]]:
        """(class logits (N, Q, K + 1), mask logits (N, Q, h, w) of the size of `pixels_NChw`) of every prediction.

        Of each level only the `extents` (rows, columns) that hold the image are looked at.
        """
        cells, positions = [], []
        for level, extent, feature_C in zip(levels, extents, self.level_features, strict=True):
            cells.append(_cut(level, extent).flatten(2).transpose(1, 2) + feature_C)
            positions.append(sine_positions(*extent, level.shape[1], extent=extent, device=level.device))
        queries_NQC = self.queries.expand(len(pixels_NChw), -1, -1)
        predictions = [self._predict(queries_NQC, pixels_NChw)]
        for number, layer in enumerate(self.layers):
            at = number % len(levels)
            masks_NQhw = _cut(resize(predictions[-1][1].detach(), *levels[at].shape[-2:]), extents[at])
            attend_NQS = where_to_look(masks_NQhw.flatten(2))
            queries_NQC = layer(queries_NQC, self.places, cells[at], positions[at], attend_NQS)
            predictions.append(self._predict(queries_NQC, pixels_NChw))
        return predictions

    def _predict(self, queries_NQC: Tensor, pixels_NChw: Tensor) -> tuple[Tensor, Tensor]:
        queries_NQC = self.norm(queries_NQC)
        masks_NQhw = torch.einsum("nqc,nchw->nqhw", self.masks(queries_NQC), pixels_NChw)
        return self.classes(queries_NQC), masks_NQhw


def where_to_look(mask_logits_NQS: Tensor) -> Tensor:
    """Bool (N, Q, S): the cells inside each query's mask (equation 4), all of them where the mask is empty."""
    inside_NQS = mask_logits_NQS >= 0
    return inside_NQS | ~inside_NQS.any(2, keepdim=True)


def _cut(maps_NChw: Tensor, extent: tuple[int, int]) -> Tensor:
    return maps_NChw[..., : extent[0], : extent[1]]


class Mask2Former(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to `QueryOutput`, `aux` in the order of the layers.

    Targets, from which models of regions sample, change nothing.
    """

    def __init__(self, backbone: Backbone, pixel_decoder: nn.Module, decoder: QueryDecoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder

    def forward(self, images_NCHW: Tensor, targets: Sequence[RegionTarget] | None = None) -> QueryOutput:
        size = (images_NCHW.shape[2], images_NCHW.shape[3])
        padded = F.pad(images_NCHW, (0, -size[1] % DIVISOR, 0, -size[0] % DIVISOR))
        extents = [_extent(size, stride) for stride in STRIDES]
        levels, pixels_NChw = self.pixel_decoder(self.backbone(padded)[1:], extents)
        predictions = self.decoder(levels, pixels_NChw, extents)
        outputs = [
            QueryOutput(class_logits_NQK=classes, mask_logits_NQhw=_cut(masks, _extent(size, MASK_STRIDE)), size=size)
            for classes, masks in predictions
        ]
        last = outputs[-1]
        return QueryOutput(
            class_logits_NQK=last.class_logits_NQK,
            mask_logits_NQhw=last.mask_logits_NQhw,
            size=size,
            aux=tuple(outputs[:-1]),
        )


def _extent(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of a map that hold some of an image of `size`."""
    return -(-size[0] // stride), -(-size[1] // stride)


def build(
    *,
    num_classes: int,
    in_channels: int,
    backbone: str,
    decoder: str,
    num_queries: int,
    layers: int,
    hidden: int,
    heads: int,
) -> Mask2Former:
    """A Mask2Former with random weights. Raises InputError on an unknown backbone or decoder, or on unfit numbers."""
    if decoder not in PIXEL_DECODERS:
        raise InputError(f"decoder: unknown {decoder!r}; expected one of: {', '.join(PIXEL_DECODERS)}")
    check_counts(num_queries=num_queries, layers=layers)
    check_heads("mask2former", hidden, heads)
    body = build_backbone(backbone, in_channels=in_channels)
    return Mask2Former(
        body,
        PIXEL_DECODERS[decoder](body.channels[1:], hidden, heads),
        QueryDecoder(num_classes, num_queries=num_queries, layers=layers, channels=hidden, heads=heads),
    )


def _published(dataset: str, split: str, metric: str, value: float) -> Published:
    return Published(
        dataset=dataset,
        split=split,
        protocol="ResNet-50 pretrained on ImageNet, 100 queries, single scale, one model for this task alone",
        metric=metric,
        value=value,
        source="paper, and MODEL_ZOO.md of the authors' code",
    )


SPEC = ModelSpec(
    name="mask2former",
    task=Task.PANOPTIC,
    output=QueryOutput,
    also=(Task.INSTANCE, Task.SEMANTIC),
    paper=(
        "Masked-attention Mask Transformer for Universal Image Segmentation, "
        "Cheng, Misra, Schwing, Kirillov, Girdhar, 2022, arXiv:2112.01527"
    ),
    build=build,
    options={
        "backbone": "resnet50",
        "decoder": "deformable",
        "num_queries": 100,
        "layers": 9,
        "hidden": 256,
        "heads": 8,
    },
    tiny={"backbone": "resnet18", "num_queries": 6, "layers": 4, "hidden": 32},
    size_divisor=DIVISOR,
    differs=(
        'decoder="fpn" is no part of the best model: it is the plain pyramid that the paper compares with, and what a '
        "model that learns on a CPU wants",
        "padding to a multiple of 32 is hidden from attention, and positions are shares of the image alone; the "
        "authors' code lets queries look at padding, too",
        "batch norm of the backbone learns; the authors' COCO configuration freezes ImageNet's",
        "weight decay falls on learned queries and positions too, from which the authors' optimiser keeps it",
        "feed-forward widths follow hidden (4 times in the pixel decoder, 8 times in the transformer decoder): at 256 "
        "they are the paper's 1024 and 2048; group norm has fewer groups below 64 channels",
    ),
    published=(
        _published("COCO panoptic", "val2017", "pq/all", 0.519),
        _published("COCO", "val2017", "ap/coco/segm", 0.437),
        _published("Cityscapes", "val", "pq/all", 0.621),
        _published("ADE20K", "val", "miou", 0.472),
    ),
)
