"""MiT, the encoder of SegFormer: transformer blocks at four strides, that see places by depthwise convolutions.

SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, Xie, Wang, Yu, Anandkumar, Alvarez,
Luo, NeurIPS 2021, arXiv:2105.15203, sections 3.1 and A; what they leave open is as in the authors' code
(NVlabs/SegFormer, mix_transformer.py), whose names the modules have, so that its ImageNet files fit.

    block  sum with efficient attention of the norm: keys and values of R x R cells each (a convolution of stride R)
           sum with Mix-FFN of the norm: linear to 4C -> 3x3 depthwise, which tells places -> GELU -> linear to C

Letter legend: N batch, H W image size, h w map size, S cells of a map, T of a reduced one, C channels, E heads, c
channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

STAGES = 4
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
FFN_RATIO = 4
EPSILON = 1e-6  # of the norms of blocks and maps; those of embeddings and reductions keep torch's


def cells_of(maps_NChw: Tensor) -> Tensor:
    """(N, S, C), row after row."""
    return maps_NChw.flatten(2).transpose(1, 2)


def maps_of(cells_NSC: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) of `height` x `width` cells, row after row, in channels-last memory.

    Not transposed and reshaped: of one image that has strides in which torch does not see that memory, and what is
    resized comes out contiguous, to be turned by the next convolution.
    """
    cells_NhwC = cells_NSC.reshape(cells_NSC.shape[0], height, width, cells_NSC.shape[2])
    return cells_NhwC.permute(0, 3, 1, 2)


class PatchEmbedding(nn.Module):
    """Overlapping patches: a convolution wider than its stride, and a layer norm. Gives ceil(H / stride) rows."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps_NCHW: Tensor) -> tuple[Tensor, int, int]:
        """Cells (N, S, C), row after row, and how many rows and columns they are."""
        found_NChw = self.proj(maps_NCHW)
        height, width = found_NChw.shape[-2:]
        return self.norm(cells_of(found_NChw)), height, width


class EfficientAttention(nn.Module):
    """Every cell looks at means of R x R cells, learned (section 3.1): S * S / R**2 pairs instead of S * S."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, cells_NSC: Tensor, height: int, width: int) -> Tensor:
        seen_NTC = cells_NSC
        if self.reduction > 1:
            maps_NChw = maps_of(cells_NSC, height, width)
            # A map smaller than one reduced cell fills it up with zeros; rows and columns beyond the last are not seen.
            short = (0, max(0, self.reduction - width), 0, max(0, self.reduction - height))
            seen_NTC = self.norm(cells_of(self.sr(F.pad(maps_NChw, short))))
        queries_NESc = self._of_heads(self.q(cells_NSC))
        keys_NETc, values_NETc = (self._of_heads(each) for each in self.kv(seen_NTC).chunk(2, dim=2))
        mixed_NESc = F.scaled_dot_product_attention(queries_NESc, keys_NETc, values_NETc)
        return self.proj(mixed_NESc.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _of_heads(self, cells_NSC: Tensor) -> Tensor:
        return cells_NSC.reshape(*cells_NSC.shape[:2], self.heads, -1).transpose(1, 2)


class DepthwiseConvolution(nn.Module):
    """3 x 3 on the map that the cells are; its zero padding is what tells them where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, cells_NSC: Tensor, height: int, width: int) -> Tensor:
        return cells_of(self.dwconv(maps_of(cells_NSC, height, width)))


class MixFFN(nn.Module):
    """Equation 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, FFN_RATIO * channels)
        self.dwconv = DepthwiseConvolution(FFN_RATIO * channels)
        self.fc2 = nn.Linear(FFN_RATIO * channels, channels)

    def forward(self, cells_NSC: Tensor, height: int, width: int) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(cells_NSC), height, width)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and Mix-FFN, each of a norm and added; in training either is left out for an image by `drop_path`."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attn = EfficientAttention(channels, heads, reduction)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = MixFFN(channels)

    def forward(self, cells_NSC: Tensor, height: int, width: int) -> Tensor:
        cells_NSC = cells_NSC + self.drop_path(self.attn(self.norm1(cells_NSC), height, width))
        return cells_NSC + self.drop_path(self.mlp(self.norm2(cells_NSC), height, width))  # type: ignore[no-any-return]


class MixTransformer(nn.Module):
    """MiT: images_NCHW (H, W >= 1) -> maps of strides 4, 8, 16, 32, finest first. Names are those of the authors."""

    def __init__(
        self, name: str, in_channels: int, channels: Sequence[int], depths: Sequence[int], drop_path: float
    ) -> None:
        super().__init__()
        self.name, self.stem = name, "patch_embed1.proj"
        self.channels = tuple(channels)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        for stage, (width, depth) in enumerate(zip(channels, depths, strict=True), start=1):
            kernel_size, stride = (7, 4) if stage == 1 else (3, 2)
            heads, reduction = HEADS[stage - 1], REDUCTIONS[stage - 1]
            blocks = (Block(width, heads, reduction, next(rates)) for _ in range(depth))
            self.add_module(f"patch_embed{stage}", PatchEmbedding(in_channels, width, kernel_size, stride))
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=EPSILON))
            in_channels = width
        self.apply(_start)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        for stage in range(1, STAGES + 1):
            given_NCHW = maps[-1] if maps else images_NCHW
            cells_NSC, height, width = self.get_submodule(f"patch_embed{stage}")(given_NCHW)
            for block in self.get_submodule(f"block{stage}").children():
                cells_NSC = block(cells_NSC, height, width)
            maps.append(maps_of(self.get_submodule(f"norm{stage}")(cells_NSC), height, width))
        return tuple(maps)


def _start(module: nn.Module) -> None:
    """The authors' start of the encoder."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
