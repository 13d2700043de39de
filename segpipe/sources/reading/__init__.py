"""What the formats are made of: checked files, a listing that keeps each id once, splits where there are no lists.

    files.py        one file below the root -> bytes, a photograph, label ids, lines, a JSON document; and one pair
    trees.py        which files are there
    listing.py      what `Source.index` gives back, collected
    splits.py       lists of stems, or a stable hash of the group -> train, val or test
    values.py       mask values -> class ids, and what is void
    colours.py      a colour for every class that has none
    extras.py       depth and flow of an image, as shipped
    matlab.py       .mat files of MATLAB 5
    hdf5.py         .mat files of MATLAB 7.3
    objects.py      polygons, run lengths and id maps -> segments
    road_labels.py  the label table that Cityscapes, BDD100K and GTA5 share
    voc.py          the label table of PASCAL VOC, and the lists of the sets on the photographs of 2010
    coco_json.py    COCO's documents; coco_objects.py their objects by image

Every raw id and every name in here comes from data: nothing is trusted before it is checked.
"""

from segpipe.sources.reading.colours import class_colour
from segpipe.sources.reading.extras import read_extra
from segpipe.sources.reading.files import (
    Photograph,
    check_size,
    chosen,
    document_of,
    inside,
    is_inside,
    lines_of,
    read_document,
    read_file,
    read_labels,
    read_lines,
    read_pair,
    read_photograph,
    sample_of,
    without_root,
)
from segpipe.sources.reading.listing import (
    Kind,
    Line,
    Listing,
    Place,
    alone_in,
    is_number,
    passed_over,
    pictures_by_stem,
)
from segpipe.sources.reading.objects import Regions, mask_of_segmentation, regions, segment_of_mask
from segpipe.sources.reading.splits import SPLITS, empty_splits, hashed_split, listed_stems, parse_shares
from segpipe.sources.reading.trees import PICTURE_SUFFIXES, below, files_below, files_by_stem, shown
from segpipe.sources.reading.values import coding, ignored_beside, value_table

__all__ = [
    "PICTURE_SUFFIXES",
    "SPLITS",
    "Kind",
    "Line",
    "Listing",
    "Photograph",
    "Place",
    "Regions",
    "alone_in",
    "below",
    "check_size",
    "chosen",
    "class_colour",
    "coding",
    "document_of",
    "empty_splits",
    "files_below",
    "files_by_stem",
    "hashed_split",
    "ignored_beside",
    "inside",
    "is_inside",
    "is_number",
    "lines_of",
    "listed_stems",
    "mask_of_segmentation",
    "parse_shares",
    "passed_over",
    "pictures_by_stem",
    "read_document",
    "read_extra",
    "read_file",
    "read_labels",
    "read_lines",
    "read_pair",
    "read_photograph",
    "regions",
    "sample_of",
    "segment_of_mask",
    "shown",
    "value_table",
    "without_root",
]
