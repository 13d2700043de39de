"""YOLO segmentation: a text file for each photograph, one object a line, `class x1 y1 x2 y2 ...` in 0..1.

Source: docs.ultralytics.com/datasets/segment. Class names are those of data.yaml (a list or a mapping) or of
classes.txt. A photograph without a text file, or with an empty one, has no object: that is the format's way to say it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import yaml

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    Listing,
    class_colour,
    coding,
    files_by_stem,
    ignored_beside,
    inside,
    pictures_by_stem,
    read_file,
    read_lines,
    read_photograph,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.spec import Index, Licence, SourceInfo
from segpipe.types import (
    IGNORE_16BIT,
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Segment,
    Task,
)

# Ultralytics says train, val and test, Roboflow valid; the long words are what people write.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAX_YAML_BYTES = 1_000_000
MAX_LINE = 2_000_000  # characters: a polygon of 50,000 points


class _WordsSafeLoader(yaml.SafeLoader):
    """Every scalar as it is written: `no` and 2020-01-01 are names of classes here, no truth and no date."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as its base class has it

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """No merge keys: a dozen lines of merges of merges are copied out into billions of entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Yolo:
    """A folder of images and label files, opened by `open_yolo`. The patterns hold {split}."""

    root: str
    images: str
    labels: str
    classes: tuple[ClassInfo, ...]
    licence: str
    name: str = "yolo"
    annotations: tuple[Annotation, ...] = (Annotation.SEGMENTS,)

    @property
    def ignore_index(self) -> int:
        return ignored_beside(len(self.classes))

    @property
    def coding(self) -> LabelCoding:
        return coding({k: k for k in range(len(self.classes))}, "the first number of a line is the class")

    @property
    def expected(self) -> None:
        """Nobody has written down how many samples there should be."""

    def index(self) -> Index:
        """Every image of train, val (or valid, or validation) and test. Raises InputError where there is none."""
        listing, found, labelled = Listing(), 0, 0
        for folder, split in SPLITS.items():
            images = self.images.replace("{split}", folder)
            pictures = pictures_by_stem(self.root, images, listing)
            labels = files_by_stem(self.root, self.labels.replace("{split}", folder), ".txt")
            found, labelled = found + len(pictures), labelled + len(labels)
            for stem, path in sorted(pictures.items()):
                files = (path, labels[stem]) if stem in labels else (path,)
                sample_id = path.rpartition(".")[0]
                listing.add(sample_id, split=split, group=sample_id, files=files, listed=images)
            for stem in sorted(labels.keys() - pictures.keys()):
                detail = f"objects without a picture {images}/{stem}.jpg or .png: add it, or remove the file"
                listing.refuse(labels[stem], stem, "missing_image", detail)
        if not found:
            raise InputError(
                f"{self.root}: no picture in {self.images.replace('{split}', 'train')}/; expected images/train and "
                "labels/train (or train/images and train/labels): say where they are by the options images and labels"
            )
        if not labelled:
            raise InputError(
                f"{self.root}: no text file in {self.labels.replace('{split}', 'train')}/, so no photograph would "
                "have an object: say where they are by the option labels"
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its objects. Raises BadSampleError."""
        image = read_photograph(self.root, ref.files[0])
        segments: list[Segment] = []
        for path in ref.files[1:]:
            text = read_file(self.root, path, missing="missing_mask")
            for number, line in enumerate(text.decode("utf-8", errors="replace").splitlines(), start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    class_id, points = _object(line, len(self.classes), where)
                    polygon = [p * (image.height if at % 2 else image.width) for at, p in enumerate(points)]
                    mask = masks.polygon_to_mask([polygon], image.height, image.width, file=where)
                    segments.append(segment_of_mask(mask, segment_id=len(segments) + 1, class_id=class_id))
        return sample_of(
            ref,
            image,
            segments=tuple(segments),
        )


def _object(line: str, num_classes: int, where: str) -> tuple[int, list[float]]:
    """(class id, x and y in turn, 0..1) of a line."""
    if len(line) > MAX_LINE:
        raise BadSampleError(
            "bad_annotation", where, f"{len(line)} characters; at most {MAX_LINE}: simplify the polygon"
        )
    words = line.split()
    try:
        class_id, points = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        class_id, points = -1, []
    if not 0 <= class_id < num_classes:
        raise BadSampleError("label_out_of_range", where, f"{line[:60]!r}; expected a class, 0 to {num_classes - 1}")
    if len(points) < 6 or len(points) % 2 or not all(math.isfinite(p) and -1e-6 <= p <= 1 + 1e-6 for p in points):
        boxes = "; four numbers are a box, which has no mask" if len(points) == 4 else ""
        detail = f"{line[:60]!r}; expected a class and at least three x y in 0..1{boxes}: export polygons"
        raise BadSampleError("bad_annotation", where, detail)
    return class_id, points


def open_yolo(
    root: str,
    *,
    images: Annotated[
        str, "folder of the photographs below the root; {split} stands for train, val (or valid) and test"
    ] = "images/{split}",
    labels: Annotated[str, "folder of the text files below the root; {split} as in images"] = "labels/{split}",
    licence: Licence = "not stated",
) -> Yolo:
    """Opens a folder as Ultralytics lays it out. Raises InputError where the class names are missing."""
    names, things = _names(root)
    if len(set(names)) != len(names) or not 0 < len(names) < IGNORE_16BIT:
        raise InputError(f"{root}: {len(names)} class names; expected at least one, each once: mend data.yaml")
    classes = tuple(
        ClassInfo(name=name, colour=class_colour(k + 1), is_thing=is_thing)
        for k, (name, is_thing) in enumerate(zip(names, things, strict=True))
    )
    return Yolo(root=root, images=images.strip("/"), labels=labels.strip("/"), classes=classes, licence=licence)


def _names(root: str) -> tuple[list[str], list[bool]]:
    """The classes' names, and whether each is a thing: all are, unless `isthing` (0 or 1 for each) tells otherwise, as
    where the classes of a label map with its background were exported."""
    uri = storage.join(root, "data.yaml")
    if not storage.exists(uri):
        if not storage.exists(storage.join(root, "classes.txt")):
            raise InputError(f"{root}: neither data.yaml nor classes.txt is here; expected the names of the classes")
        listed = [line.strip() for line in read_lines(root, "classes.txt") if line.strip()]
        return listed, [True] * len(listed)
    inside(root, "data.yaml")
    try:
        document = yaml.load(storage.read_bytes(uri, limit=MAX_YAML_BYTES), Loader=_WordsSafeLoader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{uri}: {error}; expected YAML with `names`: mend the file") from error
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, Mapping) and set(names) == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        shown = reprlib.repr(names)  # not all of it: aliases can make it endless
        raise InputError(f"{uri}: names is {shown}; expected a list, or a mapping from 0, 1, 2, ... to names")
    things = document.get("isthing", ["1"] * len(names))
    if not isinstance(things, list) or len(things) != len(names) or any(each not in ("0", "1") for each in things):
        shown = reprlib.repr(things)
        raise InputError(f"{uri}: isthing is {shown}; expected a list of 0 and 1, one for each of {len(names)} names")
    return names, [each == "1" for each in things]


INFO = SourceInfo(
    name="yolo",
    open=open_yolo,
    summary="YOLO segmentation labels: a text file of polygons for each photograph, and data.yaml",
    licence="as its owner states (option licence)",
    tasks=(Task.INSTANCE,),
    layout=("images/{train,val}/photo_1.jpg", "labels/{train,val}/photo_1.txt", "data.yaml or classes.txt"),
)
