"""torchvision's classifiers as feature extractors: one class, five maps, output stride 8, 16 or 32.

Below every architecture of `models/`. Weights keep the keys of torchvision's segmentation models ("backbone." is added
by the owner), so that released files fit without renaming.

Letter legend: N batch, C channels, H W image size. A map "of stride s" has ceil(H / s) x ceil(W / s) cells.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision.models import (
    mobilenet_v3_large,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
)
from torchvision.ops import FrozenBatchNorm2d

from segpipe.errors import InputError
from segpipe.models.layers import BatchNorm2d

OUTPUT_STRIDES = (8, 16, 32)
# "frozen": statistics and affine parameters as loaded, never trained, since batches of one or two large images say
# little about either. From random weights it is no norm at all.
NORMS = ("batch", "frozen")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a torchvision classifier is cut: the five children after which a map is taken, and their channels.

    The maps lie at strides 2, 4, 8, 16, 32 of the undilated network. `frozen_norm` is `norm` where it is not to train.
    """

    classifier: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    frozen_norm: Callable[..., nn.Module]
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    stem: str


def _resnet(classifier: Callable[..., nn.Module], expansion: int) -> Layout:
    return Layout(
        classifier=classifier,
        norm=BatchNorm2d,
        frozen_norm=FrozenBatchNorm2d,
        taps=("relu", "layer1", "layer2", "layer3", "layer4"),
        channels=(64, 64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion),
        stem="conv1",
    )


BACKBONES: dict[str, Layout] = {
    "resnet18": _resnet(resnet18, 1),
    "resnet34": _resnet(resnet34, 1),
    "resnet50": _resnet(resnet50, 4),
    "resnet101": _resnet(resnet101, 4),
    "resnet152": _resnet(resnet152, 4),
    "resnext50_32x4d": _resnet(resnext50_32x4d, 4),
    "resnext101_32x8d": _resnet(resnext101_32x8d, 4),
    "mobilenet_v3_large": Layout(
        classifier=mobilenet_v3_large,
        norm=partial(BatchNorm2d, eps=0.001, momentum=0.01),
        frozen_norm=partial(FrozenBatchNorm2d, eps=0.001),
        taps=("1", "3", "6", "12", "16"),
        channels=(16, 24, 40, 112, 960),
        stem="0.0",
    ),
}


class Backbone(nn.Sequential):
    """Maps images_NCHW to five maps, finest first.

    Their strides are 2, 4, 8, 16, 32, none above `output_stride`: the stages beyond it are dilated instead of strided.
    (A backbone built with `taps` gives those maps instead.)
    `channels` are the maps' channels, `stem` the name of the first convolution.
    """

    def __init__(self, name: str, stages: Mapping[str, nn.Module], layout: Layout) -> None:
        super().__init__(OrderedDict(stages))
        self.name = name
        self.channels = layout.channels
        self.stem = layout.stem
        self._taps = frozenset(layout.taps)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        features = images_NCHW
        for name, stage in self.named_children():
            features = stage(features)
            if name in self._taps:
                maps.append(features)
        return tuple(maps)


def build_backbone(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    norm: str = "batch",
    taps: Mapping[str, int] | None = None,
) -> Backbone:
    """A backbone with random weights. Raises InputError on an unknown name, output stride or norm.

    `norm` is one of NORMS. `taps` are the children to take maps after, with their channels, instead of the usual five.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"backbone: unknown {name!r}{hint} Expected one of: {', '.join(BACKBONES)}")
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(f"output_stride: {output_stride!r} is not one of {', '.join(map(str, OUTPUT_STRIDES))}")
    if norm not in NORMS:
        raise InputError(f"norm: {norm!r} is not one of {', '.join(NORMS)}")
    layout = BACKBONES[name]
    if taps is not None:
        layout = dataclasses.replace(layout, taps=tuple(taps), channels=tuple(taps.values()))
    norm_layer = layout.norm if norm == "batch" else layout.frozen_norm
    classifier = layout.classifier(weights=None, norm_layer=norm_layer)
    body = classifier.get_submodule("features") if hasattr(classifier, "features") else classifier
    stages = OrderedDict((key, child) for key, child in body.named_children() if key not in ("avgpool", "fc"))
    stride_to_dilation(stages, output_stride)
    backbone = Backbone(name, stages, layout)
    if in_channels != 3:
        _replace_stem(backbone, in_channels)
    return backbone


def stride_to_dilation(stages: Mapping[str, nn.Module], output_stride: int) -> None:
    """Turns the strides beyond `output_stride` into dilation, in place, by the atrous rule.

    A convolution that loses its stride keeps its own dilation, since its input has not changed; every larger kernel
    behind it reaches twice as far. The result, read at every second cell, is that of the strided network exactly (but
    for squeeze-and-excitation, which averages over more cells). For Bottleneck this is torchvision's
    `replace_stride_with_dilation`; its BasicBlock refuses dilation, and its dilated MobileNetV3 also widens the
    convolution that loses the stride, so that ImageNet weights would see their inputs at another spacing.
    """
    stride, dilation = 1, 1
    for module in (m for stage in stages.values() for m in stage.modules()):
        if isinstance(module, nn.MaxPool2d):
            stride *= 2
        if not isinstance(module, nn.Conv2d):
            continue
        strided, kernel = module.stride[0] > 1, module.kernel_size[0]
        if kernel == 1:
            # A strided shortcut stands behind the convolution of its block, so `dilation` already tells its stage.
            module.stride = (1, 1) if dilation > 1 else module.stride
        elif strided and stride < output_stride:
            stride *= 2
        else:
            module.stride = (1, 1)
            module.dilation = (dilation, dilation)
            module.padding = (dilation * (kernel // 2), dilation * (kernel // 2))
            dilation *= 2 if strided else 1


def _replace_stem(backbone: Backbone, in_channels: int) -> None:
    old = backbone.get_submodule(backbone.stem)
    assert isinstance(old, nn.Conv2d)
    size, stride = old.kernel_size[0], old.stride[0]
    new = nn.Conv2d(in_channels, old.out_channels, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    backbone.set_submodule(backbone.stem, new)
