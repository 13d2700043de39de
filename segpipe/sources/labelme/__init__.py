"""LabelMe: one JSON of polygons beside each photograph, as the labelme program writes it.

Source: github.com/wkentaro/labelme. Shapes are painted in the order of the file, later ones over earlier ones; shapes
of one label and group_id are one object; `__ignore__` is void, `_background_` is background. Rasterised by Pillow's
drawing with the outline, as labelme's own export does. `imageData`, a copy of the photograph, is not read.

    shapes.py   what a JSON says, and the pixels of a shape
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import stored
from segpipe.sources.labelme.shapes import paint, parsed
from segpipe.sources.reading import (
    Listing,
    chosen,
    class_colour,
    coding,
    files_by_stem,
    hashed_split,
    lines_of,
    parse_shares,
    pictures_by_stem,
    read_photograph,
    sample_of,
)
from segpipe.sources.spec import Index, Licence, Shares, SourceInfo
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

IGNORE, BACKGROUND = "__ignore__", "_background_"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMe:
    """A folder of JSON files with their photographs, opened by `open_labelme`. `names` are the classes, if told."""

    root: str
    json: str
    images: str
    names: tuple[str, ...]
    shares: tuple[float, ...]
    licence: str
    name: str = "labelme"
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Background, then the names of the classes file, or all labels in use, sorted."""
        return self._classes(self._documents())

    def _classes(self, documents: Mapping[str, str]) -> tuple[ClassInfo, ...]:
        names = self.names or self._labels_in_use(documents.values())
        infos = [ClassInfo(name=name, colour=class_colour(k + 1), is_thing=True) for k, name in enumerate(names)]
        return (ClassInfo(name="background", colour=class_colour(0)), *infos)

    @property
    def coding(self) -> LabelCoding:
        return coding({}, "polygons; later ones lie over earlier ones", f"{IGNORE} is void, {BACKGROUND} is background")

    @property
    def expected(self) -> None:
        """Nobody has written down how many samples there should be."""

    def index(self) -> Index:
        """Every JSON with its photograph. Raises InputError where there is none."""
        documents, listing = self._documents(), Listing()
        infos = self._classes(documents)
        ids = {info.name: class_id for class_id, info in enumerate(infos)} | {BACKGROUND: 0, IGNORE: IGNORE_8BIT}
        pictures = pictures_by_stem(self.root, self.images or self.json, listing)
        for stem, path in documents.items():
            document = parsed(self.root, path, storage.fingerprint(storage.join(self.root, path)))
            if isinstance(document, str):
                listing.refuse(path, stem, "bad_annotation", document)
            elif (image := pictures.get(stem)) is None:
                listing.refuse(path, stem, "missing_image", f"no {stem}.jpg or .png beside it: add or remove it")
            elif unknown := sorted({shape["label"] for shape in document.shapes} - ids.keys()):
                detail = f"label {unknown[0]!r} is not in the classes file: add it there, or rename the shape"
                listing.refuse(path, stem, "label_out_of_range", detail)
            else:
                shapes = [{**shape, "class_id": ids[shape["label"]]} for shape in document.shapes]
                group = stem.rpartition("/")[0] or stem
                listing.add(
                    stem,
                    split=hashed_split(group, self.shares),
                    group=group,
                    files=(image, path),
                    listed=path,
                    extra={"shapes": shapes, "size": document.size},
                )
        left = [path for stem, path in pictures.items() if stem not in documents]
        remedy = "draw in them, or save them in labelme without a shape where there is nothing to draw"
        listing.pass_over("photograph(s) without a JSON", left, remedy)
        listing.dealt(self.shares, "sort the photographs into more folders (a group is the folder of a photograph)")
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its shapes painted. Raises BadSampleError."""
        image = read_photograph(self.root, ref.files[0])
        if (said := ref.extra["size"]) not in (None, [image.height, image.width]):
            raise BadSampleError(
                "size_mismatch",
                ref.files[0],
                f"{image.width}x{image.height} pixels, {ref.files[1]} says {said[1]}x{said[0]}: shapes would shift; "
                "bring back the photograph that was drawn on, or draw again",
            )
        labels = np.zeros((image.height, image.width), dtype=np.uint8)
        objects = np.zeros((image.height, image.width), dtype=np.uint16)
        numbers: dict[tuple[str, object], int] = {}
        found: dict[int, int] = {}
        for place, shape in enumerate(ref.extra["shapes"]):
            inside = paint(shape, image.height, image.width, f"{ref.files[1]}, shapes[{place}]")
            # Without a group, every shape is an object of its own.
            group = ("alone", place) if shape["group"] is None else ("group", shape["group"])
            number = numbers.setdefault((shape["label"], group), len(numbers) + 1)
            labels[inside], objects[inside] = shape["class_id"], number
            found[number] = shape["class_id"]
        objects[(labels == 0) | (labels == IGNORE_8BIT)] = 0
        areas = np.bincount(objects.ravel(), minlength=len(numbers) + 1)
        return sample_of(
            ref,
            image,
            label_map=stored(labels),
            segment_map=stored(objects if len(numbers) > IGNORE_8BIT else objects.astype(np.uint8)),
            segments=tuple(
                Segment(segment_id=number, class_id=class_id, area=int(areas[number]))
                for number, class_id in found.items()
                if areas[number]
            ),
        )

    def _documents(self) -> dict[str, str]:
        found = files_by_stem(self.root, self.json, ".json")
        if not found:
            raise InputError(
                f"{storage.join(self.root, self.json) if self.json else self.root}: no *.json here; expected the files "
                "that labelme writes: give their folder as root, or by the option json"
            )
        return found

    def _labels_in_use(self, paths: Iterable[str]) -> tuple[str, ...]:
        names: set[str] = set()
        for path in paths:
            document = parsed(self.root, path, storage.fingerprint(storage.join(self.root, path)))
            names |= {shape["label"] for shape in document.shapes} if not isinstance(document, str) else set()
        return _checked(tuple(sorted(names - {IGNORE, BACKGROUND, "background"})), self.root)


def _checked(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len(set(names)) != len(names) or not 0 < len(names) < IGNORE_8BIT or "background" in names:
        raise InputError(
            f"{where}: {len(names)} labels; expected 1 to 254, each once, and none called background (that is "
            f"{BACKGROUND}): name them in a file, one a line (option classes)"
        )
    return names


def open_labelme(
    root: str,
    *,
    json: Annotated[str, "folder of the JSON files below the root; empty: anywhere below it"] = "",
    images: Annotated[str, "folder of the photographs below the root; empty: beside the JSON files"] = "",
    classes: Annotated[
        str, "text file of class names, one a line, below the root or anywhere; empty: the labels in use"
    ] = "",
    shares: Shares = "0.8,0.1,0.1",
    licence: Licence = "not stated",
) -> LabelMe:
    """Opens a folder of labelme files. Raises InputError on a bad option or classes file."""
    names: tuple[str, ...] = ()
    if classes:
        uri = chosen(root, classes)
        lines = [line.strip() for line in lines_of(uri)]
        given = tuple(name for name in lines if name and name not in (IGNORE, BACKGROUND))
        names = _checked(given, uri)
    return LabelMe(
        root=root,
        json=json.strip("/"),
        images=images.strip("/"),
        names=names,
        shares=parse_shares(shares),
        licence=licence,
    )


INFO = SourceInfo(
    name="labelme",
    open=open_labelme,
    summary="your own polygons, drawn with labelme: one JSON beside each photograph",
    licence="as its owner states (option licence)",
    tasks=(Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=("photo_1.jpg", "photo_1.json", "class_names.txt (option classes)"),
)
