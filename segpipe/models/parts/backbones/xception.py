"""Xception-41, -65 and -71, aligned and modified: separable convolutions alone, and strides instead of pooling.

Encoder-Decoder with Atrous Separable Convolution, Chen et al., 2018, arXiv:1802.02611, figure 4, after Xception:
Deep Learning with Depthwise Separable Convolutions, Chollet, 2016, arXiv:1610.02357; in details as the authors' code
(github.com/tensorflow/models, research/deeplab/core/xception.py).

    entry flow   3x3, 32, stride 2 -> 3x3, 64 -> units 128, 256, 728, each of stride 2 (-71: two more, unstrided)
    middle flow  units 728 (8 times in -41, 16 times in -65 and -71)
    exit flow    unit 728, 1024, 1024 of stride 2 -> separable 1536, 1536, 2048
    a unit       x -> [ReLU, 3x3 depthwise, norm, 1x1, norm] x 3, the last one strided -> + x, or + its 1x1, norm

Maps of strides 4, 8 and 16 are taken within the unit that halves them, behind its second separable convolution, as the
authors' decoder takes that of stride 4. Weights start at random: the authors have none for PyTorch. "xception_tiny", an
eighth of the channels and two units in the middle, is not theirs: for tests and for a first run on a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from segpipe.models.parts.backbones.layout import Layout
from segpipe.models.parts.layers import BatchNorm2d

EPSILON = 0.001
NORM_LAYERS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": lambda channels: BatchNorm2d(channels, eps=EPSILON),
    "frozen": lambda channels: FrozenBatchNorm2d(channels, eps=EPSILON),
}
Norm = Callable[[int], nn.Module]
STEM = (32, 64)
MIDDLE, EXIT_UNIT, EXIT = (728, 728, 728), (728, 1024, 1024), (1536, 1536, 2048)
# Units of the entry flow: channels and stride.
ENTRY = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))


class Unit(nn.Module):
    """Three separable convolutions, the last one strided, and a shortcut.

    With `tapped` it returns two maps: what comes out of the second convolution, before the stride, and the result.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], norm: Norm, *, stride: int = 1, tapped: bool = False
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.separable1 = separable(in_channels, first, norm)
        self.separable2 = separable(first, second, norm)
        self.separable3 = separable(second, third, norm, stride=stride)
        projected = stride > 1 or in_channels != third
        self.shortcut = (
            nn.Sequential(nn.Conv2d(in_channels, third, 1, stride=stride, bias=False), norm(third))
            if projected
            else nn.Identity()
        )
        self.tapped = tapped

    def forward(self, features_NCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        inner = self.separable2(self.separable1(features_NCHW))
        result = self.separable3(inner) + self.shortcut(features_NCHW)
        return (inner, result) if self.tapped else result


def separable(in_channels: int, out_channels: int, norm: Norm, *, stride: int = 1) -> nn.Sequential:
    """ReLU before, and none between the two: what comes in may be a shortcut's, too, so nothing is done in place."""
    return nn.Sequential(
        nn.ReLU(), *_depthwise(in_channels, norm, stride), *_pointwise(in_channels, out_channels, norm)
    )


def separable_relu(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """ReLU behind each of the two, as at the end of the network."""
    return nn.Sequential(
        *_depthwise(in_channels, norm, 1), nn.ReLU(), *_pointwise(in_channels, out_channels, norm), nn.ReLU()
    )


def _depthwise(channels: int, norm: Norm, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, norm(channels)


def _pointwise(in_channels: int, out_channels: int, norm: Norm) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    # No ReLU lies before it, so that the size of what comes in is kept as it is.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    return conv, norm(out_channels)


def _layout(entry: Sequence[tuple[int, int]], middle: int, *, narrowed: int = 1) -> Layout:
    """`middle` units in the middle flow; all channels divided by `narrowed`."""
    stem, middle_unit, exit_unit, exit_flow = (
        tuple(channels // narrowed for channels in flow) for flow in (STEM, MIDDLE, EXIT_UNIT, EXIT)
    )
    entry = [(channels // narrowed, stride) for channels, stride in entry]
    halving = [f"entry{place}" for place, (_, stride) in enumerate(entry, start=1) if stride == 2]
    taps = ("relu2", *halving[1:], "exit1", "exit2")

    def layers(norm_name: str) -> Mapping[str, nn.Module]:
        norm = NORM_LAYERS[norm_name]
        made: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(zip((3, *stem), stem, strict=False), start=1):
            made[f"conv{number}"] = nn.Conv2d(before, after, 3, stride=2 if number == 1 else 1, padding=1, bias=False)
            made[f"bn{number}"] = norm(after)
            made[f"relu{number}"] = nn.ReLU()
        before = stem[-1]
        for number, (channels, stride) in enumerate(entry, start=1):
            name = f"entry{number}"
            made[name] = Unit(before, (channels,) * 3, norm, stride=stride, tapped=name in taps)
            before = channels
        made |= {f"middle{number}": Unit(before, middle_unit, norm) for number in range(1, middle + 1)}
        made["exit1"] = Unit(before, exit_unit, norm, stride=2, tapped=True)
        pairs = zip((exit_unit[-1], *exit_flow), exit_flow, strict=False)
        made["exit2"] = nn.Sequential(*(separable_relu(before, after, norm) for before, after in pairs))
        return made

    inner = [channels for channels, stride in entry if stride == 2][1:]
    return Layout(layers=layers, taps=taps, channels=(stem[-1], *inner, exit_unit[1], exit_flow[-1]), stem="conv1")


LAYOUTS = {
    "xception41": _layout(ENTRY, 8),
    "xception65": _layout(ENTRY, 16),
    "xception71": _layout(ENTRY_71, 16),
    "xception_tiny": _layout(ENTRY, 2, narrowed=8),
}
