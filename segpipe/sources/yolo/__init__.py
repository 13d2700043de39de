"""YOLO segmentation: a text file for each photograph, one object a line, `class x1 y1 x2 y2 ...` in 0..1.

Source: docs.ultralytics.com/datasets/segment. Class names are those of data.yaml (a list or a mapping) or of
classes.txt. The splits are those that data.yaml names; without any, folders are known by their names. A photograph
without a text file, or with an empty one, has no object: that is the format's way to say it.

    description.py  data.yaml
    places.py       which photographs are of which split, and where their text files are
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from segpipe import masks
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    PICTURE_SUFFIXES,
    Listing,
    class_colour,
    coding,
    ignored_beside,
    read_file,
    read_photograph,
    sample_of,
    segment_of_mask,
    shown,
)
from segpipe.sources.spec import Index, Licence, SourceInfo
from segpipe.sources.yolo.description import FILE, Description, read_description
from segpipe.sources.yolo.places import SPLIT_MARK, Found, Tree, by_description, by_folders, labels_of
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

IMAGES, LABELS = f"images/{SPLIT_MARK}", f"labels/{SPLIT_MARK}"
MAX_LINE = 2_000_000  # characters: a polygon of 50,000 points


@dataclass(frozen=True, kw_only=True, slots=True)
class Yolo:
    """A folder of images and label files, opened by `open_yolo`. The patterns hold {split}; they are empty where
    data.yaml names the splits."""

    root: str
    images: str
    labels: str
    description: Description
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
        """Every photograph of a split. Raises InputError where there is none, or none that has a text file."""
        listing, files = Listing(), frozenset(shown(self.root, ""))
        pictures = {path: None for path in sorted(files) if path.endswith(PICTURE_SUFFIXES)}
        if self.images:
            found = list(by_folders(pictures, self.images, self.labels))
        else:
            tree = Tree(self.root, files, pictures, self.description.path)
            found = list(by_description(tree, self.description, listing))
        self._require(found, files)
        by_stem: dict[str, dict[tuple[str, str], Found]] = {}
        for each in found:
            by_stem.setdefault(each.picture.rpartition(".")[0], {})[each.picture, each.split] = each
        for stem, same in sorted(by_stem.items()):
            paths = sorted({picture for picture, _ in same})
            for path in paths if len(paths) > 1 else ():
                detail = f"{', '.join(paths)} share the id {stem!r}: keep one of them"
                listing.refuse(path, stem, "duplicate_id", detail)
            for picture, labels, split, said in same.values() if len(paths) == 1 else ():
                here = (picture, labels) if labels in files else (picture,)
                listing.add(stem, split=split, group=stem, files=here, listed=said)
        known = {each.labels for each in found} | {labels_of(path) for path in pictures}
        for path in _alone(files, found, known):
            detail = f"objects without a picture {path.removesuffix('.txt')}.jpg or .png: add it, or remove the file"
            listing.refuse(path, path.removesuffix(".txt"), "missing_image", detail)
        left = [path for path in pictures.keys() - {each.picture for each in found} if labels_of(path) in files]
        remedy = f"name their folder, or a list of them, in {FILE} under train, val or test"
        listing.pass_over("photograph(s) with objects that no split names", left, remedy)
        return listing.result()

    def _require(self, found: Sequence[Found], files: Collection[str]) -> None:
        """Raises InputError where there is nothing to read, or nothing to learn."""
        if not found:
            place = (self.images or IMAGES).replace(SPLIT_MARK, "train")
            raise InputError(
                f"{self.root}: no picture in {place}/; expected images/train and labels/train: name the folders in "
                f"{FILE} under train and val, or by the options images and labels"
            )
        if not any(each.labels in files for each in found):
            raise InputError(
                f"{self.root}: no text file in {found[0].labels.rpartition('/')[0]}/, so no photograph would have an "
                "object: say where they are by the options images and labels"
            )

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
        return sample_of(ref, image, segments=tuple(segments))


def _alone(files: Collection[str], found: Sequence[Found], known: Collection[str]) -> list[str]:
    """The text files in the folders of objects that no photograph has; beside photographs, any may lie."""
    folders = {each.labels.rpartition("/")[0] for each in found} - {each.picture.rpartition("/")[0] for each in found}
    inside = tuple(f"{folder}/" for folder in folders)
    return sorted(path for path in files if path.endswith(".txt") and path.startswith(inside) and path not in known)


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
        str,
        "folder of the photographs below the root; {split} stands for train, val (or valid) and test; empty: as "
        "data.yaml says, else images/{split}",
    ] = "",
    labels: Annotated[
        str, "folder of the text files below the root; {split} as in images; empty: labels for images"
    ] = "",
    licence: Licence = "not stated",
) -> Yolo:
    """Opens a folder as Ultralytics lays it out. Raises InputError where the class names are missing."""
    description = read_description(root)
    names = description.names
    if len(set(names)) != len(names) or not 0 < len(names) < IGNORE_16BIT:
        raise InputError(f"{root}: {len(names)} class names; expected at least one, each once: mend {FILE}")
    if images or labels or not description.splits:
        images = images.strip("/") or IMAGES
        beside = labels_of(f"{images}/x.").removesuffix("/x.txt")
        labels = labels.strip("/") or (beside if beside != images else LABELS)
    for name, pattern in (("images", images), ("labels", labels)):
        if pattern and SPLIT_MARK not in pattern:
            raise InputError(f"option {name}={pattern!r}; expected a folder with {SPLIT_MARK} in it, such as {IMAGES}")
    classes = tuple(
        ClassInfo(name=name, colour=class_colour(k + 1), is_thing=is_thing)
        for k, (name, is_thing) in enumerate(zip(names, description.things, strict=True))
    )
    return Yolo(root=root, images=images, labels=labels, description=description, classes=classes, licence=licence)


INFO = SourceInfo(
    name="yolo",
    open=open_yolo,
    summary="YOLO segmentation labels: a text file of polygons for each photograph, and data.yaml",
    licence="as its owner states (option licence)",
    tasks=(Task.INSTANCE, Task.DETECTION),
    layout=(
        "images/{train,val}/photo_1.jpg, or where data.yaml says",
        "labels/{train,val}/photo_1.txt: labels for the last images of the path",
        "data.yaml or classes.txt",
    ),
)
