"""DAVIS 2016 and 2017: short videos with a mask for every frame; one foreground (2016) or numbered objects (2017).

Source: Perazzi et al. 2016, Pont-Tuset et al. 2017, davischallenge.org. Both years share the frames: 2016 asks for the
union of the objects. A clip is a sequence, its group too; object numbers mean the same in all of its frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from segpipe import storage
from segpipe.errors import BadSampleError, InputError
from segpipe.masks import stored
from segpipe.sources.reading import (
    Listing,
    coding,
    files_by_stem,
    is_inside,
    read_labels,
    read_lines,
    read_photograph,
    sample_of,
)
from segpipe.sources.spec import Index, SourceInfo
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

CLASSES = (
    ClassInfo(name="background", colour=(0, 0, 0)),
    ClassInfo(name="object", colour=(128, 0, 0), is_thing=True),
)
OBJECT = 1
EXPECTED = {2016: {"train": 2079, "val": 1376}, 2017: {"train": 4209, "val": 1999}}
LICENCE = "BSD (davischallenge.org)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Davis:
    """The folder that holds JPEGImages/, Annotations/ and ImageSets/, opened by `open_davis`."""

    root: str
    year: int
    resolution: str
    name: str = "davis"
    licence: str = LICENCE
    classes: tuple[ClassInfo, ...] = CLASSES
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP, Annotation.SEGMENTS, Annotation.CLIPS)

    @property
    def coding(self) -> LabelCoding:
        """2016 asks for the union of the objects, 2017 for each."""
        if self.year == 2016:
            return coding({0: 0, 255: OBJECT}, "every value but 0 is the one object")
        return coding({0: 0, 1: OBJECT}, "values from 1 on number the objects of a clip")

    @property
    def expected(self) -> Mapping[str, int]:
        """Frames of the published lists."""
        return EXPECTED[self.year]

    def index(self) -> Index:
        """All frames of the listed sequences. Raises InputError where there are no lists."""
        images = files_by_stem(self.root, f"JPEGImages/{self.resolution}", ".jpg")
        truths = files_by_stem(self.root, f"Annotations/{self.resolution}", ".png")
        listing = Listing()
        for split, sequence, listed in self._sequences():
            frames = sorted(stem for stem in images.keys() | truths.keys() if stem.startswith(f"{sequence}/"))
            if not frames:
                folder = f"JPEGImages/{self.resolution}/{sequence}"
                listing.refuse(
                    folder, sequence, "missing_image", f"listed in {listed}: restore it or take the line out"
                )
            for stem in frames:
                wanted = (f"JPEGImages/{self.resolution}/{stem}.jpg", f"Annotations/{self.resolution}/{stem}.png")
                image, mask = images.get(stem), truths.get(stem)
                listing.add_pair(
                    stem,
                    split=split,
                    group=sequence,
                    image=image,
                    mask=mask,
                    expected=wanted,
                    listed=listed,
                    clip=sequence,
                )
        return listing.result()

    def _sequences(self) -> Iterator[tuple[str, str, str]]:
        """(split, sequence, list). The lists name sequences (ImageSets/2016, 2017) or frames (ImageSets/480p)."""
        for folder in (f"ImageSets/{self.year}", f"ImageSets/{self.resolution}"):
            found = storage.list_names(storage.join(self.root, folder), suffix=".txt")
            if lists := [name for name in found if name[:-4] in EXPECTED[self.year]]:
                break
        else:
            raise InputError(
                f"{self.root}: no train.txt or val.txt in ImageSets/{self.year} or ImageSets/{self.resolution}; "
                "expected DAVIS' layout (JPEGImages/480p/<sequence>/, ImageSets/, ...): give that folder as root"
            )
        for name in lists:
            lines = read_lines(self.root, f"{folder}/{name}")
            sequences = dict.fromkeys(_sequence(line.split()[0]) for line in lines if line.strip())
            for sequence in sequences:
                if not is_inside(sequence):
                    raise InputError(
                        f"{self.root}/{folder}/{name}: {sequence!r:.80} is no sequence; expected a name as `bear`, or "
                        "/JPEGImages/480p/bear/00000.jpg: mend the list"
                    )
                yield name[:-4], sequence, f"{folder}/{name}"

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its foreground and objects. Raises BadSampleError."""
        image_path, mask_path = ref.files
        frame = ref.sample_id.rpartition("/")[2]
        if not frame.isdecimal():
            detail = f"{frame!r} is no frame number; expected names as 00000.jpg: rename it"
            raise BadSampleError("bad_annotation", image_path, detail)
        image = read_photograph(self.root, image_path)
        objects = read_labels(self.root, mask_path, image)
        if self.year == 2016:
            objects = (objects > 0).astype(np.uint8)
        elif objects.max(initial=0) == IGNORE_8BIT:
            raise BadSampleError(
                "label_out_of_range", mask_path, "value 255; expected object numbers from 1: set the option year=2016"
            )
        numbers, areas = np.unique(objects, return_counts=True)
        return sample_of(
            ref,
            image,
            label_map=stored((objects > 0).astype(np.uint8)),
            segment_map=stored(objects),
            segments=tuple(
                Segment(segment_id=number, class_id=OBJECT, area=area)
                for number, area in zip(numbers.tolist(), areas.tolist(), strict=True)
                if number > 0
            ),
            clip_id=ref.clip,
            frame_index=int(frame),
        )


def _sequence(text: str) -> str:
    """`bear` of `bear` or of `/JPEGImages/480p/bear/00000.jpg`."""
    parts = text.split("/")
    return parts[-2] if len(parts) > 1 else text


def open_davis(
    root: str,
    *,
    year: Annotated[int, "2017 (numbered objects) or 2016 (one foreground)"] = 2017,
    resolution: Annotated[str, "folder below JPEGImages/ and Annotations/: 480p or Full-Resolution"] = "480p",
) -> Davis:
    """Opens the set of one year. Raises InputError on a bad option."""
    if year not in EXPECTED:
        raise InputError(f"option year={year!r}; expected {' or '.join(map(str, EXPECTED))}")
    return Davis(root=root, year=year, resolution=resolution)


INFO = SourceInfo(
    name="davis",
    open=open_davis,
    summary="DAVIS 2016 and 2017, videos of 854x480, one foreground or numbered objects in every frame",
    licence=LICENCE,
    tasks=(Task.VIDEO, Task.SEMANTIC, Task.INSTANCE, Task.DETECTION),
    layout=(
        "JPEGImages/480p/bear/00000.jpg",
        "Annotations/480p/bear/00000.png",
        "ImageSets/{2016,2017}/{train,val}.txt, or ImageSets/480p/{train,val}.txt",
    ),
    expected=EXPECTED[2017],
)
