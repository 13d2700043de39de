"""Oxford-IIIT Pet: cats and dogs of 37 breeds; trimaps of 1 = pet, 2 = background, 3 = boundary (not scored).

Source: Parkhi et al. 2012, robots.ox.ac.uk/~vgg/data/pets. A trimap does not know the species: that is in the lists,
and joins the mask by the option `classes`: pet, species or breed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from segpipe.errors import InputError
from segpipe.sources.reading import (
    Kind,
    Line,
    Listing,
    Place,
    class_colour,
    coding,
    hashed_split,
    read_lines,
    read_pair,
)
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

PET, BACKGROUND, BOUNDARY = 1, 2, 3
LISTS = {"trainval": "annotations/trainval.txt", "test": "annotations/test.txt"}
SPECIES = ("cat", "dog")
BREEDS = 37
# Those that OpenCV does not open (github.com/visual-layer/fastdup/issues/322). Others are sound, if odd: PNG inside
# (Abyssinian_5; Egyptian_Mau_14, 156, 186), or stray bytes before the end (beagle_116, chihuahua_121).
_GIFS = ("Abyssinian_34", *(f"Egyptian_Mau_{number}" for number in (139, 145, 167, 177, 191)))
KNOWN_BAD = dict.fromkeys(_GIFS, "is a GIF by the name of a JPEG (visual-layer/fastdup, issue 322)")
LICENCE = "CC BY-SA 4.0 (robots.ox.ac.uk/~vgg/data/pets)"


@dataclass(frozen=True, kw_only=True, slots=True)
class OxfordPet:
    """The folder that holds images/ and annotations/, opened by `open_oxford_pet`. `kinds` are the pets' classes."""

    root: str
    kinds: str
    validation: float
    classes: tuple[ClassInfo, ...]
    name: str = "oxford_pet"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def coding(self) -> LabelCoding:
        """A trimap says pet; which one, its list says."""
        rule = "" if self.kinds == "pet" else f"value 1 becomes the {self.kinds} that the list gives the image"
        return coding({BACKGROUND: 0, PET: 1, BOUNDARY: IGNORE_8BIT}, *((rule,) if rule else ()))

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The published counts; none where a part of trainval is kept for validation, whose size the hash decides."""
        return {"train": 3680, "test": 3669} if self.validation == 0 else None

    def index(self) -> Index:
        """The images of trainval.txt, of which a share validates, and of test.txt. Raises InputError."""
        lines = []
        for name, path in LISTS.items():
            for stem, breed, species in _rows(self.root, path):
                split = (
                    hashed_split(stem, (1 - self.validation, self.validation, 0.0)) if name == "trainval" else "test"
                )
                kind = {"pet": 1, "species": species, "breed": breed}[self.kinds]
                lines.append(Line(stem, Place(stem, split, stem), path, {"class_id": kind}))
        listing = Listing(KNOWN_BAD)
        listing.add_lines(self.root, Kind("images", ".jpg"), Kind("annotations/trimaps", ".png"), lines)
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, {BACKGROUND: 0, PET: int(ref.extra["class_id"]), BOUNDARY: IGNORE_8BIT})


def _rows(root: str, path: str) -> list[tuple[str, int, int]]:
    """(stem, breed 1..37, species 1..2) of each line "Abyssinian_100 1 1 1". Raises InputError."""
    rows = []
    for number, line in enumerate(read_lines(root, path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]):
            raise InputError(f"{root}/{path}: line {number} is {line[:80]!r}; expected `name breed species number`")
        breed, species = int(parts[1]), int(parts[2])
        if not (1 <= breed <= BREEDS and 1 <= species <= len(SPECIES)):
            raise InputError(
                f"{root}/{path}: line {number}: breed {breed}, species {species}; expected 1 to {BREEDS} and 1 to 2"
            )
        rows.append((parts[0], breed, species))
    return rows


def open_oxford_pet(
    root: str,
    *,
    classes: Annotated[str, "pet, species or breed: what a pet's pixels are called"] = "species",
    validation: Annotated[
        float, "share of trainval.txt that becomes val; 0: none, and the published counts are compared with"
    ] = 0.1,
) -> OxfordPet:
    """Opens the set. Raises InputError on a bad option."""
    if not 0 <= validation < 1:
        raise InputError(f"option validation={validation!r}; expected a share of trainval.txt, 0 to below 1")
    if classes == "breed":
        named = {breed: stem.rpartition("_")[0] for path in LISTS.values() for stem, breed, _ in _rows(root, path)}
        if len(named) != BREEDS:
            raise InputError(f"{root}: the lists name {len(named)} of {BREEDS} breeds: fetch the annotations again")
        names = [named[breed] for breed in range(1, BREEDS + 1)]
    elif classes in ("pet", "species"):
        names = list(SPECIES) if classes == "species" else ["pet"]
    else:
        raise InputError(f"option classes={classes!r}; expected pet, species or breed")
    infos = tuple(ClassInfo(name=name, colour=class_colour(k)) for k, name in enumerate(["background", *names]))
    return OxfordPet(root=root, kinds=classes, validation=validation, classes=infos)


INFO = SourceInfo(
    name="oxford_pet",
    open=open_oxford_pet,
    summary="Oxford-IIIT Pet, 3680/3669 photographs, cats and dogs of 37 breeds",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=("images/Abyssinian_100.jpg", "annotations/trimaps/Abyssinian_100.png", "annotations/{trainval,test}.txt"),
    known_bad=KNOWN_BAD,
)
