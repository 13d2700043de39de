"""Every network of timm that has maps at the usual strides, as a backbone named "timm/NAME". Needs the extra `timm`.

PyTorch Image Models, Wightman, 2019, github.com/huggingface/pytorch-image-models. timm is imported when one of its
networks is asked for and not before: it is large, and most installations do without.

Letter legend: N batch, C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.backbones.layout import Layout

PREFIX = "timm/"
BODY = "body"
STRIDES = (2, 4, 8, 16, 32)
SIDES = (64, 96)  # of an image that the network is tried on


class TimmMaps(nn.Module):
    """images_NCHW of any H, W >= 1 -> the maps of timm's network, finest first, of ceil(H / s) x ceil(W / s) cells, and
    the last of them again (see `Layout`).

    Some networks round sizes up, others down or refuse them: all are given multiples of 32, padded with zeros at the
    far ends, and the cells of the padding are cut off.
    """

    def __init__(self, body: nn.Module, strides: tuple[int, ...], channels_last: bool) -> None:
        super().__init__()
        self.body = body
        self.strides = strides
        self.channels_last = channels_last

    def forward(self, images_NCHW: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        height, width = images_NCHW.shape[-2:]
        maps = self.body(F.pad(images_NCHW, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])))
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        cut = tuple(
            features[..., : -(-height // stride), : -(-width // stride)]
            for features, stride in zip(maps, self.strides, strict=True)
        )
        return cut, cut[-1]


def layout(name: str, *, in_channels: int, output_stride: int) -> Layout:
    """The network "timm/NAME", with random weights, as layers that give all of its maps at once.

    Raises InputError where timm is not installed, does not know the network or cannot dilate it, and on a network
    without maps of strides 4, 8, 16 and 32 (or as far as `output_stride`), or one that takes images of one size alone.
    """
    make = _maker(name, in_channels, output_stride)
    with torch.device("meta"):
        tried = make()
        strides, channels = _maps_of(tried, name, output_stride)
        channels_last = str(getattr(tried, "output_fmt", "NCHW")).endswith("NHWC")
        try:
            found, _ = TimmMaps(tried, strides, channels_last)(torch.empty(1, in_channels, *SIDES))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(f"backbone: {name} cannot be given images of any size: {error}") from None
    expected = [
        (1, count, *(side // stride for side in SIDES)) for count, stride in zip(channels, strides, strict=True)
    ]
    if [tuple(features.shape) for features in found] != expected:
        shapes = [tuple(features.shape) for features in found]
        raise InputError(f"backbone: {name} gives maps of {shapes}; expected {expected}, as it says itself")
    stem = next(key for key, module in tried.named_modules() if isinstance(module, nn.Conv2d))
    return Layout(
        layers=lambda norm: {BODY: TimmMaps(make(), strides, channels_last)},
        taps=(BODY,),
        channels=(0,) * (len(STRIDES) - len(channels)) + channels,
        stem=f"{BODY}.body.{stem}",
    )


def keys_of_features(found: Mapping[str, Tensor], ours: Collection[str]) -> dict[str, Tensor]:
    """A whole classifier's tensors under the names of its features alone, `ours`; what lies behind them is left out.

    timm flattens what it cuts: the classifier's "stages.0.conv" is the features' "stages_0.conv".
    """
    tops = {key.partition(".")[0] for key in ours}
    kept = {}
    for key, value in found.items():
        for name in (key, key.replace(".", "_", 1)):
            if name.partition(".")[0] in tops:
                kept[name] = value
                break
    return kept


def _maker(name: str, in_channels: int, output_stride: int) -> Any:
    try:
        import timm
    except ImportError:
        raise InputError(
            f"backbone: {name} needs the package timm, which is not installed; pip install 'segpipe[timm]'"
        ) from None
    dilated = {} if output_stride == STRIDES[-1] else {"output_stride": output_stride}

    def make() -> nn.Module:
        try:
            made: nn.Module = timm.create_model(
                name.removeprefix(PREFIX), pretrained=False, features_only=True, in_chans=in_channels, **dilated
            )
        except (
            RuntimeError,
            TypeError,
            ValueError,
            AssertionError,
            AttributeError,
        ) as error:  # timm has none of its own
            raise InputError(
                f"backbone: timm does not make {name} with output_stride={output_stride}: {error}"
            ) from None
        return made

    return make


def _maps_of(body: Any, name: str, output_stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(strides, channels) of the maps, as the network says. Raises InputError where they are not the usual ones."""
    strides, channels = tuple(body.feature_info.reduction()), tuple(body.feature_info.channels())
    usual = tuple(min(stride, output_stride) for stride in STRIDES)
    if strides not in (usual, usual[1:]):
        raise InputError(
            f"backbone: {name} has maps of strides {', '.join(map(str, strides))}; expected "
            f"{', '.join(map(str, usual))}, with or without the first"
        )
    return strides, channels
