"""Classifiers as feature extractors: one class, five maps, output stride 8, 16 or 32.

Below every architecture of `models/`. Weights keep the keys of torchvision's classifiers ("backbone." is added by the
owner), so that released files fit without renaming. A family is one file here and its line in `BACKBONES`.

Letter legend: N batch, C channels, H W image size. A map "of stride s" has ceil(H / s) x ceil(W / s) cells.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts.backbones import convnext, mobilenet, resnet, swin, timm_features, vgg, xception
from segpipe.models.parts.backbones.dilation import set_multi_grid, stride_to_dilation, units_between
from segpipe.models.parts.backbones.layout import NORMS, OUTPUT_STRIDES, Layout

__all__ = [
    "BACKBONES",
    "MAP_NORMS",
    "NORMS",
    "OUTPUT_STRIDES",
    "Backbone",
    "Layout",
    "build_backbone",
    "with_stem",
]

BACKBONES: dict[str, Layout] = {
    **resnet.LAYOUTS,
    **mobilenet.LAYOUTS,
    **vgg.LAYOUTS,
    **xception.LAYOUTS,
    **convnext.LAYOUTS,
    **swin.LAYOUTS,
}
# Of each map, beside the classifier's layers, where a family has any: no classifier's file can hold them.
MAP_NORMS = "norms"


class Backbone(nn.Sequential):
    """Maps images_NCHW to five maps, finest first.

    Their strides are 2, 4, 8, 16, 32, none above `output_stride`: the stages beyond it are dilated instead of strided.
    (A backbone built with `taps` gives those maps instead.) A network that begins at stride 4 gives a first map of no
    channels: what joins it by concatenation need not know. `channels` are the maps' channels, `stem` the name of the
    first convolution.
    """

    def __init__(self, name: str, layers: Mapping[str, nn.Module], layout: Layout) -> None:
        super().__init__(OrderedDict(layers))
        self.name = name
        self.channels = layout.channels
        self.stem = layout.stem
        self._taps = layout.taps
        self._layers = tuple(layers)
        if layout.finish is not None:
            norms = (layout.finish(channels) for channels in layout.channels if channels)
            self.add_module(MAP_NORMS, nn.ModuleList(norms))

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        height, width = images_NCHW.shape[-2:]
        maps: list[Tensor] = []
        if self.channels[0] == 0:
            maps.append(images_NCHW.new_empty(len(images_NCHW), 0, -(-height // 2), -(-width // 2)))
        features = images_NCHW
        for name in self._layers:
            given = self.get_submodule(name)(features)
            taken, features = given if isinstance(given, tuple) else (given, given)
            if isinstance(taken, tuple):  # all maps at once
                maps.extend(taken)
            elif name in self._taps:
                maps.append(self._finished(taken, self._taps.index(name)))
        return tuple(maps)

    def _finished(self, features: Tensor, number: int) -> Tensor:
        norms = self._modules.get(MAP_NORMS)
        return features if norms is None else norms.get_submodule(str(number))(features)


def build_backbone(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    norm: str | None = None,
    taps: Mapping[str, int] | None = None,
    widened: bool = False,
    multi_grid: Sequence[int] = (),
) -> Backbone:
    """A backbone with random weights. Raises InputError on an unknown name, or an output stride or norm it cannot have.

    `norm` is one of those that its `Layout` has, and by default the first of them: "batch", or "none" or "layer" of a
    network without any. `taps` are the layers to take maps after, with their channels, instead of the usual five.
    `widened` and `multi_grid`, the rates of the units of the last stage as multiples of that stage's own, are
    `dilation.py`'s; none means the atrous rule alone. "timm/NAME" is a network of timm (`timm_features.py`), as it
    comes.
    """
    if name.startswith(timm_features.PREFIX):
        if norm not in (None, "batch") or taps is not None or widened or multi_grid:
            raise InputError(f"backbone: {name} has timm's norms, maps and dilation; choose another, or leave them out")
        layout = timm_features.layout(name, in_channels=in_channels, output_stride=output_stride)
        return Backbone(name, layout.layers(layout.norms[0]), layout)
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"backbone: unknown {name!r}{hint} Expected one of: {', '.join(BACKBONES)}, timm/NAME")
    layout = BACKBONES[name]
    if output_stride not in layout.output_strides:
        known = ", ".join(map(str, layout.output_strides))
        raise InputError(f"output_stride: {output_stride!r} is not one of {known}, which {name} can have")
    norm = layout.norms[0] if norm is None else norm
    if norm not in layout.norms:
        raise InputError(f"norm: {norm!r} is not one of {', '.join(layout.norms)}, which {name} can have")
    layers = layout.layers(norm)
    stride_to_dilation(layers, output_stride, widened=widened)
    if multi_grid:
        set_multi_grid(units_between(layers, *layout.taps[-2:]), multi_grid)
    if taps is not None:
        layout = dataclasses.replace(layout, taps=tuple(taps), channels=tuple(taps.values()))
    return with_stem(Backbone(name, layers, layout), in_channels)


def with_stem(backbone: Backbone, in_channels: int) -> Backbone:
    """The backbone for images of `in_channels`: a first convolution for others gives way to a random one, in place."""
    old = backbone.get_submodule(backbone.stem)
    assert isinstance(old, nn.Conv2d)
    if old.in_channels == in_channels:
        return backbone
    new = type(old)(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    backbone.set_submodule(backbone.stem, new)
    return backbone
