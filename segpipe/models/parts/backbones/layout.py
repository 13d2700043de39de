"""How a classifier becomes a backbone: where it is cut, and what may be asked of it. One `Layout` a member of a family.

A family is one file beside this one, with its table `LAYOUTS`; `__init__.py` joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

OUTPUT_STRIDES = (8, 16, 32)
# "frozen": statistics and affine parameters as loaded, never trained, since batches of one or two large images say
# little about either. From random weights it is no norm at all.
NORMS = ("batch", "frozen")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A classifier's layers up to its last map, and the five of them after which a map is taken.

    `layers(norm)` are its children in the order in which they are called, without pooling to one cell and classifier,
    under torchvision's names; `norm` is one of `norms`. The maps of `taps` lie at strides 2, 4, 8, 16, 32 of the
    undilated network and have `channels`. A network that begins at stride 4 has four taps, and 0 as its first number of
    channels. A layer may return two maps: the one to take, and the one that the next layer sees. `stem` is the name of
    the first convolution. `output_strides` are those that it can be dilated to.
    """

    layers: Callable[[str], Mapping[str, nn.Module]]
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    stem: str
    norms: tuple[str, ...] = NORMS
    output_strides: tuple[int, ...] = OUTPUT_STRIDES
