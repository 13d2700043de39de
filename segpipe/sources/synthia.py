"""SYNTHIA-RAND-CITYSCAPES: 9,400 rendered street scenes with Cityscapes' classes, objects and depth, for adaptation.

Source: Ros et al. 2016, synthia-dataset.net; the ids are those of its README, the 16 and 13 classes those that the
field scores (Zhang et al. 2017; without wall, fence and pole 13). A label file is a PNG of three channels of 16 bits:
the class, the number of the object, nothing. There is no published split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe import masks
from segpipe.errors import InputError
from segpipe.sources.reading import (
    Listing,
    check_size,
    coding,
    files_by_stem,
    hashed_split,
    parse_shares,
    read_extra,
    read_file,
    read_photograph,
    regions,
    sample_of,
)
from segpipe.sources.reading.road_labels import ROAD_CLASSES
from segpipe.sources.spec import Index, Shares, SourceInfo
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

SAMPLES = 9400
NUM_IDS = 23  # 0 void, 13 parking slot, 14 road work, 16 terrain, 18 truck, 20 train, 22 lane marking: not scored
# (id in the files, name in Cityscapes' table), in the order of Cityscapes' train ids.
_SCORED = (
    (3, "road"),
    (4, "sidewalk"),
    (2, "building"),
    (21, "wall"),
    (5, "fence"),
    (7, "pole"),
    (15, "traffic light"),
    (9, "traffic sign"),
    (6, "vegetation"),
    (1, "sky"),
    (10, "person"),
    (17, "rider"),
    (8, "car"),
    (19, "bus"),
    (12, "motorcycle"),
    (11, "bicycle"),
)
LEFT_OUT_OF_13 = ("wall", "fence", "pole")
DEPTH_FOLDERS = ("Depth", "Depth/Depth")  # as it is told, and as the archive unpacks
RULES = (
    "label files have 3 channels of 16 bits: red is the class, green the number of the object",
    "depth: 16-bit PNG, grey or three equal channels, centimetres",
)
LICENCE = "CC BY-NC-SA 3.0 (synthia-dataset.net)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthia:
    """The folder that holds RGB/, GT/LABELS/ and Depth/, opened by `open_synthia`. `table` takes ids to class ids."""

    root: str
    classes: tuple[ClassInfo, ...]
    table: Mapping[int, int]
    shares: tuple[float, ...]
    annotations: tuple[Annotation, ...]
    name: str = "synthia"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT

    @property
    def coding(self) -> LabelCoding:
        return coding(self.table, *(RULES if Annotation.DEPTH in self.annotations else RULES[:1]))

    @property
    def expected(self) -> Mapping[str, int]:
        """The published 9,400, as the hash of their names deals them."""
        return dict(Counter(hashed_split(f"{number:07d}", self.shares) for number in range(SAMPLES)))

    def index(self) -> Index:
        """Every image with its label file and its depth. Raises InputError where there is no image."""
        images, labels = files_by_stem(self.root, "RGB", ".png"), files_by_stem(self.root, "GT/LABELS", ".png")
        if not images:
            raise InputError(
                f"{self.root}: no RGB/*.png here; expected RGB/0000000.png, GT/LABELS/0000000.png: give the folder "
                "RAND_CITYSCAPES as root"
            )
        with_depth = Annotation.DEPTH in self.annotations
        depths = {
            stem.rpartition("/")[2]: path for stem, path in files_by_stem(self.root, DEPTH_FOLDERS[0], ".png").items()
        }
        listing = Listing()
        for stem in sorted(images.keys() | labels.keys()):
            listing.add_pair(
                stem,
                split=hashed_split(stem, self.shares),
                group=stem,
                image=images.get(stem),
                mask=labels.get(stem),
                expected=(f"RGB/{stem}.png", f"GT/LABELS/{stem}.png"),
                listed="RGB" if stem in images else "GT/LABELS",
                objects=(depths.get(stem), f"{DEPTH_FOLDERS[1]}/{stem}.png") if with_depth else None,
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One image with its classes, objects and depth. Raises BadSampleError."""
        image_path, mask_path, *depth = ref.files
        image = read_photograph(self.root, image_path)
        data = read_file(self.root, mask_path, missing="missing_mask")
        check_size(data, mask_path, image)
        channels = masks.read_rgb16(data, file=mask_path)
        labels = masks.map_labels(np.ascontiguousarray(channels[..., 0]), self.table, file=mask_path)
        things = np.isin(labels, [k for k, info in enumerate(self.classes) if info.is_thing])
        # A number tells the objects of an image apart; with the class, two classes that share one stay two objects.
        objects = np.where(things & (channels[..., 1] > 0), labels * np.int64(65536) + channels[..., 1], 0)
        numbered = regions(objects, file=mask_path)
        found = enumerate(zip(numbered.raw_ids, numbered.areas, strict=True), start=1)
        return sample_of(
            ref,
            image,
            label_map=masks.stored(labels),
            segment_map=masks.stored(numbered.segment_map),
            segments=tuple(Segment(segment_id=number, class_id=raw >> 16, area=area) for number, (raw, area) in found),
            extras={"depth": read_extra(self.root, depth[0], image)} if depth else {},
        )


def open_synthia(
    root: str,
    *,
    classes: Annotated[int, "16, or 13 (without wall, fence and pole)"] = 16,
    shares: Shares = "0.9,0.1,0",
    depth: Annotated[bool, "false leaves the depth maps out"] = True,
) -> Synthia:
    """Opens the set. Raises InputError on a bad option."""
    if classes not in (13, 16):
        raise InputError(f"option classes={classes!r}; expected 16, or 13 (without wall, fence and pole)")
    scored = [(raw, name) for raw, name in _SCORED if classes == 16 or name not in LEFT_OUT_OF_13]
    road = {info.name: info for info in ROAD_CLASSES}
    table = {**dict.fromkeys(range(NUM_IDS), IGNORE_8BIT), **{raw: k for k, (raw, _) in enumerate(scored)}}
    annotations = (Annotation.LABEL_MAP, Annotation.SEGMENTS, *((Annotation.DEPTH,) if depth else ()))
    infos = tuple(road[name] for _, name in scored)
    return Synthia(root=root, classes=infos, table=table, shares=parse_shares(shares), annotations=annotations)


INFO = SourceInfo(
    name="synthia",
    open=open_synthia,
    summary="SYNTHIA-RAND-CITYSCAPES, 9400 rendered street scenes of 1280x760, Cityscapes' 16 or 13 classes, depth",
    licence=LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=("RGB/0000000.png", "GT/LABELS/0000000.png", "Depth/Depth/0000000.png"),
)
