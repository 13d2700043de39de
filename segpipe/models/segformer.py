"""SegFormer: a transformer of four strides that needs no positions, and a decoder of linear layers alone.

SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, Xie, Wang, Yu, Anandkumar, Alvarez,
Luo, NeurIPS 2021, arXiv:2105.15203, figure 2 and table 6; what they leave open is as in the authors' code
(NVlabs/SegFormer), whose released weights load by their names, and those of transformers through `adapt`.

    images -> 7x7, stride 4 -> blocks -> 3x3, stride 2 -> blocks -> 3x3, stride 2 -> blocks -> 3x3, stride 2 -> blocks
                                 | stride 4                 | 8                        | 16                       | 32
                              linear                      linear                     linear                     linear
                                 `--------- concat, all bilinear to stride 4 ------------'-------------------------'
                                              -> 1x1, batch norm, ReLU -> dropout -> 1x1, K -> bilinear

The encoder, MiT, is `parts/mix_transformer.py`.

Letter legend: N batch, K classes, H W image size, h w map size, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.layers import BatchNorm2d, resize
from segpipe.models.parts.mix_transformer import HEADS, STAGES, MixTransformer, cells_of, maps_of
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts, check_shares
from segpipe.types import Task

# Table 6: channels and blocks of each stage, channels of the decoder.
NARROW, WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
MEMBERS = {
    "b0": (NARROW, (2, 2, 2, 2), 256),
    "b1": (WIDE, (2, 2, 2, 2), 256),
    "b2": (WIDE, (3, 4, 6, 3), 768),
    "b3": (WIDE, (3, 4, 18, 3), 768),
    "b4": (WIDE, (3, 8, 27, 3), 768),
    "b5": (WIDE, (3, 6, 40, 3), 768),
}
# Names in transformers' released files and ours; stages are counted from 0 there and from 1 here.
TRANSFORMERS = {
    r"^segformer\.encoder\.patch_embeddings\.(\d)\.layer_norm": "backbone.patch_embed{}.norm",
    r"^segformer\.encoder\.patch_embeddings\.(\d)\.": "backbone.patch_embed{}.",
    r"^segformer\.encoder\.block\.(\d)\.": "backbone.block{}.",
    r"^segformer\.encoder\.layer_norm\.(\d)\.": "backbone.norm{}.",
    r"^decode_head\.linear_c\.(\d)\.": "decode_head.linear_c{}.",
}
TRANSFORMERS_PARTS = {
    "attention.self.query": "attn.q",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
    "decode_head.linear_fuse.weight": "decode_head.linear_fuse.conv.weight",
    "decode_head.batch_norm": "decode_head.linear_fuse.bn",
    "decode_head.classifier": "decode_head.linear_pred",
}


class Linear(nn.Module):
    """A linear layer of each cell of a map."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, channels)

    def forward(self, maps_NChw: Tensor) -> Tensor:
        return maps_of(self.proj(cells_of(maps_NChw)), *maps_NChw.shape[-2:])


class Fuse(nn.Module):
    """1x1, batch norm, ReLU, under the authors' names."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = BatchNorm2d(channels)

    def forward(self, maps_NChw: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(maps_NChw)))


class Decoder(nn.Module):
    """Equation 4: maps, finest first -> logits at the stride of the first. They are put together coarsest first."""

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        for number, each in enumerate(in_channels, start=1):
            self.add_module(f"linear_c{number}", Linear(each, channels))
        self.linear_fuse = Fuse(len(in_channels) * channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        levels = [
            resize(self.get_submodule(f"linear_c{number}")(map_NChw), *size)
            for number, map_NChw in enumerate(maps, start=1)
        ]
        return self.linear_pred(self.dropout(self.linear_fuse(torch.cat(levels[::-1], dim=1))))  # type: ignore[no-any-return]


class SegFormer(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits."""

    def __init__(self, backbone: MixTransformer, num_classes: int, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = Decoder(backbone.channels, channels, num_classes, dropout)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        scores_NKhw = self.decode_head(self.backbone(images_NCHW))
        return DenseOutput(scores_NKhw=scores_NKhw, size=(images_NCHW.shape[-2], images_NCHW.shape[-1]))


def adapt(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released files: the authors', whose names are ours, and those of transformers, of MiT alone too.

    transformers keeps keys and values apart, which here are one layer, and both bring scores that nobody asks for.
    """
    adapted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key.startswith(("decode_head.conv_seg.", "classifier.")) or ".attention.self.value." in key:
            continue
        name, found = key, value
        if ".attention.self.key." in key:
            name = key.replace("attention.self.key", "attn.kv")
            values = state_dict.get(key.replace("self.key", "self.value"))
            if values is None:
                raise InputError(f"pretrained: {key} has no values beside it; expected a file as transformers saves it")
            found = torch.cat((value, values))
        for pattern, ours in TRANSFORMERS.items():
            name = re.sub(pattern, lambda match, ours=ours: ours.format(int(match[1]) + 1), name)  # type: ignore[misc]
        if name != key or key.startswith("decode_head."):
            for theirs, ours in TRANSFORMERS_PARTS.items():
                name = name.replace(theirs, ours)
        adapted[name] = found
    return adapted


def build(
    member: str,
    *,
    num_classes: int,
    in_channels: int,
    widths: list[int],
    depths: list[int],
    decoder_channels: int,
    drop_path: float,
    dropout: float,
) -> SegFormer:
    """A SegFormer with random weights.

    Raises InputError unless there are four widths, each a multiple of its number of heads, four depths of at least 1,
    and rates of at least 0 and below 1.
    """
    check_counts(decoder_channels=decoder_channels)
    counts = [each for each in (*widths, *depths) if type(each) is int and each >= 1]
    if len(widths) != STAGES or len(depths) != STAGES or len(counts) != 2 * STAGES:
        raise InputError(f"widths, depths: {widths}, {depths}; expected four whole numbers of at least 1 each")
    if any(width % heads for width, heads in zip(widths, HEADS, strict=True)):
        raise InputError(f"widths: {widths}; expected multiples of {', '.join(map(str, HEADS))}, the numbers of heads")
    check_shares(drop_path=drop_path, dropout=dropout)
    body = MixTransformer(f"mit_{member}", in_channels, widths, depths, drop_path)
    return SegFormer(body, num_classes, channels=decoder_channels, dropout=dropout)


def _published(dataset: str, size: str, *values: float) -> list[Published]:
    """At one scale and, where it is given, at several."""
    return [
        Published(
            dataset=dataset,
            split="val",
            protocol=f"encoder pretrained on ImageNet-1k, crops of {size}, {scales}",
            metric="miou",
            value=value,
            source="paper, table 1a",
        )
        for value, scales in zip(values, ("one scale", "several scales, flipped"), strict=False)
    ]


def _spec(
    member: str, ade20k: tuple[float, ...], cityscapes: tuple[float, ...], parameters: int, printed: str
) -> ModelSpec:
    widths, depths, channels = MEMBERS[member]
    return ModelSpec(
        name=f"segformer_{member}",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=(
            "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, Xie, Wang, Yu, "
            "Anandkumar, Alvarez, Luo, 2021, arXiv:2105.15203"
        ),
        build=partial(build, member),
        options={
            "widths": list(widths),
            "depths": list(depths),
            "decoder_channels": channels,
            "drop_path": 0.1,
            "dropout": 0.1,
        },
        tiny={"widths": [4, 8, 10, 16], "depths": [1, 1, 1, 1], "decoder_channels": 8},
        size_divisor=1,
        differs=(
            "a map smaller than the cells that keys are reduced to is filled up with zeros, so that images of any size "
            "pass; the authors' code fails below 32 pixels",
            "logits of stride 4 are resized to the input here; the authors leave that to what evaluates",
            "a single value per channel (batch 1, 1x1 map) is normalised by the running statistics",
        ),
        published=(
            *_published("ADE20K", "640x640" if member == "b5" else "512x512", *ade20k),
            *_published("Cityscapes", "1024x1024", *cityscapes),
        ),
        counted=(
            Counted(
                parameters=parameters,
                num_classes=150,
                source=f"transformers 5.23, SegformerForSemanticSegmentation of {member.upper()}'s sizes",
                published=f"{printed} M (encoder and decoder; paper, table 1a)",
            ),
        ),
        adapt=adapt,
    )


SPECS = (
    _spec("b0", (0.374, 0.380), (0.762, 0.781), 3_752_694, "3.8"),
    _spec("b1", (0.422, 0.431), (0.785, 0.800), 13_715_798, "13.7"),
    _spec("b2", (0.465, 0.475), (0.810, 0.822), 27_461_974, "27.5"),
    _spec("b3", (0.494, 0.500), (0.817, 0.833), 47_337_814, "47.3"),
    _spec("b4", (0.503, 0.511), (0.823, 0.839), 64_108_374, "64.1"),
    _spec("b5", (0.510, 0.518), (0.824, 0.840), 84_708_694, "84.7"),
)
