"""What a dense model returns and how an architecture describes itself. Every file in `models/` ends in a `SPEC`.

Letter legend: N batch, K classes, H W image size in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from segpipe.types import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseOutput:
    """What every dense (per-pixel) model returns, in train and eval alike.

    `logits_NKHW` are unnormalised scores at the input's height and width. `aux` holds further logits_NKHW, also at
    input size, by the name of their head; it may be empty.
    """

    logits_NKHW: Tensor
    aux: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A number that the authors of an architecture (or of its reference code) printed, with its protocol."""

    dataset: str
    split: str
    protocol: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One architecture.

    `build(num_classes=, in_channels=, **options)` makes the module with random weights. `options` are its keyword
    options with their defaults; anything else is refused before it is called. `differs` lists every knowing departure
    from the paper. `adapt(state_dict)` renames the keys of released weights to ours. `size_divisor` is what H and W are
    padded to inside the model; callers may pass any size.
    """

    name: str
    task: Task
    paper: str
    build: Callable[..., nn.Module]
    options: Mapping[str, Any]
    size_divisor: int
    differs: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    adapt: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
