"""The objects of a COCO document by image, checked, as plain data: for `coco` and `coco_20i`. Part of `reading`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from segpipe.errors import BadSampleError
from segpipe.sources.reading.coco_json import Category, Document, files_of, folder_of
from segpipe.sources.reading.files import Photograph, read_photograph
from segpipe.sources.reading.listing import Listing, is_number
from segpipe.sources.reading.trees import PICTURE_SUFFIXES, below
from segpipe.types import SampleRef


class Pictured(NamedTuple):
    """One image of a document that can be used. `extra` is what `photograph_of` and a source's `read` need of it."""

    sample_id: str
    split: str
    files: tuple[str, str]
    extra: dict[str, Any]


def images_with_objects(
    root: str, documents: Mapping[str, Document], pattern: str, listing: Listing
) -> Iterator[Pictured]:
    """Every image of the documents that is there, in the folders that `pattern` means, with its objects.

    Everything that cannot be used is refused in `listing`.
    """
    there = files_of(root, documents, pattern)
    for split, document in documents.items():
        for item, fault in document.faults:
            listing.refuse(document.path, item, "bad_annotation", f"{fault}: mend the entry")
        objects, faults = objects_by_image(document)
        for item, detail in faults.items():
            listing.refuse(document.path, item, "bad_annotation", f"{detail}: mend the annotation")
        for image_id, entry in document.images.items():
            if _item(image_id) in faults:
                continue
            file = below(folder_of(pattern, split), entry.file_name)
            sample_id = file.rpartition(".")[0] or file
            if file not in there:
                detail = f"listed in {document.path}, but there is no such file: restore it or take the image out"
                listing.refuse(file, sample_id, "missing_image", detail)
                continue
            extra = {"height": entry.height, "width": entry.width, "objects": objects.get(image_id, [])}
            # The document is in it so that a change of it is noticed.
            yield Pictured(sample_id, split, (file, document.path), extra)
    pass_over_unlisted(documents, pattern, there, listing)


def pass_over_unlisted(
    documents: Mapping[str, Document], pattern: str, there: frozenset[str], listing: Listing
) -> None:
    """Notes the photographs in the folders that `pattern` means that no document lists. COCO's own list all of them.

    Where such a folder is the root, other files lie beside: it counts only in folders of which a document lists some.
    """
    named = {
        below(folder_of(pattern, split), entry.file_name)
        for split, document in documents.items()
        for entry in document.images.values()
    }
    folders = {folder for split in documents if (folder := folder_of(pattern, split))}
    beside = {path.rpartition("/")[0] for path in named}
    left = [
        path
        for path in there - named
        if path.endswith(PICTURE_SUFFIXES)
        and (path.rpartition("/")[0] in beside or any(path.startswith(f"{folder}/") for folder in folders))
    ]
    paths = " and ".join(document.path for document in documents.values())
    listing.pass_over(f"photograph(s) not in {paths}", left, "annotate them, or take them out")


def photograph_of(root: str, ref: SampleRef) -> Photograph:
    """The photograph of a `Pictured`, which must have the size that its document says. Raises BadSampleError."""
    file, document = ref.files
    image, said = read_photograph(root, file), (ref.extra["height"], ref.extra["width"])
    if said != (image.height, image.width):
        detail = f"{image.width}x{image.height} pixels, {document} says {said[1]}x{said[0]}"
        raise BadSampleError("size_mismatch", file, detail)
    return image


def objects_by_image(document: Document) -> tuple[dict[int | str, list[dict[str, Any]]], dict[str, str]]:
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
        elif (box := _box(entry)) is None:
            faults[_item(image_id)] = f"{where}.bbox is {entry.get('bbox')!r:.60}; expected x, y, width, height"
        else:
            objects.setdefault(image_id, []).append(
                {
                    "id": str(entry.get("id", number)),
                    "class_id": category.class_id,
                    "is_crowd": entry.get("iscrowd") == 1,
                    "area": float(area) if is_number(area := entry.get("area")) and area >= 0 else None,
                    "box": box,
                    "segmentation": entry.get("segmentation"),
                    "keypoints": points,
                }
            )
    return objects, faults


def _item(image_id: int | str) -> str:
    return f"image {image_id}"


def _box(entry: Mapping[str, Any]) -> list[float] | None:
    """The box of an annotation as stated, [] where it has none; None where it is no box, as one without an extent."""
    box = entry.get("bbox") or []
    fits = isinstance(box, list) and all(is_number(value) for value in box)
    if not fits or (box and (len(box) != 4 or min(box[2:]) <= 0)):
        return None
    return [float(value) for value in box]


def _points(entry: Mapping[str, Any], category: Category) -> list[Any] | None:
    """The keypoints of an annotation, [] where it has none; None where they are not what the category says."""
    points = entry.get("keypoints") or []
    fits = isinstance(points, list) and all(is_number(value) for value in points)
    return points if fits and len(points) in (0, 3 * category.num_keypoints) else None
