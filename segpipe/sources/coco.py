"""COCO objects: any COCO-style JSON of polygons and run lengths, single objects, crowds and keypoints; 80 classes.

Source: Lin et al. 2014 (arXiv 1405.0312), cocodataset.org; the format also of most annotation tools. Category ids have
gaps (1..90 for 80 classes) and die here: class k is the k-th category of the file. Objects may overlap, so each has run
lengths of its own; an image without objects is a sample like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segpipe.errors import BadSampleError
from segpipe.sources.reading import (
    Listing,
    below,
    files_below,
    hashed_split,
    is_number,
    mask_of_segmentation,
    parse_shares,
    read_photograph,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.reading.coco_json import (
    Category,
    Document,
    category_coding,
    classes_of,
    ignored_id,
    read_documents,
)
from segpipe.sources.spec import SourceInfo
from segpipe.types import (
    Annotation,
    ClassInfo,
    Keypoints,
    LabelCoding,
    QuarantineEntry,
    Sample,
    SampleRef,
    Task,
)

PUBLISHED = "annotations/instances_{split}2017.json"
LICENCE = "annotations CC BY 4.0; each image under its own Flickr licence (cocodataset.org)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Coco:
    """Documents and images of one dataset, opened by `open_coco`. The patterns may hold {split}."""

    root: str
    documents: str
    images: str
    shares: tuple[float, ...]
    licence: str
    name: str = "coco"

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The categories in the order of the file. Raises InputError as `index`."""
        return classes_of(read_documents(self.root, self.documents))

    @property
    def coding(self) -> LabelCoding:
        return category_coding(read_documents(self.root, self.documents))

    @property
    def ignore_index(self) -> int:
        return ignored_id(self.classes)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Keypoints where a category has them."""
        documents = read_documents(self.root, self.documents).values()
        has_keypoints = any(c.num_keypoints for document in documents for c in document.categories.values())
        return (Annotation.SEGMENTS, *((Annotation.KEYPOINTS,) if has_keypoints else ()))

    @property
    def expected(self) -> Mapping[str, int] | None:
        """COCO 2017's counts; none for documents of another name."""
        return {"train": 118287, "val": 5000} if self.documents == PUBLISHED else None

    def index(self) -> tuple[list[SampleRef], list[QuarantineEntry]]:
        """Every listed image with its annotations. Raises InputError where a document is missing or not COCO's."""
        listing = Listing()
        for split, document in read_documents(self.root, self.documents).items():
            for item, fault in document.faults:
                listing.refuse(document.path, item, "bad_annotation", f"{fault}: mend the entry")
            place = self.images.replace("{split}", split).strip("/")
            there = files_below(self.root, place)
            objects, faults = _by_image(document)
            for item, detail in faults.items():
                listing.refuse(document.path, item, "bad_annotation", f"{detail}: mend the annotation")
            for image_id, entry in document.images.items():
                if _item(image_id) in faults:
                    continue
                file = below(place, entry.file_name)
                sample_id = file.rpartition(".")[0] or file
                if file not in there:
                    detail = f"listed in {document.path}, but there is no such file: restore it or take the image out"
                    listing.refuse(file, sample_id, "missing_image", detail)
                    continue
                listing.add(
                    sample_id,
                    split=split or hashed_split(sample_id, self.shares),
                    group=sample_id,
                    files=(file, document.path),  # the document is in it so that a change of it is noticed
                    listed=document.path,
                    extra={"height": entry.height, "width": entry.width, "objects": objects.get(image_id, [])},
                )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One image with its objects. Raises BadSampleError."""
        file, document = ref.files
        image = read_photograph(self.root, file)
        said = (ref.extra["height"], ref.extra["width"])
        if said != (image.height, image.width):
            raise BadSampleError(
                "size_mismatch", file, f"{image.width}x{image.height} pixels, {document} says {said[1]}x{said[0]}"
            )
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


def _by_image(document: Document) -> tuple[dict[int | str, list[dict[str, Any]]], dict[str, str]]:
    """The objects of each image as plain data, and what cannot be used: item -> why.

    A bad annotation costs its image: without the object, a model would learn that it is background.
    """
    objects: dict[int | str, list[dict[str, Any]]] = {}
    faults: dict[str, str] = {}
    for number, entry in enumerate(document.annotations):
        where, image_id, category_id = f"annotations[{number}]", entry.get("image_id"), entry.get("category_id")
        if not isinstance(image_id, int | str) or image_id not in document.images:
            faults[where] = f"image_id is {image_id!r:.40}, which no image has"
        elif not isinstance(category_id, int) or (category := document.categories.get(category_id)) is None:
            faults[_item(image_id)] = f"{where}.category_id is {category_id!r:.40}, which no category has"
        elif (points := _points(entry, category)) is None:
            expected = f"x, y, v of {category.num_keypoints} points"
            faults[_item(image_id)] = f"{where}.keypoints is {entry.get('keypoints')!r:.60}; expected {expected}"
        else:
            objects.setdefault(image_id, []).append(
                {
                    "id": str(entry.get("id", number)),
                    "class_id": category.class_id,
                    "is_crowd": entry.get("iscrowd") == 1,
                    "area": float(area) if is_number(area := entry.get("area")) and area >= 0 else None,
                    "segmentation": entry.get("segmentation"),
                    "keypoints": points,
                }
            )
    return objects, faults


def _item(image_id: int | str) -> str:
    return f"image {image_id}"


def _points(entry: Mapping[str, Any], category: Category) -> list[Any] | None:
    """The keypoints of an annotation, [] where it has none; None where they are not what the category says."""
    points = entry.get("keypoints") or []
    fits = isinstance(points, list) and all(is_number(value) for value in points)
    return points if fits and len(points) in (0, 3 * category.num_keypoints) else None


def _keypoints(flat: list[Any], segment_id: int, where: str) -> Keypoints:
    points = [(float(flat[at]), float(flat[at + 1]), flat[at + 2]) for at in range(0, len(flat), 3)]
    if bad := [point for point in points if point[2] not in (0, 1, 2)]:
        raise BadSampleError("bad_annotation", where, f"keypoint {bad[0]}; expected visibility 0, 1 or 2: mend it")
    return Keypoints(segment_id=segment_id, points=tuple((x, y, int(v)) for x, y, v in points))


def open_coco(
    root: str,
    *,
    annotations: str = PUBLISHED,
    images: str = "{split}2017",
    shares: str = "0.8,0.1,0.1",
    licence: str = LICENCE,
) -> Coco:
    """Opens COCO-style documents; its options are `INFO.options`. Raises InputError on a bad option.

    `annotations` and `images` are patterns below the root; a document without {split} in its name is dealt by `shares`.
    """
    return Coco(root=root, documents=annotations, images=images, shares=parse_shares(shares), licence=licence)


INFO = SourceInfo(
    name="coco",
    open=open_coco,
    summary="COCO 2017 instances, 118287/5000 photographs, 80 classes; keypoints; any COCO-style JSON",
    licence=LICENCE,
    tasks=(Task.INSTANCE, Task.KEYPOINTS),
    options={
        "annotations": PUBLISHED,
        "images": "{split}2017",
        "shares": "0.8,0.1,0.1",
        "licence": LICENCE,
    },
    layout=("{train,val}2017/000000000009.jpg", "annotations/instances_{train,val}2017.json"),
)
