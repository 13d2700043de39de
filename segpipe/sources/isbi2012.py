"""ISBI 2012 neuronal membranes: 30 slices of one electron microscopy stack, 0 = membrane, 255 = inside of a cell.

Source: Arganda-Carreras et al. 2015, imagej.net/events/isbi-2012-segmentation-challenge; U-Net's first dataset. The
object of interest is the dark one: read the other way round, a model learns to paint cells. The slices lie on each
other, so splits are runs of neighbours (no hash), and all of them are one group: ingest warns that scores are too good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from segpipe.errors import InputError
from segpipe.sources.reading import SPLITS, Listing, coding, files_by_stem, parse_shares, read_pair
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

IMAGES, MASKS = "train/image", "train/label"
CLASSES = (ClassInfo(name="membrane", colour=(214, 39, 40)), ClassInfo(name="cell", colour=(240, 240, 240)))
LICENCE = "free for research, with citation (isbi-2012 challenge)"
STACK = "stack"
_TABLE = {0: 0, 255: 1}
CODING = coding(_TABLE, "the dark value is the membrane, the object of interest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Isbi2012:
    """The folder that holds train/image/0.png and train/label/0.png, opened by `open_isbi2012`."""

    root: str
    shares: tuple[float, ...]
    name: str = "isbi2012"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = CLASSES
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def expected(self) -> None:
        """30 slices in all; how to split them is nobody's protocol."""

    def index(self) -> Index:
        """Slices in the order of their numbers: the first to train, the last to test. Raises InputError."""
        images, masks = files_by_stem(self.root, IMAGES, ".png"), files_by_stem(self.root, MASKS, ".png")
        strange = [stem for stem in images.keys() | masks.keys() if not stem.isdecimal()]
        if strange or not images:
            found = f"{strange[0]}.png" if strange else "no slice"
            raise InputError(
                f"{self.root}: {found} in {IMAGES}/ or {MASKS}/; expected 0.png to 29.png in both: give the folder "
                "that holds train/ as root"
            )
        listing = Listing()
        numbers = sorted({int(stem) for stem in images.keys() | masks.keys()})
        for place, number in enumerate(numbers):
            listing.add_pair(
                f"{number:02d}",  # as a name, 10 comes before 2
                split=_run(place / len(numbers), self.shares),
                group=STACK,
                image=images.get(str(number)),
                mask=masks.get(str(number)),
                expected=(f"{IMAGES}/{number}.png", f"{MASKS}/{number}.png"),
                listed=IMAGES if str(number) in images else MASKS,
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One slice with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, _TABLE)


def _run(place: float, shares: tuple[float, ...]) -> str:
    """The split of a slice that lies at `place` (0..1) of the stack."""
    ends = (sum(shares[: at + 1]) for at in range(len(shares)))
    return next((split for split, end in zip(SPLITS, ends, strict=True) if place < end - 1e-9), SPLITS[-1])


def open_isbi2012(
    root: str,
    *,
    shares: Annotated[str, "how much of the stack's depth train, val and test get; they add up to 1"] = "0.8,0.1,0.1",
) -> Isbi2012:
    """Opens the stack. Raises InputError on a bad option."""
    return Isbi2012(root=root, shares=parse_shares(shares))


INFO = SourceInfo(
    name="isbi2012",
    open=open_isbi2012,
    summary="ISBI 2012 electron microscopy, 30 slices of 512x512, membrane and cell",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=("train/image/0.png", "train/label/0.png"),
)
