"""Mapillary Vistas: street scenes of six continents, 66 classes (v1.2) or 124 (v2.0), single objects.

Source: Neuhold et al. 2017, www.mapillary.com/dataset/vistas. The label table is the set's own config file; labels that
it does not evaluate are ignored. `labels` are palette PNGs of label ids, `instances` 16-bit PNGs of 256 * label +
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    Kind,
    Listing,
    alone_in,
    coding,
    read_document,
    read_labels,
    read_photograph,
    regions,
    sample_of,
)
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

FOLDERS = {"training": "train", "validation": "val"}  # the test split's labels are not published
EXPECTED = {"train": 18000, "val": 2000}
LICENCE = "CC BY-NC-SA 4.0 (www.mapillary.com/dataset/vistas)"
_PER_LABEL = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapillary:
    """The folder that holds training/ and validation/, opened by `open_mapillary`. `table` takes label to class ids."""

    root: str
    version: str
    classes: tuple[ClassInfo, ...]
    table: Mapping[int, int]
    name: str = "mapillary"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    @property
    def coding(self) -> LabelCoding:
        return coding(self.table, "values are the places in the set's config file; what it does not evaluate is void")

    @property
    def expected(self) -> Mapping[str, int]:
        """The published counts."""
        return EXPECTED

    def index(self) -> Index:
        """Every image of training/ and validation/. Raises InputError where there is none."""
        listing, found = Listing(), 0
        for folder, split in FOLDERS.items():
            truth = f"{folder}/{self.version}" if self.version else folder
            found += listing.add_folder(
                self.root,
                Kind(f"{folder}/images", ".jpg"),
                Kind(f"{truth}/labels", ".png"),
                alone_in(split),
                objects=Kind(f"{truth}/instances", ".png"),
            )
        if not found:
            raise InputError(
                f"{self.root}: no training/images/*.jpg here; expected Vistas' layout (training/, validation/): give "
                "that folder as root"
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One scene with its classes and segments. Raises BadSampleError."""
        image_path, mask_path, path = ref.files
        image = read_photograph(self.root, image_path)
        labels = masks.map_labels(read_labels(self.root, mask_path, image), self.table, file=mask_path)
        raw = read_labels(self.root, path, image)
        # Label 0 with number 0 is a region like any other: numbers are moved up by one so that 0 can mean nothing.
        ids = raw.astype("uint32") + 1
        ids[labels == IGNORE_8BIT] = 0
        numbered = regions(ids, file=path)
        segments = []
        for number, (moved, area) in enumerate(zip(numbered.raw_ids, numbered.areas, strict=True), start=1):
            class_id = self.table.get((moved - 1) // _PER_LABEL, IGNORE_8BIT)
            if class_id == IGNORE_8BIT:
                raise BadSampleError(
                    "bad_annotation",
                    path,
                    f"id {moved - 1} is no class, but labels has one there: one is wrong, fetch both again",
                )
            segments.append(Segment(segment_id=number, class_id=class_id, area=area))
        return sample_of(
            ref,
            image,
            label_map=masks.stored(labels),
            segment_map=masks.stored(numbered.segment_map),
            segments=tuple(segments),
        )


def open_mapillary(
    root: str,
    *,
    version: Annotated[str, "v1.2 or v2.0; empty: the older layout without a folder of the version"] = "v1.2",
) -> Mapillary:
    """Opens one version. Raises InputError where its config file is missing or another one's."""
    file = f"config_{version}.json" if version else "config.json"
    document = read_document(root, file)
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, list) or not labels or not all(_is_label(label) for label in labels):
        raise InputError(
            f"{storage.join(root, file)}: labels is {labels!r:.80}; expected a list of name, readable, color, "
            "evaluate, instances: fetch the set's own config file again"
        )
    kept = [place for place, label in enumerate(labels) if label["evaluate"]]
    classes = tuple(
        ClassInfo(name=labels[at]["readable"], colour=tuple(labels[at]["color"]), is_thing=labels[at]["instances"])
        for at in kept
    )
    table = {**dict.fromkeys(range(len(labels)), IGNORE_8BIT), **{at: class_id for class_id, at in enumerate(kept)}}
    return Mapillary(root=root, version=version, classes=classes, table=table)


def _is_label(label: Any) -> bool:
    if not isinstance(label, dict) or not isinstance(label.get("readable"), str):
        return False
    colour = label.get("color")
    fits = isinstance(colour, list) and len(colour) == 3 and all(isinstance(c, int) and 0 <= c < 256 for c in colour)
    return fits and all(isinstance(label.get(key), bool) for key in ("evaluate", "instances"))


INFO = SourceInfo(
    name="mapillary",
    open=open_mapillary,
    summary="Mapillary Vistas street scenes, 18000/2000 photographs, 66 or 124 classes, single objects",
    licence=LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION, Task.PANOPTIC),
    layout=(
        "{training,validation}/images/<key>.jpg",
        "{training,validation}/v1.2/{labels,instances}/<key>.png",
        "config_v1.2.json",
    ),
    expected=EXPECTED,
)
