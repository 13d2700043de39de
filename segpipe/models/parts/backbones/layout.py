"""How a classifier becomes a backbone: where it is cut, and what may be asked of it. One `Layout` a member of a family.

A family is one file beside this one, with its table `LAYOUTS`; `__init__.py` joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from segpipe.models.parts.backbones.covering import cover
from segpipe.models.parts.layers import BatchNorm2d

OUTPUT_STRIDES = (8, 16, 32)
# "frozen": statistics and affine parameters as loaded, never trained, since batches of one or two large images say
# little about either. From random weights it is no norm at all.
NORMS = ("batch", "frozen")
NORM_LAYERS: Mapping[str, Callable[..., nn.Module]] = {"batch": BatchNorm2d, "frozen": FrozenBatchNorm2d}
NO_NORM = ("none",)
LAYER_NORM = ("layer",)  # of networks that have no other


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A classifier's layers up to its last map, and the five of them after which a map is taken.

    `layers(norm)` are its children in the order in which they are called, without pooling to one cell and classifier,
    under torchvision's names; `norm` is one of `norms`, the first of which is the default. The maps of `taps` lie at
    strides 2, 4, 8, 16, 32 of the undilated network and have `channels`. A network that begins at stride 4 has four
    taps, and 0 as its first number of channels. A layer may return a pair: the map to take, or all maps, and what the
    next layer sees. `stem` is the name of the first convolution. `output_strides` are those that it can be dilated to.
    `finish(channels)` makes what is done to each map on its way out, beside the layers; None leaves maps as they are.
    """

    layers: Callable[[str], Mapping[str, nn.Module]]
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    stem: str
    norms: tuple[str, ...] = NORMS
    output_strides: tuple[int, ...] = OUTPUT_STRIDES
    finish: Callable[[int], nn.Module] | None = None


def patch_layout(
    classifier: Callable[..., nn.Module],
    width: int,
    *,
    finish: Callable[[int], nn.Module],
    output_strides: tuple[int, ...],
) -> Layout:
    """torchvision's classifiers that begin with patches of 4 x 4 and merge 2 x 2 of them: four stages, of `width`
    channels and twice as many in each. Patches cover the whole image."""

    def layers(norm: str) -> Mapping[str, nn.Module]:
        features = classifier(weights=None).get_submodule("features")
        cover(features)
        return dict(features.named_children())

    return Layout(
        layers=layers,
        taps=("1", "3", "5", "7"),
        channels=(0, width, 2 * width, 4 * width, 8 * width),
        stem="0.0",
        norms=LAYER_NORM,
        output_strides=output_strides,
        finish=finish,
    )
