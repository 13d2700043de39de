"""One training crop of a decoded sample: where it is cut, how it is turned, what is pasted on it, a draw of colours.

Sits between `decode.py` and `batch.py`. Crop-first: the window is drawn in the source image, and only what it needs is
resized; all stays uint8. Everything that moves pixels (`window.py`, `warp.py`) moves image, label map, masks, boxes and
keypoints by the same values. What happens to a sample is a pure function of (seed, epoch, sample id), whichever worker
does it; what is pasted on it also depends on the epoch's order, and so on the dataset's version.

Legend: H W source size, h w crop size, in pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Callable
from functools import partial

from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from segpipe.config import AugmentConfig
from segpipe.data.colour import draw_colour
from segpipe.data.copy_paste import paste
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.objects import decode_objects, visible
from segpipe.data.warp import draw_warp, warp
from segpipe.data.window import cut_image, cut_labels, cut_objects, cut_outside, draw_window, widened
from segpipe.errors import InputError
from segpipe.types import Sample


def augment(
    sample: DecodedSample,
    config: AugmentConfig,
    *,
    input_scale: float,
    seed: int,
    epoch: int,
    ignore_index: int,
    source: Sample | None = None,
    partner: Callable[[], Sample] | None = None,
) -> DecodedSample:
    """One training crop: `image_3HW` uint8 (3, h, w) and `labels_HW` (h, w) of the configured crop size.

    `source` is the sample as stored: with it, the crop has `objects`, of which only those that it shows are decoded.
    `partner`, which copy-paste needs, gives the stored sample whose objects may be pasted; it is called where one is.
    Raises InputError for a sample without labels and objects, and for keypoints that a flip cannot name.
    """
    if sample.labels_HW is None and source is None:
        raise InputError(f"sample {sample.sample_id}: has no label map, and training on crops needs one")
    # A generator for each purpose: switching one option on leaves the draws of the others as they are.
    key = f"{seed}/{epoch}/{sample.sample_id}"
    draw = _generator(key)
    cut = partial(_cut, config=config, input_scale=input_scale, ignore_index=ignore_index)
    turns = config.vertical_flip or config.rotation or config.elastic
    crop = cut(sample, source, draw, _generator(f"turn/{key}") if turns else None)
    if config.copy_paste:
        chance = _generator(f"paste/{key}")
        if partner is None:
            raise ValueError(f"sample {sample.sample_id}: copy_paste is {config.copy_paste}, and there is no partner")
        if chance.random() < config.copy_paste:
            crop = _pasted(crop, partner(), cut, chance, min_area=config.min_area)
    if crop.objects is not None:
        crop = dataclasses.replace(crop, objects=visible(crop.objects, min_area=config.min_area))
    image_3hw = _blurred(crop.image_3HW, config, _generator(f"blur/{key}")) if config.blur else crop.image_3HW
    colour = draw_colour(config.colour, draw) if config.colour > 0 else None
    return dataclasses.replace(crop, image_3HW=image_3hw, colour=colour)


def _generator(key: str) -> random.Random:
    return random.Random(hashlib.sha256(key.encode()).digest())  # noqa: S311 - reproducibility, not secrecy


def _cut(
    sample: DecodedSample,
    source: Sample | None,
    draw: random.Random,
    turn: random.Random | None,
    *,
    config: AugmentConfig,
    input_scale: float,
    ignore_index: int,
) -> DecodedSample:
    """What moves pixels, on image, labels and, given the stored sample, objects.

    From `draw` come scale, place and mirroring, in this order: recorded trainings depend on it. From `turn` comes what
    turns the crop any other way; None where nothing does.
    """
    low, high = config.scale
    scale = input_scale * math.exp(draw.uniform(math.log(low), math.log(high)))
    height, width = sample.image_3HW.shape[1:]
    window = draw_window((height, width), config.crop, scale, draw)
    mirrored = draw.random() < config.flip
    upside_down = turn is not None and turn.random() < config.vertical_flip
    window = dataclasses.replace(window, mirrored=mirrored, upside_down=upside_down)
    field = None if turn is None else draw_warp(config, turn)
    if field is not None:
        window = widened(window, (height, width), field.margin)
    objects = None
    if source is not None:
        objects = decode_objects(source, window.region)
        if objects.keypoints_NP3 is not None and config.keypoint_pairs is None and config.flip + config.vertical_flip:
            raise InputError(
                f"sample {sample.sample_id}: has keypoints, and a mirror image makes a left one a right one; say in "
                "train.augment.keypoint_pairs which places belong together ([] where none has a side), or set flip "
                "and vertical_flip to 0"
            )
        objects = cut_objects(objects, window, config.keypoint_pairs or ())
    crop = DecodedSample(
        sample_id=sample.sample_id,
        image_3HW=cut_image(sample.image_3HW, window),
        labels_HW=None if sample.labels_HW is None else cut_labels(sample.labels_HW, window, ignore_index),
        objects=objects,
        outside_HW=None if objects is None else cut_outside(window),
    )
    return crop if field is None else warp(crop, field)


def _pasted(
    crop: DecodedSample, other: Sample, cut: Callable[..., DecodedSample], draw: random.Random, *, min_area: int
) -> DecodedSample:
    """The crop with some objects of a crop of `other` on it, which is cut by draws of its own."""
    if not other.segments:
        return crop
    if crop.objects is None:
        other = dataclasses.replace(other, keypoints=())  # nobody will see them
    return paste(crop, cut(decode(other), other, draw, draw), draw, min_area=min_area)


def _blurred(image_3hw: Tensor, config: AugmentConfig, draw: random.Random) -> Tensor:
    """Gaussian blur of some crops. The kernel ends at three standard deviations, or where the crop does."""
    if draw.random() >= config.blur:
        return image_3hw
    sigma = draw.uniform(*config.blur_sigma)
    height, width = image_3hw.shape[1:]
    kernel = [2 * min(math.ceil(3 * sigma), length - 1) + 1 for length in (width, height)]
    blurred_3hw: Tensor = v2.gaussian_blur(image_3hw, kernel, [sigma, sigma])
    return blurred_3hw
