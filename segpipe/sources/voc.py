"""PASCAL VOC 2012 segmentation: 20 objects and background, 255 = boundary or difficult; classes and single objects.

Source: Everingham et al. 2010, host.robots.ox.ac.uk/pascal/VOC/voc2012 (VOCdevkit). `SegmentationClass` holds palette
PNGs of class ids, `SegmentationObject` the same pixels numbered by object; an object's class is read off the former.
With `masks=SegmentationClassAug`, no `objects` and `lists=ImageSets/SegmentationAug` it reads SBD's 10,582 training
images (Hariharan et al. 2011) as the field passes them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe.errors import BadSampleError, InputError
from segpipe.masks import Labels, map_labels, stored
from segpipe.sources.reading import (
    Kind,
    Line,
    Listing,
    Photograph,
    Place,
    coding,
    files_by_stem,
    listed_stems,
    read_labels,
    read_photograph,
    regions,
    sample_of,
)
from segpipe.sources.reading.voc import VOC_CLASSES, VOC_IDS, VOC_LICENCE, VOC_NAMES
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import (
    IGNORE_8BIT,
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Segment,
    Task,
)

EXPECTED = {"train": 1464, "val": 1449}
CODING = coding(VOC_IDS, "255 is the boundary of objects, or too difficult", "0 is background, a class")


@dataclass(frozen=True, kw_only=True, slots=True)
class Voc:
    """The folder that holds JPEGImages/ (VOCdevkit/VOC2012), opened by `open_voc`."""

    root: str
    masks: str
    objects: str
    lists: str
    split: str
    annotations: tuple[Annotation, ...]
    name: str = "voc"
    licence: str = VOC_LICENCE
    classes: tuple[ClassInfo, ...] = VOC_CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The counts of the published lists; none for masks or lists of another making."""
        published = (self.masks, self.lists, self.split) == ("SegmentationClass", "ImageSets/Segmentation", "")
        return EXPECTED if published else None

    def index(self) -> Index:
        """The images of the lists, trainval left out. Raises InputError where there are no lists and no `split`."""
        listing = Listing()
        objects = Kind(self.objects, ".png") if self.objects else None
        lines = [Line(stem, Place(stem, split, stem), listed) for split, stem, listed in self._listed()]
        images, masks = Kind("JPEGImages", ".jpg"), Kind(self.masks, ".png")
        unlisted = f"add them to a list of {self.lists}/, or name other lists by the option lists"
        listing.add_lines(self.root, images, masks, lines, objects=objects, unlisted=unlisted)
        return listing.result()

    def _listed(self) -> list[tuple[str, str, str]]:
        """(split, stem, where it is listed), by the lists or, with `split`, by the masks that are there."""
        if self.split:
            return [(self.split, stem, self.masks) for stem in files_by_stem(self.root, self.masks, ".png")]
        if not (listed := listed_stems(self.root, self.lists)):
            raise InputError(
                f"{self.root}: no {self.lists}/*.txt here; expected VOC's layout (JPEGImages/, {self.masks}/, "
                f"{self.lists}/train.txt): give VOCdevkit/VOC2012 as root, or name a split for all by the option split"
            )
        return listed

    def read(self, ref: SampleRef) -> Sample:
        """One image with its label map and, where asked for, its objects. Raises BadSampleError."""
        image_path, mask_path, *objects = ref.files
        image = read_photograph(self.root, image_path)
        labels = map_labels(read_labels(self.root, mask_path, image), VOC_IDS, file=mask_path)
        segment_map, segments = self._objects(objects[0], image, labels) if objects else (None, ())
        return sample_of(
            ref,
            image,
            label_map=stored(labels),
            segment_map=segment_map,
            segments=segments,
        )

    def _objects(self, path: str, image: Photograph, labels: Labels) -> tuple[bytes, tuple[Segment, ...]]:
        numbered = regions(read_labels(self.root, path, image), nothing=(0, IGNORE_8BIT), file=path)
        segments = []
        for number, (raw, area) in enumerate(zip(numbered.raw_ids, numbered.areas, strict=True), start=1):
            found, pixels = np.unique(labels[numbered.segment_map == number], return_counts=True)
            known = (found > 0) & (found < len(VOC_NAMES))
            if not known.any():
                raise BadSampleError(
                    "bad_annotation",
                    path,
                    f"object {raw} has no class in the class mask: one of the two is wrong, fetch both again",
                )
            class_id = int(found[known][pixels[known].argmax()])
            segments.append(Segment(segment_id=number, class_id=class_id, area=area))
        return stored(numbered.segment_map), tuple(segments)


def open_voc(
    root: str,
    *,
    masks: Annotated[
        str, "folder of the class masks below the root, such as SegmentationClassAug for SBD's"
    ] = "SegmentationClass",
    objects: Annotated[
        str, "folder of the object masks below the root; empty reads classes alone"
    ] = "SegmentationObject",
    lists: Annotated[str, "folder of train.txt and val.txt below the root"] = "ImageSets/Segmentation",
    split: Annotated[str, "name of the one split, for a folder without lists"] = "",
) -> Voc:
    """Opens VOC 2012, or a folder in its layout."""
    annotations = (Annotation.LABEL_MAP, *((Annotation.SEGMENTS,) if objects else ()))
    return Voc(root=root, masks=masks, objects=objects, lists=lists, split=split, annotations=annotations)


INFO = SourceInfo(
    name="voc",
    open=open_voc,
    summary="PASCAL VOC 2012 (and SBD's masks in its layout), 1464/1449 photographs, 20 classes and background",
    licence=VOC_LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=(
        "JPEGImages/2007_000032.jpg",
        "SegmentationClass/2007_000032.png",
        "SegmentationObject/2007_000032.png",
        "ImageSets/Segmentation/{train,val}.txt",
    ),
    expected=EXPECTED,
)
