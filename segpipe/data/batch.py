"""What a model is fed: `Batch`, made of equal-sized samples; and what happens to its images on the device.

Legend: N images of a batch, M objects of an image, H W size in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.colour import change_colours
from segpipe.data.decode import DecodedSample
from segpipe.data.objects import Objects
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD, ModelBundle, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenObjects:
    """M objects of an image that whoever asks knows of: `boxes_M4` float64 x0, y0, x1, y1 in pixels; `class_ids_M`
    int64, None where objects are of one class."""

    boxes_M4: Tensor
    class_ids_M: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`images_N3HW` uint8 RGB; `labels_NHW` class ids with the ignore index, or None where there are none.

    Both are as narrow as they were stored, and are widened on the device. `colours_N3` are the colour changes of a
    training batch (see `colour.py`), made there too, or None. `objects` are what each crop shows, where the task trains
    on objects: things and crowds, since stuff is in the labels; bool `outside_NHW` is where it shows nothing of its
    image: padding. `samples` are the rows as stored, in evaluation: the truth that no crop has touched, run lengths,
    crowds and stated areas. `original_sizes` holds (height, width) of each image as ingested; in evaluation H and W are
    those. `given` are objects that came with images of which nothing is stored: with a request to a served model.
    """

    images_N3HW: Tensor
    labels_NHW: Tensor | None
    sample_ids: tuple[str, ...]
    original_sizes: tuple[tuple[int, int], ...]
    colours_N3: Tensor | None = None
    objects: tuple[Objects, ...] | None = None
    outside_NHW: Tensor | None = None
    samples: tuple[Sample, ...] | None = None
    given: tuple[GivenObjects, ...] | None = None


def laid(sample: DecodedSample, image_HW3: Tensor) -> DecodedSample:
    """The sample with its image in that place, which is one of a batch's."""
    image_3HW = image_HW3.permute(2, 0, 1)
    return dataclasses.replace(sample, image_3HW=image_3HW.copy_(sample.image_3HW))


def collate(samples: Sequence[DecodedSample], *, images_N3HW: Tensor | None = None) -> Batch:
    """Decoded samples of one size -> a batch. What one of them lacks (labels, colours, objects), the batch lacks.

    `images_N3HW` are all their images where these lie together already.
    """
    if images_N3HW is None:  # stacked as they lie in memory, pixel by pixel
        images_N3HW = torch.stack([sample.image_3HW.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    labels = [sample.labels_HW for sample in samples if sample.labels_HW is not None]
    colours = [sample.colour for sample in samples if sample.colour is not None]
    objects = tuple(sample.objects for sample in samples if sample.objects is not None)
    outside = [sample.outside_HW for sample in samples if sample.outside_HW is not None]
    stored = tuple(sample.stored for sample in samples if sample.stored is not None)
    return Batch(
        images_N3HW=images_N3HW,
        labels_NHW=torch.stack(labels) if len(labels) == len(samples) else None,
        colours_N3=torch.tensor(colours) if len(colours) == len(samples) else None,
        objects=objects if len(objects) == len(samples) else None,
        outside_NHW=torch.stack(outside) if len(outside) == len(samples) else None,
        samples=stored if len(stored) == len(samples) else None,
        sample_ids=tuple(sample.sample_id for sample in samples),
        original_sizes=tuple((sample.image_3HW.shape[1], sample.image_3HW.shape[2]) for sample in samples),
    )


def training_inputs(batch: Batch, device: torch.device) -> Tensor:
    """What enters a model in training: (N, 3, H, W) float32 on the device, colours changed, normalised."""
    # Not pinned first: that copies all of it once more here, while this thread waits, and takes longer than it saves
    # ("A guide on good usage of non_blocking and pin_memory()" of torch's). Pageable memory is free again on return.
    images_N3HW = batch.images_N3HW.to(device, non_blocking=True)
    if batch.colours_N3 is not None:
        images_N3HW = change_colours(images_N3HW, batch.colours_N3.to(device, non_blocking=True))
    return normalise(images_N3HW)


def evaluation_inputs(batch: Batch, bundle: ModelBundle, device: torch.device, *, scale: float = 1.0) -> Tensor:
    """What enters a model in prediction: (N, 3, h, w) float32 on the device, in channels-last memory as the model is,
    resized by `bundle.input_scale` and by the `scale` of a view, normalised as the model was trained."""
    return normalise(resized_images(batch, bundle, device, scale=scale), bundle.mean, bundle.std)


def resized_images(batch: Batch, bundle: ModelBundle, device: torch.device, *, scale: float) -> Tensor:
    """`evaluation_inputs` before they are normalised: (N, 3, h, w) in 0..255, uint8 where the size is their own."""
    images_N3hw = batch.images_N3HW.to(device).contiguous(memory_format=torch.channels_last)
    factor = bundle.input_scale * scale
    if factor != 1.0:
        inner = entering_size((images_N3hw.shape[-2], images_N3hw.shape[-1]), factor)
        return functional.interpolate(images_N3hw.float(), size=inner, mode="bilinear", antialias=True)
    return images_N3hw


def entering_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(h, w) at which an image of `size` (H, W) enters a model, resized by `factor`: `input_scale` times a view's."""
    height, width = size
    return max(1, round(height * factor)), max(1, round(width * factor))


def normalise(
    images_N3HW: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """(N, 3, H, W) in 0..255 -> float32 with each channel's mean and standard deviation taken out."""
    n, c, h, w = images_N3HW.shape
    if not images_N3HW.is_contiguous(memory_format=torch.channels_last):
        mean_311, std_311 = (torch.tensor(each, device=images_N3HW.device)[:, None, None] * 255 for each in (mean, std))
        return (images_N3HW - mean_311).div_(std_311)
    # Pixel by pixel, whole rows at once: three values at a time cost a CPU twice as much.
    rows_NHx = images_N3HW.permute(0, 2, 3, 1).reshape(n, h, w * c)
    mean_x, std_x = ((torch.tensor(each, device=images_N3HW.device) * 255).repeat(w) for each in (mean, std))
    return (rows_NHx - mean_x).div_(std_x).view(n, h, w, c).permute(0, 3, 1, 2)
