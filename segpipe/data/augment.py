"""Random scale, crop, flip and draw of colours of one decoded sample. Sits between `decode.py` and `batch.py`.

Crop-first: the window is drawn in the source image, and only what it needs is resized; all stays uint8. What happens
to a sample is a pure function of (seed, epoch, sample id), whichever worker does it.

Legend: H W source size, h w crop size, in pixels.
"""

from __future__ import annotations

import hashlib
import math
import random

import torch
from torch import Tensor

from segpipe.config import AugmentConfig
from segpipe.data.colour import draw_colour
from segpipe.data.decode import DecodedSample
from segpipe.data.resize import resize_image, resize_labels
from segpipe.errors import InputError

# Outside of the image there is nothing: mid grey, near zero once normalised, and the ignore label.
PADDING = 124


def augment(
    sample: DecodedSample,
    config: AugmentConfig,
    *,
    input_scale: float,
    seed: int,
    epoch: int,
    ignore_index: int,
) -> DecodedSample:
    """One training crop: `image_3HW` uint8 (3, h, w) and `labels_HW` (h, w) of the configured crop size."""
    if sample.labels_HW is None:
        raise InputError(f"sample {sample.sample_id}: has no label map, and training on crops needs one")
    key = hashlib.sha256(f"{seed}/{epoch}/{sample.sample_id}".encode()).digest()
    draw = random.Random(key)  # noqa: S311 - reproducibility, not secrecy
    low, high = config.scale
    scale = input_scale * math.exp(draw.uniform(math.log(low), math.log(high)))
    image_3hw, labels_hw = _window(sample.image_3HW, sample.labels_HW, config.crop, scale, draw, ignore_index)
    if draw.random() < config.flip:
        image_3hw, labels_hw = image_3hw.flip(-1), labels_hw.flip(-1)
    colour = draw_colour(config.colour, draw) if config.colour > 0 else None
    return DecodedSample(sample_id=sample.sample_id, image_3HW=image_3hw, labels_HW=labels_hw, colour=colour)


def _window(
    image_3HW: Tensor,
    labels_HW: Tensor,
    crop: tuple[int, int],
    scale: float,
    draw: random.Random,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Cuts the source window that becomes the crop at `scale`, resizes it, and pads what lies outside."""
    spans = [_span(source, out, scale, draw) for source, out in zip(labels_HW.shape, crop, strict=True)]
    (top, bottom, y, h), (left, right, x, w) = spans
    inner_3hw = resize_image(image_3HW[:, top:bottom, left:right], (h, w))
    inner_hw = resize_labels(labels_HW[top:bottom, left:right], (h, w))
    if (h, w) == crop:
        return inner_3hw, inner_hw
    image_3hw = torch.full((*crop, 3), PADDING, dtype=torch.uint8).permute(2, 0, 1)
    labels_hw = torch.full(crop, ignore_index, dtype=labels_HW.dtype)
    image_3hw[:, y : y + h, x : x + w] = inner_3hw
    labels_hw[y : y + h, x : x + w] = inner_hw
    return image_3hw, labels_hw


def _span(source: int, out: int, scale: float, draw: random.Random) -> tuple[int, int, int, int]:
    """Along one axis: source start and stop, where the piece lies in the crop, and its length there."""
    wanted = max(1, round(out / scale))
    if wanted <= source:
        start = draw.randint(0, source - wanted)
        return start, start + wanted, 0, out
    length = min(out, max(1, round(source * scale)))
    return 0, source, draw.randint(0, out - length), length
