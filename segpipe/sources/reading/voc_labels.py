"""The labels of PASCAL VOC, which its part and few-shot sets share: background and 20 objects. Part of `reading`."""

from __future__ import annotations

from segpipe.sources.reading.colours import class_colour
from segpipe.types import IGNORE_8BIT, ClassInfo

VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_CLASSES = tuple(
    ClassInfo(name=name, colour=class_colour(number), is_thing=number > 0) for number, name in enumerate(VOC_NAMES)
)
VOC_IDS = {**{number: number for number in range(len(VOC_NAMES))}, IGNORE_8BIT: IGNORE_8BIT}
VOC_LICENCE = "images: Flickr terms of use; annotations free for research (host.robots.ox.ac.uk/pascal/VOC)"
