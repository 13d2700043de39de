"""NYU Depth v2: 1,449 indoor photographs of a Kinect with depth and dense labels, in 40, 13 or all 894 classes.

Source: Silberman et al. 2012, cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html: nyu_depth_v2_labeled.mat (arrays) and
splits.mat; the 40 classes by classMapping40.mat (Gupta et al. 2013), of which Couprie et al. 2013 make 13. Also the
folders that the field passes on: image/, label40/, depth/ as PNG with train.txt and test.txt. The arrays are the one
exception to "as shipped": image and depth become PNG, without loss but for depth, which is rounded to millimetres.
Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    Listing,
    Photograph,
    class_colour,
    coding,
    files_by_stem,
    ignored_beside,
    pictures_by_stem,
    read_extra,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
    without_root,
)
from segpipe.sources.reading.hdf5 import Arrays
from segpipe.sources.reading.matlab import read_matlab
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import (
    IGNORE_8BIT,
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Task,
)

ARRAYS, SPLITS, MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
LISTS = {"train": "trainNdxs", "test": "testNdxs"}
EXPECTED = {"train": 795, "test": 654}
NAMES_40 = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat"),
    *("clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box"),
    *("whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
    *("otherstructure", "otherfurniture", "otherprop"),
)
NAMES_13 = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
    *("picture", "sofa", "table", "tv", "wall", "window"),
)
# class13Mapping.mat: which of the 13, from 1, each of the 40 is.
FROM_40_TO_13 = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5),
    *(7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
DEPTH_FOLDERS = ("depth16", "depth")
LICENCE = "not stated (cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html)"


@dataclass(frozen=True, kw_only=True, slots=True)
class NyuDepth:
    """The folder of the published arrays, or of the PNGs made of them. `table` takes raw labels to class ids."""

    root: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    table: Mapping[int, int]
    annotations: tuple[Annotation, ...]
    labels: str
    depths: str
    arrays: Arrays | None = field(repr=False, compare=False)
    name: str = "nyu_depth"
    licence: str = LICENCE

    @property
    def coding(self) -> LabelCoding:
        made = "rounded from the arrays' metres" if self.arrays else f"as the files of {self.depths}/ were made"
        rule = f"depth: 16-bit grey PNG, millimetres, {made}; 0 where there is none"
        return coding(self.table, *((rule,) if Annotation.DEPTH in self.annotations else ()))

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of splits.mat."""
        return EXPECTED

    def index(self) -> Index:
        """The images of both lists. Raises InputError where a list or the arrays are missing or do not fit."""
        listing = Listing()
        if self.arrays is None:
            self._index_folders(listing)
            return listing.result()
        scenes, count = self.arrays.texts("scenes"), (*self.arrays.shape("images"), 0)[0]
        lists = read_matlab(self.root, SPLITS)
        for split, variable in LISTS.items():
            numbers = np.atleast_1d(lists.get(variable, ()))
            if not numbers.size or numbers.dtype.kind not in "ui" or len(scenes) != count:
                raise InputError(
                    f"{storage.join(self.root, SPLITS)}: no whole numbers in {variable}, or {len(scenes)} scenes of "
                    f"{count} images; expected the toolbox's splits.mat, with trainNdxs and testNdxs: fetch it again"
                )
            for number in numbers.ravel().tolist():
                if not 1 <= number <= count:
                    detail = f"listed in {SPLITS}, but there are images 1 to {count}: fetch both files again"
                    listing.refuse(ARRAYS, f"{number:04d}", "missing_image", detail)
                    continue
                extra = {"place": number - 1}
                group = scenes[number - 1] or f"{number:04d}"
                listing.add(f"{number:04d}", split=split, group=group, files=(ARRAYS,), listed=SPLITS, extra=extra)
        return listing.result()

    def _index_folders(self, listing: Listing) -> None:
        images = pictures_by_stem(self.root, "image", listing)
        labels = files_by_stem(self.root, self.labels, ".png")
        depths = files_by_stem(self.root, self.depths, ".png") if self.depths else {}
        unlisted = images.keys() & labels.keys()
        for split in LISTS:
            for stem in filter(None, (line.strip() for line in read_lines(self.root, f"{split}.txt"))):
                listing.add_pair(
                    stem,
                    split=split,
                    group=stem,
                    image=images.get(stem),
                    mask=labels.get(stem),
                    expected=(f"image/{stem}.png", f"{self.labels}/{stem}.png"),
                    listed=f"{split}.txt",
                    objects=(depths.get(stem), f"{self.depths}/{stem}.png") if self.depths else None,
                )
                unlisted.discard(stem)
        names = " or ".join(f"{split}.txt" for split in LISTS)
        listing.pass_over("image(s) with a mask that no list names", unlisted, f"write them into {names}")

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its labels and depth. Raises BadSampleError."""
        if self.arrays is not None:
            return self._read_arrays(ref, self.arrays)
        image_path, mask_path, *depth = ref.files
        image = read_photograph(self.root, image_path)
        labels = masks.map_labels(read_labels(self.root, mask_path, image), self.table, file=mask_path)
        extras = {"depth": read_extra(self.root, depth[0], image)} if depth else {}
        return sample_of(ref, image, label_map=masks.stored(labels), extras=extras)

    def _read_arrays(self, ref: SampleRef, arrays: Arrays) -> Sample:
        path, place = ref.files[0], ref.extra["place"]
        where = f"{path}, image {place + 1}"
        try:
            if not storage.exists(storage.join(self.root, path)):
                raise BadSampleError("missing_image", path, "there is no such file: fetch it")
            width, height = (*arrays.shape("images"), 0, 0, 0)[2:4]  # MATLAB's arrays lie the other way round
            pixels = arrays.item("images", place, kind="u1", shape=(3, width, height)).transpose(2, 1, 0)
            raw_HW = arrays.item("labels", place, kind="u2", shape=(width, height)).T
            metres_HW = arrays.item("depths", place, kind="f4", shape=(width, height)).T if self.depths else None
        except BadSampleError:
            raise
        except InputError as error:
            raise BadSampleError("unreadable", where, without_root(error, self.root, path)) from error
        image = Photograph(masks.encode_png(np.ascontiguousarray(pixels, np.uint8)), height, width, where)
        labels_HW = masks.map_labels(np.ascontiguousarray(raw_HW, np.uint16), self.table, file=f"{where}, labels")
        extras = {} if metres_HW is None else {"depth": _depth_png(metres_HW, f"{where}, depths")}
        return sample_of(ref, image, label_map=masks.stored(labels_HW), extras=extras)


def _depth_png(metres_HW: npt.NDArray[Any], where: str) -> bytes:
    """Millimetres as a 16-bit PNG, 0 where there is no number. Raises BadSampleError beyond 65.535 m."""
    known_HW = np.isfinite(metres_HW)
    millimetres_HW = np.rint(np.where(known_HW, metres_HW, 0).astype(np.float64) * 1000)
    if millimetres_HW.min() < 0 or millimetres_HW.max() > np.iinfo(np.uint16).max:
        far = float(millimetres_HW.max() / 1000)
        raise BadSampleError("bad_annotation", where, f"up to {far} m; expected metres, 0 to 65.535: fetch it again")
    return masks.encode_png(np.ascontiguousarray(millimetres_HW.astype(np.uint16)))


def open_nyu_depth(
    root: str,
    *,
    classes: Annotated[int, "40, 13, or 894 for every label of the arrays"] = 40,
    depth: Annotated[bool, "false leaves the depth maps out"] = True,
) -> NyuDepth:
    """Opens the set. Raises InputError on a bad option, or where the arrays are missing."""
    if classes not in (13, 40, 894):
        raise InputError(f"option classes={classes!r}; expected 40, 13, or 894 for every label of the arrays")
    arrays = Arrays(root, ARRAYS) if storage.exists(storage.join(root, ARRAYS)) else None
    if arrays is None and (classes == 894 or not storage.exists(storage.join(root, "image"))):
        raise InputError(
            f"{root}: no {ARRAYS} here; expected it beside {SPLITS}, or image/, label{classes}/ (40 or 13), "
            "train.txt and test.txt: give that folder as root"
        )
    names: tuple[str, ...] = {13: NAMES_13, 40: NAMES_40}.get(classes, ())
    if arrays is None:
        table = {0: IGNORE_8BIT, IGNORE_8BIT: IGNORE_8BIT, **{k + 1: k for k in range(classes)}}
    elif classes == 894:
        names = tuple(arrays.texts("names"))
        table = {k + 1: k for k in range(len(names))}
    else:
        table = _mapped(root, len(arrays.texts("names")), classes)
    ignored = ignored_beside(len(names))
    found = [folder for folder in DEPTH_FOLDERS if arrays is None and storage.exists(storage.join(root, folder))]
    if depth and arrays is None and not found:
        raise InputError(f"{root}: no depth/ here; expected depth/000001.png: set the option depth=false, or fetch it")
    return NyuDepth(
        root=root,
        classes=tuple(ClassInfo(name=name, colour=class_colour(k + 1)) for k, name in enumerate(names)),
        ignore_index=ignored,
        table={0: ignored, **table},
        annotations=(Annotation.LABEL_MAP, *((Annotation.DEPTH,) if depth else ())),
        labels=f"label{classes}",
        depths=("depths" if arrays else found[0]) if depth else "",
        arrays=arrays,
    )


def _mapped(root: str, labels: int, classes: int) -> dict[int, int]:
    """Raw label, from 1 -> class id, by classMapping40.mat."""
    numbers = np.atleast_1d(read_matlab(root, MAPPING).get("mapClass", ())).ravel()
    if numbers.size != labels or numbers.dtype.kind not in "ui" or not ((numbers > 0) & (numbers <= 40)).all():
        raise InputError(
            f"{storage.join(root, MAPPING)}: mapClass has {numbers.size} values; expected one of 1 to 40 for each of "
            f"the {labels} labels: fetch the mapping of Gupta et al. 2013 again"
        )
    of_40 = [int(number) for number in numbers]
    return {raw: (FROM_40_TO_13[k - 1] if classes == 13 else k) - 1 for raw, k in enumerate(of_40, start=1)}


INFO = SourceInfo(
    name="nyu_depth",
    open=open_nyu_depth,
    summary="NYU Depth v2, 795/654 indoor photographs of 640x480 with depth, 40, 13 or 894 classes",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=(
        "nyu_depth_v2_labeled.mat, splits.mat, classMapping40.mat",
        "or image/000001.png, label40/000001.png, depth/000001.png (or depth16/)",
        "with train.txt and test.txt (names without ending)",
    ),
    expected=EXPECTED,
)
