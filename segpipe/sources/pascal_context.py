"""PASCAL-Context: VOC 2010's photographs with a class for every pixel; 459 labels, of which the field scores 59.

Source: Mottaghi et al. 2014, cs.stanford.edu/~roozbeh/pascal-context. By the option `masks` it reads what the authors
publish, `trainval` (LabelMap of 459 labels in MATLAB files, with labels.txt) or `59_context_labels` (palette PNGs, with
59_labels.txt), or what open-mmlab makes of the Detail API's annotation, `SegmentationClassContext` (PNGs, 1..59 in the
order of the alphabet). Class ids are the same whichever is read. Everything beyond the 59 is background: a class of its
own (`classes=60`), or ignored (`classes=59`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import Labels, map_labels, stored
from segpipe.sources.reading import (
    Kind,
    Photograph,
    class_colour,
    coding,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
)
from segpipe.sources.reading.matlab import read_matlab_of_sample
from segpipe.sources.reading.voc import VOC_2010_COUNTS, index_voc_2010
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

NAMES = (
    *("aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building"),
    *("bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door"),
    *("fence", "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain"),
    *("mouse", "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign"),
    *("sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window"),
    "wood",
)
# 59_labels.txt calls three of them by other names than labels.txt.
ALIASES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
MATLAB, OFFICIAL, MERGED = "trainval", "59_context_labels", "SegmentationClassContext"
# The files that name the values, the first that is there.
NAME_FILES = {MATLAB: ("labels.txt", "459_labels.txt"), OFFICIAL: ("59_labels.txt",), MERGED: ()}
EXPECTED = {"train": 4998, "val": 5105}
LICENCE = "images: Flickr terms of use; annotations free for research (cs.stanford.edu/~roozbeh/pascal-context)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PascalContext:
    """The folder that holds JPEGImages/ (VOCdevkit/VOC2010), opened by `open_pascal_context`.

    `table` takes the values of the masks to class ids.
    """

    root: str
    masks: str
    lists: str
    classes: tuple[ClassInfo, ...]
    table: Mapping[int, int]
    name: str = "pascal_context"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def coding(self) -> LabelCoding:
        rest = "background" if len(self.classes) > len(NAMES) else "ignored"
        return coding(self.table, f"what is none of the 59 is {rest}", f"values are those of {self.masks}")

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of VOC 2010's train and val."""
        return VOC_2010_COUNTS

    def index(self) -> Index:
        """The images of train.txt and val.txt. Raises InputError where neither is there."""
        ending = ".mat" if self.masks == MATLAB else ".png"
        return index_voc_2010(self.root, Kind(self.masks, ending), self.lists)

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its label map. Raises BadSampleError."""
        image_path, mask_path = ref.files
        image = read_photograph(self.root, image_path)
        raw = self._label_map(mask_path, image) if self.masks == MATLAB else read_labels(self.root, mask_path, image)
        return sample_of(ref, image, label_map=stored(map_labels(raw, self.table, file=mask_path)))

    def _label_map(self, path: str, image: Photograph) -> Labels:
        """The LabelMap of a MATLAB file, uint16 (H, W)."""
        found = np.asarray(read_matlab_of_sample(self.root, path).get("LabelMap"))
        if found.ndim != 2 or found.dtype.kind not in "ui":
            detail = f"LabelMap is {found.dtype} of {found.shape}; expected whole numbers, H x W: fetch it again"
            raise BadSampleError("bad_annotation", path, detail)
        if found.shape != (image.height, image.width):
            detail = f"LabelMap {found.shape[1]}x{found.shape[0]}, image {image.file} {image.width}x{image.height}"
            raise BadSampleError("size_mismatch", path, f"{detail}; expected the same size: fetch both again")
        if found.min(initial=0) < 0 or found.max(initial=0) >= 2**16:
            detail = f"label {found.max()} or {found.min()}; expected 0 to 459: fetch it again"
            raise BadSampleError("label_out_of_range", path, detail)
        return found.astype(np.uint16)


def open_pascal_context(
    root: str,
    *,
    masks: Annotated[
        str, "trainval (the authors' MATLAB files), 59_context_labels or SegmentationClassContext (PNGs)"
    ] = MATLAB,
    classes: Annotated[int, "60: background is a class; 59: it is ignored"] = 60,
    lists: Annotated[str, "folder of train.txt and val.txt below the root"] = "ImageSets/Main",
) -> PascalContext:
    """Opens the set. Raises InputError on a bad option or a file of names that is missing or another one's."""
    if masks not in NAME_FILES:
        raise InputError(f"option masks={masks!r}; expected {', '.join(NAME_FILES)}")
    if classes not in (59, 60):
        raise InputError(f"option classes={classes!r}; expected 59 (background is ignored) or 60 (it is a class)")
    background, first = (0, 1) if classes == 60 else (IGNORE_8BIT, 0)
    places = {name: class_id for class_id, name in enumerate(NAMES, start=first)}
    values = _values(root, masks)
    table = {0: background, **{value: places.get(name, background) for value, name in values.items()}}
    infos = [ClassInfo(name=name, colour=class_colour(k)) for k, name in enumerate(("background", *NAMES))]
    return PascalContext(root=root, masks=masks, lists=lists, classes=tuple(infos[1 - first :]), table=table)


def _values(root: str, masks: str) -> dict[int, str]:
    """Value -> name, of lines `1: accordion`; spaces do not count."""
    if masks == MERGED:
        return dict(enumerate(NAMES, start=1))
    files = NAME_FILES[masks]
    path = next((name for name in files if storage.exists(storage.join(root, name))), files[0])
    values: dict[int, str] = {}
    for number, line in enumerate(read_lines(root, path), start=1):
        value, colon, name = line.partition(":")
        if line.strip() and not (colon and value.strip().isdecimal() and len(value.strip()) < 6):
            raise InputError(f"{root}/{path}: line {number} is {line[:80]!r}; expected `1: accordion`: fetch it again")
        if line.strip():
            plain = name.replace(" ", "")
            values[int(value)] = ALIASES.get(plain, plain) if masks == OFFICIAL else plain
    if missing := sorted(set(NAMES) - set(values.values())):
        raise InputError(
            f"{root}/{path}: {len(values)} names without {', '.join(missing[:5])}; expected all of the 59: fetch it "
            "again from cs.stanford.edu/~roozbeh/pascal-context"
        )
    return values


INFO = SourceInfo(
    name="pascal_context",
    open=open_pascal_context,
    summary="PASCAL-Context, 4998/5105 photographs of VOC 2010, 59 classes, with or without background",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=(
        "JPEGImages/2008_000002.jpg",
        "trainval/2008_000002.mat and labels.txt",
        "or 59_context_labels/2008_000002.png and 59_labels.txt",
        "or SegmentationClassContext/2008_000002.png",
        "ImageSets/Main/{train,val}.txt, or ImageSets/SegmentationContext/{train,val}.txt",
    ),
    expected=EXPECTED,
)
