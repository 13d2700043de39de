"""What the sets made of PASCAL VOC share: its labels, background and 20 objects, and the lists of 2010. Part of
`reading`."""

from __future__ import annotations

from segpipe.errors import InputError
from segpipe.sources.reading.colours import class_colour
from segpipe.sources.reading.listing import Kind, Line, Listing, Place
from segpipe.sources.reading.splits import listed_stems
from segpipe.sources.spec import Index
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
VOC_2010_COUNTS = {"train": 4998, "val": 5105}


def index_voc_2010(root: str, masks: Kind, lists: str) -> Index:
    """What `Source.index` gives of a set on VOC 2010's photographs: those of train.txt and val.txt, each with its mask.

    Raises InputError where neither list is in the folder `lists`.
    """
    if not (found := listed_stems(root, lists, only=("train", "val"))):
        raise InputError(
            f"{root}: neither train.txt nor val.txt in {lists}/; expected VOC 2010's lists: give VOCdevkit/VOC2010 as "
            "root, or say where they are by the option lists"
        )
    listing = Listing()
    lines = [Line(stem, Place(stem, split, stem), listed) for split, stem, listed in found]
    unlisted = f"add them to {lists}/train.txt or val.txt, or name other lists by the option lists"
    listing.add_lines(root, Kind("JPEGImages", ".jpg"), masks, lines, unlisted=unlisted)
    return listing.result()
