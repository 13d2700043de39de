"""PASCAL-5i: VOC 2012 with SBD's masks as a few-shot set; five of the 20 classes are novel, in turn, in four folds.

Source: Shaban et al. 2017 (OSLSM, arXiv 1709.03410); classes 5i+1 to 5i+5 are novel in fold i. Split `train` holds
training images with a base class, `val` validation images with a novel one, and a mask shows the classes of its split
alone: the rest is background, as the paper has it, or ignored (option `outside`). Which images those are stands in the
lists that the field passes on (lines `2007_000032__01`, image and class; github.com/juhongm999/hsnet,
data/splits/pascal), made once from the masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe.errors import BadSampleError, InputError
from segpipe.masks import map_labels, stored
from segpipe.sources.reading import (
    Kind,
    Line,
    Listing,
    Place,
    coding,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
)
from segpipe.sources.reading.voc import VOC_CLASSES, VOC_IDS, VOC_LICENCE, VOC_NAMES
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

NUM_FOLDS, PER_FOLD = 4, 5
OUTSIDE = {"background": 0, "ignored": IGNORE_8BIT}
# Different images in the published lists.
EXPECTED = (
    {"train": 8450, "val": 345},
    {"train": 8081, "val": 433},
    {"train": 7007, "val": 587},
    {"train": 9002, "val": 326},
)


def novel_classes(fold: int) -> tuple[int, ...]:
    """The class ids that are novel in a fold."""
    return tuple(range(PER_FOLD * fold + 1, PER_FOLD * (fold + 1) + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pascal5i:
    """The folder that holds JPEGImages/ (VOCdevkit/VOC2012), opened by `open_pascal_5i`."""

    root: str
    fold: int
    masks: str
    lists: str
    outside: int
    name: str = "pascal_5i"
    licence: str = VOC_LICENCE
    classes: tuple[ClassInfo, ...] = VOC_CLASSES
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def novel(self) -> tuple[int, ...]:
        """The class ids of split `val`; the other objects are those of `train`."""
        return novel_classes(self.fold)

    @property
    def coding(self) -> LabelCoding:
        """VOC's own; which classes are novel is a rule of it."""
        names = ", ".join(VOC_NAMES[class_id] for class_id in self.novel)
        rest = "background" if self.outside == 0 else "ignored"
        return coding(
            VOC_IDS,
            f"fold {self.fold}: novel, and the classes of val, are {names}",
            f"the classes of the other split are {rest}",
        )

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of the published lists."""
        return EXPECTED[self.fold]

    def index(self) -> Index:
        """Every image of the fold's lists once. Raises InputError where a list is missing or of another making."""
        lines = []
        for split in ("train", "val"):
            shown: dict[str, list[int]] = {}
            where: dict[str, str] = {}
            for stem, class_id, path in self._listed(split):
                shown.setdefault(stem, []).append(class_id)
                where.setdefault(stem, path)
            for stem, class_ids in shown.items():
                extra = {"listed": sorted(class_ids), "split": split}
                lines.append(Line(stem, Place(stem, split, stem), where[stem], extra))
        listing = Listing()
        listing.add_lines(self.root, Kind("JPEGImages", ".jpg"), Kind(self.masks, ".png"), lines)
        return listing.result()

    def _listed(self, split: str) -> Iterator[tuple[str, int, str]]:
        """(stem, class id, list) of each line. Training takes the lists of the other folds."""
        folds = [self.fold] if split == "val" else [fold for fold in range(NUM_FOLDS) if fold != self.fold]
        for fold in folds:
            path = f"{self.lists}/{'val' if split == 'val' else 'trn'}/fold{fold}.txt"
            for number, line in enumerate(read_lines(self.root, path), start=1):
                stem, _, text = line.strip().rpartition("__")
                if line.strip() and (not stem or not text.isdecimal() or int(text) not in novel_classes(fold)):
                    raise InputError(
                        f"{self.root}/{path}: line {number} is {line[:60]!r}; expected `image__class` with a class of "
                        f"{novel_classes(fold)[0]:02d} to {novel_classes(fold)[-1]:02d}: fetch the list again"
                    )
                if line.strip():
                    yield stem, int(text), path

    def read(self, ref: SampleRef) -> Sample:
        """One image with the classes of its split. Raises BadSampleError."""
        image_path, mask_path = ref.files
        image = read_photograph(self.root, image_path)
        labels = map_labels(read_labels(self.root, mask_path, image), self._table(ref.extra["split"]), file=mask_path)
        if absent := sorted(set(ref.extra["listed"]) - set(np.unique(labels).tolist())):
            raise BadSampleError(
                "bad_annotation",
                mask_path,
                f"no pixel is {VOC_NAMES[absent[0]]}, for which the image is listed: are these SBD's masks?",
            )
        return sample_of(ref, image, label_map=stored(labels))

    def _table(self, split: str) -> dict[int, int]:
        kept = [class_id for class_id in range(1, len(VOC_NAMES)) if (class_id in self.novel) == (split == "val")]
        others = dict.fromkeys(range(1, len(VOC_NAMES)), self.outside)
        return {**others, **{class_id: class_id for class_id in kept}, 0: 0, IGNORE_8BIT: IGNORE_8BIT}


def open_pascal_5i(
    root: str,
    *,
    fold: Annotated[int, "which fold is novel, 0 to 3: its 5 classes are those of val"] = 0,
    masks: Annotated[str, "folder of the masks below the root"] = "SegmentationClassAug",
    lists: Annotated[str, "folder of trn/ and val/ with the lists of the folds, below the root"] = "splits/pascal",
    outside: Annotated[str, "background or ignored: what pixels of the other split's classes become"] = "background",
) -> Pascal5i:
    """Opens one fold. Raises InputError on a bad option."""
    if fold not in range(NUM_FOLDS):
        raise InputError(f"option fold={fold!r}; expected 0 to {NUM_FOLDS - 1}")
    if outside not in OUTSIDE:
        raise InputError(f"option outside={outside!r}; expected {' or '.join(OUTSIDE)}")
    return Pascal5i(root=root, fold=fold, masks=masks, lists=lists.strip("/"), outside=OUTSIDE[outside])


INFO = SourceInfo(
    name="pascal_5i",
    open=open_pascal_5i,
    summary="PASCAL-5i, few-shot folds of VOC 2012 and SBD: 15 base classes to train, 5 novel ones to validate",
    licence=VOC_LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=(
        "JPEGImages/2007_000032.jpg",
        "SegmentationClassAug/2007_000032.png",
        "splits/pascal/{trn,val}/fold{0,1,2,3}.txt",
    ),
    expected=EXPECTED[0],
)
