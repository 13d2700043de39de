"""GrabCut as a model: one mask for each box that comes with an image. No network, and nothing is learned.

GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts, Rother, Kolmogorov, Blake, 2004, ACM Transactions
on Graphics 23(3). The method is in `segpipe/classical/grabcut.py`.

    images, normalised -> RGB of 8 bits -> for each box: mixtures of Gaussians, minimum cut, in turn -> mask

Letter legend: N batch, H W image size, C channels, M boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from segpipe.classical.grabcut import masks_of
from segpipe.errors import InputError
from segpipe.models.parts.colours import check_rgb, rgb_of
from segpipe.models.spec import Held, MaskOutput, ModelSpec, check_counts
from segpipe.types import Task


class GrabCut(nn.Module):
    """Maps (images_NCHW, boxes (M, 4) of each image) to MaskOutput. Images are normalised RGB, of any H, W >= 1; boxes
    are x0, y0, x1, y1 in pixels, None for one around each whole image."""

    def __init__(self, *, iterations: int, context: float, least_side: int) -> None:
        super().__init__()
        self.masks_of = partial(masks_of, iterations=iterations, context=context, least_side=least_side)

    def forward(self, images_NCHW: Tensor, boxes: Sequence[Tensor] | None = None) -> MaskOutput:
        n, _, height, width = images_NCHW.shape
        if boxes is None:
            boxes = [torch.tensor([[0.0, 0.0, width, height]])] * n
        return MaskOutput(
            masks=tuple(
                torch.from_numpy(self.masks_of(image_HW3, boxes_M4.cpu().numpy()))
                for image_HW3, boxes_M4 in zip(rgb_of(images_NCHW), boxes, strict=True)
            )
        )


def build(*, num_classes: int, in_channels: int, iterations: int, context: float, least_side: int) -> GrabCut:
    """Whatever the number of classes: whoever gives a box knows its class. Raises InputError on options out of range,
    and unless images are RGB."""
    check_rgb(in_channels)
    check_counts(iterations=iterations, least_side=least_side)
    if not 0 < context < float("inf"):
        raise InputError(f"context: expected a number above 0, found {context}")
    return GrabCut(iterations=iterations, context=context, least_side=least_side)


SPEC = ModelSpec(
    name="grabcut",
    task=Task.INSTANCE,
    output=MaskOutput,
    learns_by="nothing",
    paper=(
        "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts, Rother, Kolmogorov, Blake, 2004, ACM "
        "Transactions on Graphics 23(3)"
    ),
    build=build,
    requires=("opencv-python-headless",),
    held=Held(pixel=32, box=0.25),  # one look at all of the image; a mask a box
    options={"iterations": 5, "context": 0.5, "least_side": 128},
    tiny={"iterations": 1, "least_side": 1},
    size_divisor=1,
    differs=(
        "the box alone: nobody draws strokes afterwards, and borders are not matted",
        "a fixed number of iterations instead of going on until nothing changes",
        "what lies in a box of less than `least_side` pixels is enlarged: the border of a small object costs more than "
        "to call it background, and two of five objects of COCO vanished",
        "the background is what lies around a box as far as `context` times its sides, instead of all of the image: of "
        "many objects in a large one, each costs what its box does",
    ),
)
