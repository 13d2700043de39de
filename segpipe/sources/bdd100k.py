"""BDD100K semantic segmentation: 10k driving scenes of 1280x720, the 19 classes of Cityscapes as train ids, 255 = void.

Source: Yu et al. 2020, doc.bdd100k.com (images "10K Images", labels "Semantic Segmentation", sem_seg/masks).
In the first archives four images of train and two of val had no mask, and as many masks no image (bdd100k/bdd100k,
issue 103): they are refused as such; the archives since June 2021 agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segpipe.errors import InputError
from segpipe.sources.reading import Kind, Listing, alone_in, coding, read_pair
from segpipe.sources.reading.road_labels import ROAD_CLASSES, TRAIN_IDS
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

IMAGES, MASKS = "images/10k", "labels/sem_seg/masks"
SPLITS = ("train", "val")  # the test split's masks are not published
EXPECTED = {"train": 7000, "val": 1000}
LICENCE = "BSD 3-clause for education, research and not-for-profit purposes (doc.bdd100k.com)"
CODING = coding(TRAIN_IDS, "values are Cityscapes' train ids; 255 is void")


@dataclass(frozen=True, slots=True)
class Bdd100k:
    """The folder that holds images/10k/ and labels/sem_seg/masks/."""

    root: str
    name: str = "bdd100k"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = ROAD_CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def expected(self) -> Mapping[str, int]:
        """The published counts."""
        return EXPECTED

    def index(self) -> Index:
        """Every image of train and val. Raises InputError where there is none."""
        listing, found = Listing(), 0
        for split in SPLITS:
            images, masks = Kind(f"{IMAGES}/{split}", ".jpg"), Kind(f"{MASKS}/{split}", ".png")
            found += listing.add_folder(self.root, images, masks, alone_in(split))
        if not found:
            raise InputError(
                f"{self.root}: no {IMAGES}/train/*.jpg here; expected {IMAGES}/ and {MASKS}/ with train/ and val/: "
                "give the folder bdd100k as root"
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One scene with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, TRAIN_IDS)


INFO = SourceInfo(
    name="bdd100k",
    open=Bdd100k,
    summary="BDD100K driving scenes of 1280x720, 7000/1000 frames, Cityscapes' 19 classes",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=("images/10k/{train,val}/0004a4c0-d4dff0ad.jpg", "labels/sem_seg/masks/{train,val}/0004a4c0-d4dff0ad.png"),
    expected=EXPECTED,
)
