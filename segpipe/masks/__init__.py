"""Masks at the border: COCO's run lengths and polygons (`coco`, `runs`, `outlines`), those of Label Studio's brush
(`brush`), label images and photographs (`headers`, `images`, `looks`), the maps and objects of a sample (`maps`,
`segments`), depth, flow and two-channel ids of 16 bits (`deep`), what is shipped as no JPEG or PNG (`lossless`).

The public names of the room; sources, data and metrics import from here.
"""

from segpipe.masks.brush import decode_brush, encode_brush
from segpipe.masks.coco import (
    Mask,
    coco_category,
    decode_rle,
    encode_rle,
    polygon_points,
    polygon_to_mask,
    rle_of_runs,
    rle_runs,
)
from segpipe.masks.deep import check_extra, read_rgb16
from segpipe.masks.headers import MAX_PIXELS, ImageHeader, check_header, read_image_header
from segpipe.masks.images import (
    Labels,
    check_image,
    map_labels,
    read_id_image,
    read_label_image,
    read_rgb,
    read_upright,
)
from segpipe.masks.looks import look_at, near_copies
from segpipe.masks.lossless import encode_ids, encode_png, png_of_bitmap
from segpipe.masks.maps import ids_type, mask_of, read_map, stored
from segpipe.masks.outlines import Points, polygon_of_mask
from segpipe.masks.runs import plain_areas
from segpipe.masks.segments import box_of_runs, crop_of_runs, encode_crop, pixels_of_runs, segment_runs

__all__ = [
    "MAX_PIXELS",
    "ImageHeader",
    "Labels",
    "Mask",
    "Points",
    "box_of_runs",
    "check_extra",
    "check_header",
    "check_image",
    "coco_category",
    "crop_of_runs",
    "decode_brush",
    "decode_rle",
    "encode_brush",
    "encode_crop",
    "encode_ids",
    "encode_png",
    "encode_rle",
    "ids_type",
    "look_at",
    "map_labels",
    "mask_of",
    "near_copies",
    "pixels_of_runs",
    "plain_areas",
    "png_of_bitmap",
    "polygon_of_mask",
    "polygon_points",
    "polygon_to_mask",
    "read_id_image",
    "read_image_header",
    "read_label_image",
    "read_map",
    "read_rgb",
    "read_rgb16",
    "read_upright",
    "rle_of_runs",
    "rle_runs",
    "segment_runs",
    "stored",
]
