"""PASCAL-Part: VOC 2010's photographs with objects and their parts: 20 objects, 193 parts of 16 of them.

Source: Chen et al. 2014, roozbehm.info/pascal-parts. A MATLAB file for each image: `anno.objects`, each with a class, a
mask and parts of a name and a mask. By the option `level` the label map shows the objects, or the parts: then the class
of an object is what no part covers. Parts that are numbered (wheel_1, wheel_2) are one class. The part names are those
of the authors' part2ind.m, and masks are painted in the order of the file, as by their mat2map.m.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.errors import BadSampleError, InputError
from segpipe.masks import stored
from segpipe.sources.reading import (
    Kind,
    Photograph,
    class_colour,
    coding,
    read_photograph,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.reading.matlab import read_matlab_of_sample
from segpipe.sources.reading.voc import VOC_2010_COUNTS, VOC_CLASSES, VOC_LICENCE, VOC_NAMES, index_voc_2010
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

_CAT = "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail"
_LEGS = "torso neck lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg tail"
_COW = f"head leye reye lear rear muzzle lhorn rhorn {_LEGS}"
_SIDES = "frontside leftside rightside backside roofside"
_BUS = f"{_SIDES} leftmirror rightmirror fliplate bliplate door wheel headlight window"
# l and r are left and right, f and b front and back, u and l (after the leg's place) upper and lower.
PARTS = {
    "aeroplane": "body stern lwing rwing tail engine wheel",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "bottle": "cap body",
    "bus": _BUS,
    "car": _BUS,
    "cat": _CAT,
    "cow": _COW,
    "dog": f"{_CAT} muzzle",
    "horse": f"head leye reye lear rear muzzle {_LEGS} lfho rfho lbho rbho",
    "motorbike": "fwheel bwheel handlebar saddle headlight",
    "person": "head leye reye lear rear lebrow rebrow nose mouth hair torso neck llarm luarm lhand rlarm ruarm rhand "
    "llleg luleg lfoot rlleg ruleg rfoot",
    "pottedplant": "pot plant",
    "sheep": _COW,
    "train": "head hfrontside hleftside hrightside hbackside hroofside headlight coach cfrontside cleftside crightside "
    "cbackside croofside",
    "tvmonitor": "screen",
}
LEVELS = ("objects", "parts")


def _part_classes() -> Iterator[tuple[str, bool]]:
    """(name, is it a thing) of background, then of each object and its parts."""
    yield VOC_NAMES[0], False
    for name in VOC_NAMES[1:]:
        yield name, True
        yield from ((f"{name} {part}", False) for part in PARTS.get(name, "").split())


CLASSES = {
    "objects": VOC_CLASSES,
    "parts": tuple(
        ClassInfo(name=name, colour=class_colour(number), is_thing=is_thing)
        for number, (name, is_thing) in enumerate(_part_classes())
    ),
}
_IDS = {level: {info.name: class_id for class_id, info in enumerate(infos)} for level, infos in CLASSES.items()}


class Layer(NamedTuple):
    """One mask of a file: the name of its object, and of its part, "" for the object itself."""

    name: str
    part: str
    inside: npt.NDArray[np.bool_]


EXPECTED = {"train": 4998, "val": 5105}


@dataclass(frozen=True, kw_only=True, slots=True)
class PascalPart:
    """The folder that holds JPEGImages/ and Annotations_Part/, opened by `open_pascal_part`."""

    root: str
    level: str
    masks: str
    lists: str
    name: str = "pascal_part"
    licence: str = VOC_LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return CLASSES[self.level]

    @property
    def coding(self) -> LabelCoding:
        """Names, not numbers, say what a mask is."""
        over = "later masks of a file lie over earlier ones"
        rest = {"objects": "parts are not shown", "parts": "what no part of an object covers has the object's class"}
        return coding({}, over, rest[self.level])

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of VOC 2010's train and val."""
        return VOC_2010_COUNTS

    def index(self) -> Index:
        """The images of train.txt and val.txt. Raises InputError where neither is there."""
        return index_voc_2010(self.root, Kind(self.masks, ".mat"), self.lists)

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its objects, and a label map of the level asked for. Raises BadSampleError."""
        image_path, path = ref.files
        image = read_photograph(self.root, image_path)
        ids = _IDS[self.level]
        labels = np.zeros((image.height, image.width), np.uint8)
        segments: list[Segment] = []
        for name, part, inside in _layers(read_matlab_of_sample(self.root, path), image, path):
            if not part:
                labels[inside] = ids[name]
                segments.append(segment_of_mask(inside, segment_id=len(segments) + 1, class_id=ids[name]))
            elif self.level == "parts":
                labels[inside] = ids[f"{name} {part}"]
        return sample_of(ref, image, label_map=stored(labels), segments=tuple(segments))


def _layers(document: Mapping[str, Any], image: Photograph, path: str) -> Iterator[Layer]:
    """The masks in the order of the file: each object, then its parts."""
    anno = document.get("anno")
    objects = _each(anno.get("objects")) if isinstance(anno, dict) else []
    if not objects:
        raise BadSampleError("bad_annotation", path, "no anno.objects; expected at least one object: fetch it again")
    for place, each in enumerate(objects, start=1):
        name, where = each.get("class"), f"{path}, object {place}"
        if not isinstance(name, str) or name not in VOC_NAMES[1:]:
            raise BadSampleError("bad_annotation", where, f"class {name!r:.40}; expected one of VOC's: fetch it again")
        yield Layer(name, "", _mask(each, image, where))
        for part in _each(each.get("parts")):
            said = part.get("part_name")
            kind = said.rstrip("0123456789").removesuffix("_") if isinstance(said, str) else ""
            if kind not in PARTS.get(name, "").split():
                detail = f"part {said!r:.40} of a {name}; expected {PARTS.get(name) or 'none'}: fetch the file again"
                raise BadSampleError("bad_annotation", where, detail)
            yield Layer(name, kind, _mask(part, image, f"{where}, {said}"))


def _each(value: Any) -> list[dict[str, Any]]:
    """MATLAB's structure array as a list: none, one or many."""
    entries = [value] if isinstance(value, dict) else list(np.ravel(np.asarray(value, dtype=object)))
    return [entry for entry in entries if isinstance(entry, dict)]


def _mask(entry: Mapping[str, Any], image: Photograph, where: str) -> npt.NDArray[np.bool_]:
    mask = np.asarray(entry.get("mask"))
    if mask.shape != (image.height, image.width) or mask.dtype.kind not in "uib":
        raise BadSampleError(
            "size_mismatch",
            where,
            f"mask is {mask.dtype} of {mask.shape}, image {image.file} {image.width}x{image.height}; expected whole "
            "numbers of the same size: fetch both again",
        )
    return np.asarray(mask != 0)


def open_pascal_part(
    root: str,
    *,
    level: Annotated[str, "objects or parts: what the label map shows"] = "parts",
    masks: Annotated[str, "folder of the MATLAB files below the root"] = "Annotations_Part",
    lists: Annotated[str, "folder of train.txt and val.txt below the root"] = "ImageSets/Main",
) -> PascalPart:
    """Opens the set. Raises InputError on a bad option."""
    if level not in LEVELS:
        raise InputError(f"option level={level!r}; expected {' or '.join(LEVELS)}")
    return PascalPart(root=root, level=level, masks=masks.strip("/"), lists=lists)


INFO = SourceInfo(
    name="pascal_part",
    open=open_pascal_part,
    summary="PASCAL-Part, 4998/5105 photographs of VOC 2010, 20 objects one by one, or their 193 parts",
    licence=VOC_LICENCE,
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=(
        "JPEGImages/2008_000002.jpg",
        "Annotations_Part/2008_000002.mat",
        "ImageSets/Main/{train,val}.txt",
    ),
    expected=EXPECTED,
)
