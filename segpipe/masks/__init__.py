"""Masks at the border: COCO's run lengths and polygons (`coco`), label images and photographs (`images`).

The public names of the room; sources, data and metrics import from here.
"""

from segpipe.masks.coco import Mask, decode_rle, encode_rle, polygon_to_mask
from segpipe.masks.images import (
    MAX_PIXELS,
    ImageHeader,
    Labels,
    check_image,
    map_labels,
    read_image_header,
    read_label_image,
    read_rgb,
)

__all__ = [
    "MAX_PIXELS",
    "ImageHeader",
    "Labels",
    "Mask",
    "check_image",
    "decode_rle",
    "encode_rle",
    "map_labels",
    "polygon_to_mask",
    "read_image_header",
    "read_label_image",
    "read_rgb",
]
