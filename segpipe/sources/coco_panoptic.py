"""COCO panoptic: every pixel belongs to a thing or to stuff; 133 classes, 0 = void; an RGB PNG of ids for each image.

Source: Kirillov et al. 2019 (arXiv 1801.00868), github.com/cocodataset/panopticapi. The document says which class an id
of the PNG has; both must name the same ids. Crowd regions keep their class in the label map and are marked as crowds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from segpipe import masks
from segpipe.errors import BadSampleError
from segpipe.sources.reading import (
    Listing,
    below,
    check_size,
    hashed_split,
    is_inside,
    parse_shares,
    read_file,
    read_photograph,
    regions,
    sample_of,
)
from segpipe.sources.reading.coco_json import (
    EXPECTED,
    IMAGES,
    LICENCE,
    PANOPTIC,
    SHARES,
    Document,
    Documented,
    files_of,
    folder_of,
)
from segpipe.sources.reading.coco_objects import pass_over_unlisted
from segpipe.sources.spec import Index, Shares, SourceInfo
from segpipe.types import (
    IGNORE_16BIT,
    Annotation,
    Sample,
    SampleRef,
    Segment,
    Task,
)

PNGS = "annotations/panoptic_{split}2017"


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoPanoptic(Documented):
    """Documents, images and id PNGs of one dataset, opened by `open_coco_panoptic`. `pngs` may hold {split}."""

    pngs: str
    name: str = "coco_panoptic"
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    def index(self) -> Index:
        """Every image of every annotation. Raises InputError where a document is missing or not COCO's."""
        listing, documents = Listing(), self.read_documents()
        drawn: set[str] = set()
        there = files_of(self.root, documents, self.images, self.pngs)
        for split, document in documents.items():
            for item, fault in document.faults:
                listing.refuse(document.path, item, "bad_annotation", f"{fault}: mend the entry")
            images, pngs = folder_of(self.images, split), folder_of(self.pngs, split)
            painted: set[int | str] = set()
            for number, entry in enumerate(document.annotations):
                image_id, png = entry.get("image_id"), entry.get("file_name")
                image = document.images.get(image_id) if isinstance(image_id, int | str) else None
                segments = _segments(entry.get("segments_info"), document)
                if image is None or image_id is None or not is_inside(png) or segments is None:
                    detail = f"{entry!r:.120}; expected an image_id, file_name and segments_info of known things"
                    listing.refuse(document.path, f"annotations[{number}]", "bad_annotation", f"{detail}: mend it")
                    continue
                painted.add(image_id)
                file, mask = below(images, image.file_name), below(pngs, png)
                drawn.add(mask)
                sample_id = file.rpartition(".")[0] or file
                listing.add_pair(
                    sample_id,
                    split=split or hashed_split(sample_id, self.shares),
                    group=sample_id,
                    image=file if file in there else None,
                    mask=mask if mask in there else None,
                    expected=(file, mask),
                    listed=document.path,
                    further=(document.path,),  # in it so that a change of it is noticed
                    extra={"segments": segments, "ignore": document.ignore_index},
                )
            for image_id in document.images.keys() - painted:
                detail = "no annotation names this image: add one, or take the image out"
                listing.refuse(document.path, f"image {image_id}", "missing_mask", detail)
        pass_over_unlisted(documents, self.images, there - drawn, listing)
        if "" in documents:  # a document without a split in its name
            listing.dealt(self.shares, "name a document for each split, with {split} in the option annotations")
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One image with its segments. Raises BadSampleError."""
        file, png, document = ref.files
        image = read_photograph(self.root, file)
        data = read_file(self.root, png, missing="missing_mask")
        check_size(data, png, image)
        numbered = regions(masks.read_id_image(data, file=png), file=png)
        said: dict[int, Mapping[str, Any]] = {each["id"]: each for each in ref.extra["segments"]}
        if said.keys() != set(numbered.raw_ids):
            only = sorted(said.keys() ^ set(numbered.raw_ids))[0]
            where = document if only in said else png
            raise BadSampleError(
                "bad_annotation", png, f"segment {only} is only in {where}; expected the same ids in both: export again"
            )
        wide = ref.extra["ignore"] == IGNORE_16BIT
        table = np.array(
            [ref.extra["ignore"], *(said[raw]["class_id"] for raw in numbered.raw_ids)], np.uint16 if wide else np.uint8
        )
        return sample_of(
            ref,
            image,
            label_map=masks.stored(table[numbered.segment_map]),
            segment_map=masks.stored(numbered.segment_map),
            segments=tuple(
                Segment(segment_id=number, class_id=said[raw]["class_id"], area=area, is_crowd=said[raw]["is_crowd"])
                for number, (raw, area) in enumerate(zip(numbered.raw_ids, numbered.areas, strict=True), start=1)
            ),
        )


def _segments(entries: Any, document: Document) -> list[dict[str, Any]] | None:
    """`segments_info` as plain data; None where it is not what panopticapi writes."""
    if not isinstance(entries, list):
        return None
    segments = []
    for entry in entries:
        category_id, number = (entry.get("category_id"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        category = document.categories.get(category_id) if isinstance(category_id, int) else None
        if category is None or not isinstance(number, int) or not 0 < number < 2**24:
            return None
        segments.append({"id": number, "class_id": category.class_id, "is_crowd": entry.get("iscrowd") == 1})
    return segments if len({each["id"] for each in segments}) == len(segments) else None


def open_coco_panoptic(
    root: str,
    *,
    annotations: Annotated[
        str, "documents below the root; {split} is the split's name, and without it shares deal the images"
    ] = PANOPTIC,
    images: Annotated[str, "folder of the photographs below the root; {split} as in annotations"] = IMAGES,
    pngs: Annotated[str, "folder of the segment PNGs below the root; {split} as in annotations"] = PNGS,
    shares: Shares = SHARES,
) -> CocoPanoptic:
    """Opens panoptic documents. Raises InputError on a bad option."""
    return CocoPanoptic(root=root, documents=annotations, images=images, pngs=pngs, shares=parse_shares(shares))


INFO = SourceInfo(
    name="coco_panoptic",
    open=open_coco_panoptic,
    summary="COCO 2017 panoptic, 118287/5000 photographs, 80 thing and 53 stuff classes",
    licence=LICENCE,
    tasks=(Task.PANOPTIC, Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=(
        "{train,val}2017/000000000139.jpg",
        "annotations/panoptic_{train,val}2017/000000000139.png",
        "annotations/panoptic_{train,val}2017.json",
    ),
    expected=EXPECTED,
)
