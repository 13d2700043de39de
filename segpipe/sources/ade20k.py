"""ADE20K scene parsing (SceneParsing150): 150 classes; mask value 0 = other objects, not scored; class k is k + 1.

Source: Zhou et al. 2017, github.com/CSAILVision/sceneparsing; ADEChallengeData2016.zip. The names stand in the set's
own objectInfo150.txt. Forgetting that 0 is no class shifts every label by one, and still trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from segpipe.errors import InputError
from segpipe.sources.reading import Kind, Listing, Place, class_colour, coding, read_lines, read_pair
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

FOLDERS = {"training": "train", "validation": "val"}
NAMES_FILE = "objectInfo150.txt"
NUM_CLASSES = 150
EXPECTED = {"train": 20210, "val": 2000}
LICENCE = "images for non-commercial research and education; annotations BSD 3-clause (CSAILVision)"
_TABLE = {0: IGNORE_8BIT, **{number + 1: number for number in range(NUM_CLASSES)}}
CODING = coding(_TABLE, "0 is no class: other objects, not scored", "class k is written as k + 1")


# Each of these 14 masks is 0 everywhere: github.com/CSAILVision/semantic-segmentation-pytorch/issues/298.
_EMPTY = (5149, 5150, 5152, 5333, 5905, 6510, 13298, 14634, 14636, 14884, 15320, 15330, 15928, 19873)
_WHY = "no pixel of its mask has a class (CSAILVision/semantic-segmentation-pytorch, issue 298)"
KNOWN_BAD = {f"ADE_train_{number:08d}": _WHY for number in _EMPTY}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ade20k:
    """The folder that holds images/ and annotations/ (ADEChallengeData2016), opened by `open_ade20k`."""

    root: str
    split: str
    classes: tuple[ClassInfo, ...]
    name: str = "ade20k"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The published counts; none for a folder without training/ and validation/."""
        return None if self.split else EXPECTED

    def index(self) -> Index:
        """Every image below images/training and images/validation. Raises InputError on other folders or none."""
        listing = Listing(KNOWN_BAD)
        if not listing.add_folder(self.root, Kind("images", ".jpg"), Kind("annotations", ".png"), self._place):
            raise InputError(
                f"{self.root}: no images/**.jpg here; expected ADEChallengeData2016: give that folder as root"
            )
        return listing.result()

    def _place(self, stem: str) -> Place:
        folder, _, sample_id = stem.rpartition("/")
        split = self.split or FOLDERS.get(folder)
        if split is None:
            raise InputError(
                f"{self.root}: images/{folder or '*.jpg'}: expected images/training and images/validation "
                "(ADEChallengeData2016): give that folder as root, or name one split for all by the option split"
            )
        return Place(sample_id, split, sample_id)

    def read(self, ref: SampleRef) -> Sample:
        """One scene with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, _TABLE)


def open_ade20k(
    root: str,
    *,
    split: Annotated[str, "name of the one split, for a folder without training/ and validation/"] = "",
) -> Ade20k:
    """Opens the set. Raises InputError."""
    rows = [line.split("\t") for line in read_lines(root, NAMES_FILE)[1:] if line.strip()]
    if [row[0].strip() for row in rows] != [str(number + 1) for number in range(NUM_CLASSES)]:
        raise InputError(
            f"{root}/{NAMES_FILE}: {len(rows)} rows; expected the numbers 1 to {NUM_CLASSES} with their names, "
            "separated by tabs: fetch it again from github.com/CSAILVision/sceneparsing"
        )
    names = [row[-1].split(",")[0].strip() for row in rows]  # "building, edifice" goes by its first name
    classes = tuple(ClassInfo(name=name, colour=class_colour(k + 1)) for k, name in enumerate(names))
    return Ade20k(root=root, split=split, classes=classes)


INFO = SourceInfo(
    name="ade20k",
    open=open_ade20k,
    summary="ADE20K scene parsing, 20210/2000 photographs, 150 classes, value 0 = not scored",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=(
        "images/{training,validation}/ADE_val_00000001.jpg",
        "annotations/{training,validation}/ADE_val_00000001.png",
        "objectInfo150.txt",
    ),
    expected=EXPECTED,
    known_bad=KNOWN_BAD,
)
