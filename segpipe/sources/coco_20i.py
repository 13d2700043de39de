"""COCO-20i: COCO's objects as a few-shot set; 20 of the 80 classes are novel, in turn, in four folds.

Source: Nguyen and Todorovic 2019 (FWB, arXiv 1909.13140); the k-th class, from 0, is novel in fold k mod 4, as all who
report on it have it. Split `train` holds images of COCO's train with an object of a base class, `val` those of its val
with one of a novel class, and a mask shows the classes of its split alone: the rest is background, or ignored (option
`outside`). The papers took COCO 2014. Nobody has published the masks' rule: here smaller objects lie over larger ones,
and a crowd of a shown class is ignored where no object is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from segpipe.errors import InputError
from segpipe.masks import stored
from segpipe.sources.reading import (
    Listing,
    class_colour,
    coding,
    mask_of_segmentation,
    sample_of,
)
from segpipe.sources.reading.coco_json import LICENCE, Document, read_documents
from segpipe.sources.reading.coco_objects import images_with_objects, photograph_of
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

NUM_FOLDS = 4
OUTSIDE = {"background": 0, "ignored": IGNORE_8BIT}
DOCUMENTS, IMAGES = "annotations/instances_{split}2014.json", "{split}2014"


@dataclass(frozen=True, kw_only=True, slots=True)
class Coco20i:
    """COCO's documents and images, opened by `open_coco_20i`. Class 0 is background, class k the k-th category."""

    root: str
    fold: int
    documents: str
    images: str
    outside: int
    name: str = "coco_20i"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Background, then the categories in the order of the files. Raises InputError as `index`."""
        return (ClassInfo(name="background", colour=class_colour(0)), *self._document().classes)

    @property
    def novel(self) -> tuple[int, ...]:
        """The class ids of split `val`; the other objects are those of `train`."""
        return self._novel(self._document())

    @property
    def coding(self) -> LabelCoding:
        """Category ids; which classes are novel is a rule of it."""
        classes = self.classes
        return coding(
            {raw: category.class_id + 1 for raw, category in self._document().categories.items()},
            f"fold {self.fold}: novel, and the classes of val, are {', '.join(classes[k].name for k in self.novel)}",
            f"the classes of the other split are {'background' if self.outside == 0 else 'ignored'}",
            "values are category ids; smaller objects lie over larger ones, a crowd is ignored",
        )

    @property
    def expected(self) -> None:
        """The papers do not say how many images have a class of a fold."""

    def index(self) -> Index:
        """Every image with an object of its split's classes. Raises InputError on a document that is not COCO's."""
        documents = read_documents(self.root, self.documents)
        if documents.keys() != {"train", "val"}:
            raise InputError(
                f"{self.root}: {self.documents} fits {', '.join(map(repr, documents))}; expected documents of train "
                "and val: say which they are by the option annotations, with {split} in it"
            )
        listing, novel = Listing(), set(self._novel(documents["train"]))
        for each in images_with_objects(self.root, documents, self.images, listing):
            objects = [_seen(entry, novel, each.split) for entry in each.extra["objects"]]
            if any(entry["is_shown"] and not entry["is_crowd"] for entry in objects):
                listing.add(
                    each.sample_id,
                    split=each.split,
                    group=each.sample_id,
                    files=each.files,
                    listed=each.files[1],
                    extra={**each.extra, "objects": objects},
                )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One image with the classes of its split. Raises BadSampleError."""
        image = photograph_of(self.root, ref)
        layers = []
        for each in ref.extra["objects"]:
            where = f"{ref.files[1]}, annotation {each['id']}"
            mask = mask_of_segmentation(each["segmentation"], image.height, image.width, file=where) > 0
            value = self.outside if not each["is_shown"] else IGNORE_8BIT if each["is_crowd"] else each["class_id"]
            # What is painted last is seen: objects over crowds, crowds over what is not shown.
            layers.append(((each["is_shown"], not each["is_crowd"], -int(mask.sum())), value, mask))
        labels = np.zeros((image.height, image.width), np.uint8)
        for _, value, mask in sorted(layers, key=lambda layer: layer[0]):
            labels[mask] = value
        return sample_of(ref, image, label_map=stored(labels))

    def _novel(self, document: Document) -> tuple[int, ...]:
        return tuple(range(self.fold + 1, len(document.categories) + 1, NUM_FOLDS))

    def _document(self) -> Document:
        return next(iter(read_documents(self.root, self.documents).values()))


def _seen(entry: Mapping[str, Any], novel: set[int], split: str) -> dict[str, Any]:
    """An object with the class id that it has here, and whether its split shows it."""
    class_id = entry["class_id"] + 1
    kept = {key: entry[key] for key in ("id", "is_crowd", "segmentation")}
    return {**kept, "class_id": class_id, "is_shown": (class_id in novel) == (split == "val")}


def open_coco_20i(
    root: str,
    *,
    fold: Annotated[int, "which fold is novel, 0 to 3: its 20 classes are those of val"] = 0,
    annotations: Annotated[str, "the documents below the root; {split} stands for train and val"] = DOCUMENTS,
    images: Annotated[str, "folder of the photographs below the root; {split} as in annotations"] = IMAGES,
    outside: Annotated[str, "background or ignored: what pixels of the other split's classes become"] = "background",
) -> Coco20i:
    """Opens one fold. Raises InputError on a bad option."""
    if fold not in range(NUM_FOLDS):
        raise InputError(f"option fold={fold!r}; expected 0 to {NUM_FOLDS - 1}")
    if outside not in OUTSIDE:
        raise InputError(f"option outside={outside!r}; expected {' or '.join(OUTSIDE)}")
    return Coco20i(root=root, fold=fold, documents=annotations, images=images, outside=OUTSIDE[outside])


INFO = SourceInfo(
    name="coco_20i",
    open=open_coco_20i,
    summary="COCO-20i, few-shot folds of COCO's objects: 60 base classes to train, 20 novel ones to validate",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=("{train,val}2014/COCO_train2014_000000000009.jpg", "annotations/instances_{train,val}2014.json"),
)
