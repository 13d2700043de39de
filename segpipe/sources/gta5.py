"""GTA5 ("Playing for Data"): 24,966 frames of a video game with Cityscapes' labels, for learning without annotators.

Source: Richter et al. 2016, download.visinf.tu-darmstadt.de/data/from_games. Splits are those of the authors'
read_mapping.zip (split.mat). A few frames and masks have different sizes as shipped: ingest sets them aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading import Kind, Line, Listing, Place, coding, read_pair
from segpipe.sources.reading.matlab import read_matlab
from segpipe.sources.reading.road_labels import LABEL_IDS, ROAD_CLASSES
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

SPLIT_FILE = "split.mat"
SPLITS = {"train": "trainIds", "val": "valIds", "test": "testIds"}
EXPECTED = {"train": 12403, "val": 6382, "test": 6181}
LICENCE = "research and education only (download.visinf.tu-darmstadt.de/data/from_games)"
CODING = coding(LABEL_IDS, "values are Cityscapes' label ids; 16 of the 35 are not scored")


@dataclass(frozen=True, slots=True)
class Gta5:
    """The folder that holds images/, labels/ and split.mat."""

    root: str
    name: str = "gta5"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = ROAD_CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of split.mat."""
        return EXPECTED

    def index(self) -> Index:
        """The frames of the three lists. Raises InputError where split.mat is missing or not the authors'."""
        lists, lines = read_matlab(self.root, SPLIT_FILE), []
        for split, variable in SPLITS.items():
            numbers = np.atleast_1d(lists.get(variable, ()))
            if not numbers.size or numbers.dtype.kind not in "ui":
                raise InputError(
                    f"{storage.join(self.root, SPLIT_FILE)}: no whole numbers in {variable}; expected the authors' "
                    "split.mat (read_mapping.zip), with trainIds, valIds and testIds"
                )
            stems = [f"{number:05d}" for number in numbers.ravel().tolist()]
            lines += [Line(stem, Place(stem, split, stem), SPLIT_FILE) for stem in stems]
        listing = Listing()
        listing.add_lines(
            self.root,
            Kind("images", ".png"),
            Kind("labels", ".png"),
            lines,
            unlisted=f"fetch the authors' {SPLIT_FILE} again",
        )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, LABEL_IDS)


INFO = SourceInfo(
    name="gta5",
    open=Gta5,
    summary="GTA5 (Playing for Data), 12403/6382/6181 rendered frames, Cityscapes' 19 classes",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=("images/00001.png", "labels/00001.png", "split.mat"),
    expected=EXPECTED,
)
