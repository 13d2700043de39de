"""COCO objects: any COCO-style JSON of polygons and run lengths, single objects, crowds and keypoints; 80 classes.

Source: Lin et al. 2014 (arXiv 1405.0312), cocodataset.org; the format also of most annotation tools. Category ids have
gaps (1..90 for 80 classes) and die here: class k is the k-th category of the file. Objects may overlap, so each has run
lengths of its own; an image without objects is a sample like any other (1,021 of train2017 and 48 of val2017).
With `annotations=annotations/person_keypoints_{split}2017.json` the one class is person, with 17 keypoints; an object
that nobody marked up (`num_keypoints` 0) has 17 of visibility 0.
Known, and kept: two images of train2017 (200365, 550395) have an object without area, whose mask is empty
(cocodataset/cocoapi, issue 355).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from segpipe.errors import BadSampleError
from segpipe.sources.reading import (
    Listing,
    hashed_split,
    mask_of_segmentation,
    parse_shares,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.reading.coco_json import (
    EXPECTED,
    IMAGES,
    LICENCE,
    OBJECTS,
    SHARES,
    Documented,
)
from segpipe.sources.reading.coco_objects import images_with_objects, photograph_of
from segpipe.sources.spec import Index, Licence, Shares, SourceInfo
from segpipe.types import (
    Annotation,
    Keypoints,
    Sample,
    SampleRef,
    Task,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coco(Documented):
    """Documents and images of one dataset, opened by `open_coco`."""

    name: str = "coco"

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Keypoints where a category has them."""
        return (Annotation.SEGMENTS, *((Annotation.KEYPOINTS,) if self.num_keypoints else ()))

    @property
    def num_keypoints(self) -> int:
        """As the categories say."""
        documents = self.read_documents().values()
        return max((c.num_keypoints for document in documents for c in document.categories.values()), default=0)

    def index(self) -> Index:
        """Every listed image with its annotations. Raises InputError where a document is missing or not COCO's."""
        listing, documents = Listing(), self.read_documents()
        for each in images_with_objects(self.root, documents, self.images, listing):
            listing.add(
                each.sample_id,
                split=each.split or hashed_split(each.sample_id, self.shares),
                group=each.sample_id,
                files=each.files,
                listed=each.files[1],
                extra=each.extra,
            )
        if "" in documents:  # a document without a split in its name
            listing.dealt(self.shares, "name a document for each split, with {split} in the option annotations")
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One image with its objects. Raises BadSampleError."""
        image, document = photograph_of(self.root, ref), ref.files[1]
        segments, keypoints = [], []
        for number, each in enumerate(ref.extra["objects"], start=1):
            where = f"{document}, annotation {each['id']}"
            mask = mask_of_segmentation(each["segmentation"], image.height, image.width, file=where)
            segments.append(
                segment_of_mask(
                    mask,
                    segment_id=number,
                    class_id=each["class_id"],
                    is_crowd=each["is_crowd"],
                    area=each["area"],
                    box=tuple(each["box"]) or None,
                )
            )
            if each["keypoints"]:
                keypoints.append(_keypoints(each["keypoints"], number, where))
        return sample_of(
            ref,
            image,
            segments=tuple(segments),
            keypoints=tuple(keypoints),
        )


def _keypoints(flat: list[Any], segment_id: int, where: str) -> Keypoints:
    points = [(float(flat[at]), float(flat[at + 1]), flat[at + 2]) for at in range(0, len(flat), 3)]
    if bad := [point for point in points if point[2] not in (0, 1, 2)]:
        raise BadSampleError("bad_annotation", where, f"keypoint {bad[0]}; expected visibility 0, 1 or 2: mend it")
    return Keypoints(segment_id=segment_id, points=tuple((x, y, int(v)) for x, y, v in points))


def open_coco(
    root: str,
    *,
    annotations: Annotated[
        str, "documents below the root; {split} is the split's name, and without it shares deal the images"
    ] = OBJECTS,
    images: Annotated[str, "folder of the photographs below the root; {split} as in annotations"] = IMAGES,
    shares: Shares = SHARES,
    licence: Licence = LICENCE,
) -> Coco:
    """Opens COCO-style documents. Raises InputError on a bad option."""
    return Coco(root=root, documents=annotations, images=images, shares=parse_shares(shares), licence=licence)


INFO = SourceInfo(
    name="coco",
    open=open_coco,
    summary="COCO 2017 instances, 118287/5000 photographs, 80 classes; keypoints; any COCO-style JSON",
    licence=LICENCE,
    tasks=(Task.INSTANCE, Task.DETECTION, Task.KEYPOINTS),
    layout=(
        "{train,val}2017/000000000009.jpg",
        "annotations/instances_{train,val}2017.json, or person_keypoints_{train,val}2017.json",
    ),
    expected=EXPECTED,
)
