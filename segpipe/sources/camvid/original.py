"""CamVid as its makers publish it: 701 frames of 960x720 and RGB masks of 32 labels, without lists. Part of `camvid`.

The published splits are SegNet's. Its lists follow a rule, so that nobody has to fetch them: 0006R0 and most of 0016E5
train, the first half of 0001TP too; its second half and Seq05VD test; the clip of 0016E5 that was labelled at 15 Hz
validates. They cut drives; with `shares`, whole drives are dealt instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segpipe.errors import InputError
from segpipe.sources.camvid.labels import ALL, COLOURS, ELEVEN, EXPECTED, TO_ALL, TO_ELEVEN, VOID
from segpipe.sources.reading import Kind, Listing, Place, coding, hashed_split, read_pair
from segpipe.sources.spec import Index
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef

IMAGES, MASKS = Kind("701_StillsRaw_full", ".png"), Kind("LabeledApproved_full", "_L.png")
FIRST_TO_TEST = 8550  # of 0001TP
CLIP = range(7959, 8160)  # of 0016E5
WHOLE = {"0006R0": "train", "Seq05VD": "test"}


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginalCamVid:
    """The folder that holds 701_StillsRaw_full/ and LabeledApproved_full/. Void is ignored."""

    root: str
    num_labels: int
    shares: tuple[float, ...]
    licence: str
    name: str = "camvid"
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """SegNet's eleven, or all 31 labels that mean something."""
        return ELEVEN if self.num_labels == len(ELEVEN) else ALL

    @property
    def table(self) -> Mapping[int, int]:
        """Number of a colour -> class id."""
        return {**(TO_ELEVEN if self.num_labels == len(ELEVEN) else TO_ALL), VOID: IGNORE_8BIT}

    @property
    def coding(self) -> LabelCoding:
        return coding(self.table, "256 is the first colour of label_colors.txt, and so on; Void, black, comes last")

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The counts of SegNet's lists; none where drives are dealt."""
        return None if self.shares else EXPECTED

    def index(self) -> Index:
        """Every frame, by SegNet's splits or by drive. Raises InputError where there is none."""
        listing = Listing()
        if not listing.add_folder(self.root, IMAGES, MASKS, self._place):
            raise InputError(
                f"{self.root}: no {IMAGES.folder}/*.png here; expected CamVid's own layout ({IMAGES.folder}/, "
                f"{MASKS.folder}/): give the folder that holds both as root, or set the option layout=segnet"
            )
        return listing.result()

    def _place(self, stem: str) -> Place:
        drive, _, frame = stem.rpartition("_")
        number = int(digits) if (digits := frame.lstrip("f")).isdecimal() else -1
        if self.shares:
            return Place(stem, hashed_split(drive or stem, self.shares), drive or stem)
        if drive == "0001TP" and number >= 0:
            return Place(stem, "train" if number < FIRST_TO_TEST else "test", drive)
        if drive == "0016E5" and number >= 0:
            return Place(stem, "val" if number in CLIP else "train", drive)
        if drive not in WHOLE:
            raise InputError(
                f"{self.root}/{IMAGES.path(stem)}: is no frame of 0001TP, 0006R0, 0016E5 or Seq05VD; expected CamVid's "
                "701: remove it, or deal whole drives by the option shares"
            )
        return Place(stem, WHOLE[drive], drive)

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, self.table, palette=COLOURS)
