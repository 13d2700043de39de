"""Encoded bytes of a `Sample` -> tensors at original resolution. Sits between `shards/` and `augment.py`.

Legend: H W image size in pixels. Images stay uint8 until they reach the device (see `batch.normalise`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segpipe import masks
from segpipe.data.colour import Colour
from segpipe.data.objects import Objects, decode_objects
from segpipe.errors import BadSampleError, CorruptError
from segpipe.types import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedSample:
    """One sample as tensors: `image_3HW` uint8 RGB, `labels_HW` class ids (uint8 or int32), or None without a map.

    `image_3HW` lies in memory as it was decoded, pixel by pixel (HW3): so it is resized, stacked and trained on without
    turning it around once. `colour` is what is to be done to a training crop on the device. `objects` is None where
    nobody asked for them; a crop that has them has `outside_HW`, too: bool, where it shows nothing of the image.
    `stored` is the row that the whole image was decoded from; a crop has none.
    """

    sample_id: str
    image_3HW: Tensor
    labels_HW: Tensor | None
    colour: Colour | None = None
    objects: Objects | None = None
    outside_HW: Tensor | None = None
    stored: Sample | None = None


def decode(sample: Sample, *, objects: bool = False) -> DecodedSample:
    """Decodes image and label map, and all `objects` if asked to: a crop decodes its own (`augment.py`).

    Raises CorruptError when the stored bytes are not what ingest had checked.
    """
    try:
        pixels_HW3 = masks.read_rgb(sample.image, file=sample.sample_id)
    except BadSampleError as error:
        raise CorruptError(
            f"sample {sample.sample_id}: the stored image does not decode ({error.detail}); ingest again"
        ) from None
    image_3HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1)
    if image_3HW.shape != (3, sample.height, sample.width):
        found = tuple(image_3HW.shape[1:])
        expected = (sample.height, sample.width)
        raise CorruptError(f"sample {sample.sample_id}: image is {found}, the row says {expected}; ingest again")
    labels_HW = None
    if sample.label_map is not None:
        ids_HW = masks.read_map(sample.label_map, sample, what="label map")
        # A copy in any case: the stored bytes are not to be written to.
        labels_HW = torch.from_numpy(ids_HW.astype(np.uint8 if ids_HW.itemsize == 1 else np.int32))
    return DecodedSample(
        sample_id=sample.sample_id,
        image_3HW=image_3HW,
        labels_HW=labels_HW,
        objects=decode_objects(sample) if objects else None,
        stored=sample,
    )
