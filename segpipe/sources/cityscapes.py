"""Cityscapes: street scenes of 50 cities, 19 scored classes of 34 labels, single road users, fine or coarse.

Source: Cordts et al. 2016, www.cityscapes-dataset.com; labels as cityscapesScripts has them. The class comes from
`labelIds`, the segments from `instanceIds`: below 1000 a label id (stuff, or a crowd: road users that could not be
told apart), else label id * 1000 + the object's number. `truth=gtCoarse` reads the coarse polygons of train, val and
train_extra, whose frames come in an archive of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    Kind,
    Listing,
    Place,
    coding,
    read_labels,
    read_photograph,
    regions,
    sample_of,
)
from segpipe.sources.reading.road_labels import LABEL_IDS, ROAD_CLASSES
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

IMAGES, IMAGE_ENDING = "leftImg8bit", "_leftImg8bit.png"
# The test split's masks are blank: its truth is not published.
EXPECTED = {
    "gtFine": {"train": 2975, "val": 500},
    "gtCoarse": {"train": 2975, "val": 500, "train_extra": 19998},
}
WITHOUT_TRUTH = {"train_extra", "test", "demoVideo"}
LICENCE = "custom terms, non-commercial (www.cityscapes-dataset.com/license)"
KNOWN_BAD = {"troisdorf_000000_000073": "the frame is damaged (the download page of train_extra asks to delete it)"}
CODING = coding(LABEL_IDS, "values are label ids; 15 of the 34 are not scored")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cityscapes:
    """The folder that holds leftImg8bit/ and gtFine/ or gtCoarse/, opened by `open_cityscapes`."""

    root: str
    truth: str
    split: str
    annotations: tuple[Annotation, ...]
    name: str = "cityscapes"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = ROAD_CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The published counts; none for a folder without splits."""
        return None if self.split else EXPECTED[self.truth]

    def index(self) -> Index:
        """Every image that has a truth, and every truth that has an image. Raises InputError where nothing is found."""
        listing = Listing(KNOWN_BAD)
        images, labels = Kind(IMAGES, IMAGE_ENDING), Kind(self.truth, f"_{self.truth}_labelIds.png")
        with_objects = Annotation.SEGMENTS in self.annotations
        objects = Kind(self.truth, f"_{self.truth}_instanceIds.png") if with_objects else None
        strange: set[str] = set()
        if not listing.add_folder(self.root, images, labels, partial(self._place, strange), objects=objects):
            raise InputError(
                f"{self.root}: no {IMAGES}/**/*{IMAGE_ENDING} here; expected {IMAGES}/train/<city>/ and "
                f"{self.truth}/train/<city>/: give the folder that holds both as root"
            )
        listing.pass_over(
            "folder(s) of no published split", strange, f"rename them to {', '.join(EXPECTED[self.truth])}"
        )
        return listing.result()

    def _place(self, strange: set[str], stem: str) -> Place | None:
        """What a stem means; folders that Cityscapes does not have are added to `strange`."""
        *folders, sample_id = stem.split("/")
        city = sample_id.partition("_")[0]  # those of val are not in train
        if self.split:
            return Place(sample_id, self.split, city)
        if len(folders) != 2:
            raise InputError(
                f"{self.root}/{IMAGES}/{stem}{IMAGE_ENDING}: expected <split>/<city>/ around the file: restore the "
                "layout, or name one split for all by the option split"
            )
        if folders[0] in EXPECTED[self.truth]:
            return Place(sample_id, folders[0], city)
        if folders[0] not in WITHOUT_TRUTH:
            strange.add(folders[0])
        return None

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its classes and, where asked for, its segments. Raises BadSampleError."""
        image_path, mask_path, *objects = ref.files
        image = read_photograph(self.root, image_path)
        labels = masks.map_labels(read_labels(self.root, mask_path, image), LABEL_IDS, file=mask_path)
        segment_map: bytes | None = None
        segments: tuple[Segment, ...] = ()
        for path in objects:
            raw = read_labels(self.root, path, image)
            raw[labels == IGNORE_8BIT] = 0
            numbered = regions(raw, file=path)
            segment_map = masks.stored(numbered.segment_map)
            found = enumerate(zip(numbered.raw_ids, numbered.areas, strict=True), start=1)
            segments = tuple(_segment(number, raw_id, area, path) for number, (raw_id, area) in found)
        return sample_of(
            ref,
            image,
            label_map=masks.stored(labels),
            segment_map=segment_map,
            segments=segments,
        )


def _segment(number: int, raw_id: int, area: int, path: str) -> Segment:
    class_id = LABEL_IDS.get(raw_id // 1000 or raw_id, IGNORE_8BIT)
    if class_id == IGNORE_8BIT:
        raise BadSampleError(
            "bad_annotation",
            path,
            f"id {raw_id} is no scored object, but labelIds has a scored class there: one is wrong, fetch both again",
        )
    is_crowd = raw_id < 1000 and ROAD_CLASSES[class_id].is_thing
    return Segment(segment_id=number, class_id=class_id, area=area, is_crowd=is_crowd)


def open_cityscapes(
    root: str,
    *,
    truth: Annotated[str, "gtFine or gtCoarse: which polygons are read"] = "gtFine",
    split: Annotated[str, "name of the one split, for a flat folder without train/ and val/"] = "",
    segments: Annotated[bool, "false reads classes alone, without instanceIds"] = True,
) -> Cityscapes:
    """Opens the set. Raises InputError on a bad option."""
    if truth not in EXPECTED:
        raise InputError(f"option truth={truth!r}; expected {' or '.join(EXPECTED)}")
    if split and split not in EXPECTED[truth]:
        raise InputError(f"option split={split!r}; expected one of {', '.join(EXPECTED[truth])}")
    annotations = (Annotation.LABEL_MAP, *((Annotation.SEGMENTS,) if segments else ()))
    return Cityscapes(root=root, truth=truth, split=split, annotations=annotations)


INFO = SourceInfo(
    name="cityscapes",
    open=open_cityscapes,
    summary="Cityscapes street scenes of 2048x1024, 2975/500 frames, 19998 more of them coarse, 19 scored classes",
    licence=LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION, Task.PANOPTIC),
    layout=(
        "leftImg8bit/{train,val}/aachen/aachen_000000_000019_leftImg8bit.png",
        "gtFine/{train,val}/aachen/aachen_000000_000019_gtFine_labelIds.png",
        "gtFine/{train,val}/aachen/aachen_000000_000019_gtFine_instanceIds.png",
        "or gtCoarse/{train,val,train_extra}/aachen/aachen_000000_000019_gtCoarse_{labelIds,instanceIds}.png",
    ),
    expected=EXPECTED["gtFine"],
    known_bad=KNOWN_BAD,
)
