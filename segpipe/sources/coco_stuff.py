"""COCO-Stuff: COCO 2017's photographs with a class for every pixel, 80 things and 91 kinds of stuff, or stuff alone.

Source: Caesar, Uijlings, Ferrari 2018 (arXiv 1612.03716), github.com/nightrome/cocostuff; names and numbers are
those of its labels.txt. Three spellings are about: `raw` (stuffthingmaps_trainval2017.zip: label - 1, 255 =
unlabelled), `train_ids` (what open-mmlab's converter makes of it: 0..170, 255) and `pixelmaps` (of the 2017
challenge, stuff_annotations_trainval2017.zip: 92..182 stuff, 183 = everything else, 0 = unlabelled).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from segpipe.errors import InputError
from segpipe.sources.reading import Kind, Listing, Place, alone_in, class_colour, coding, read_pair
from segpipe.sources.reading.coco_json import EXPECTED, LICENCE, folder_of
from segpipe.sources.spec import Index, SourceInfo
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, Sample, SampleRef, Task

# Labels 1 to 90; eleven of them (-) were never painted, and have no class.
_THINGS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "-", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "-", "backpack", "umbrella", "-", "-", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "-", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana"),
    *("apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "-", "dining table", "-", "-", "toilet", "-", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "-", "book", "clock", "vase"),
    *("scissors", "teddy bear", "hair drier", "toothbrush", "-"),
)
# Labels 92 to 182.
_STUFF = (
    *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet"),
    *("ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff"),
    *("dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood"),
    *("flower", "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house"),
    *("leaves", "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper"),
    *("pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river"),
    *("road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow"),
    *("solid-other", "stairs", "stone", "straw", "structural-other", "table", "tent", "textile-other", "towel"),
    *("tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile"),
    *("wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood"),
)
FIRST_STUFF, OTHER = 92, 183
_LABELS = {
    **{label: name for label, name in enumerate(_THINGS, start=1) if name != "-"},
    **dict(enumerate(_STUFF, start=FIRST_STUFF)),
}
SPLITS = ("train", "val")
TRAIN_IDS = "_labelTrainIds.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelling:
    """One way to write the masks: where they lie, their values -> labels of labels.txt, and what to say of it."""

    masks: str
    suffix: str
    labels: Mapping[int, int]
    void: int
    rule: str

    @property
    def table(self) -> dict[int, int]:
        """Values -> class ids, which go by label."""
        places = {label: class_id for class_id, label in enumerate(sorted(self.labels.values()))}
        return {**{value: places[label] for value, label in self.labels.items()}, self.void: IGNORE_8BIT}


SPELLINGS = {
    "raw": Spelling(
        masks="annotations/{split}2017",
        suffix=".png",
        labels={label - 1: label for label in _LABELS},
        void=255,
        rule="a value is the label of labels.txt less 1; 255 is unlabelled",
    ),
    "train_ids": Spelling(
        masks="annotations/{split}2017",
        suffix=TRAIN_IDS,
        labels=dict(enumerate(_LABELS)),
        void=255,
        rule="the 171 labels that were painted, numbered from 0; 255 is unlabelled",
    ),
    "pixelmaps": Spelling(
        masks="annotations/stuff_{split}2017_pixelmaps",
        suffix=".png",
        labels={label: label for label in (*range(FIRST_STUFF, OTHER), OTHER)},
        void=0,
        rule="a value is the label of labels.txt; 183 is every thing, 0 is unlabelled",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoStuff:
    """Images and masks of one spelling, opened by `open_coco_stuff`. The patterns hold {split}."""

    root: str
    labels: str
    images: str
    masks: str
    name: str = "coco_stuff"
    licence: str = LICENCE
    ignore_index: int = IGNORE_8BIT
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """171 of things and stuff, or 91 of stuff and `other`, in the order of labels.txt."""
        return tuple(
            ClassInfo(name=_LABELS.get(label, "other"), colour=class_colour(label), is_thing=label < FIRST_STUFF)
            for label in sorted(SPELLINGS[self.labels].labels.values())
        )

    @property
    def coding(self) -> LabelCoding:
        return coding(SPELLINGS[self.labels].table, SPELLINGS[self.labels].rule)

    @property
    def expected(self) -> Mapping[str, int]:
        """COCO 2017's counts."""
        return EXPECTED

    def index(self) -> Index:
        """Every image of train and val. Raises InputError where there is none."""
        listing, found = Listing(), 0
        for split in SPLITS:
            images = Kind(folder_of(self.images, split), ".jpg")
            masks = Kind(folder_of(self.masks, split), SPELLINGS[self.labels].suffix)
            found += listing.add_folder(self.root, images, masks, _but_train_ids(split))
        if not found:
            raise InputError(
                f"{self.root}: no {folder_of(self.images, 'train')}/*.jpg here; expected COCO 2017's photographs: say "
                "where they are by the option images, e.g. {split}2017"
            )
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One photograph with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, SPELLINGS[self.labels].table)


def _but_train_ids(split: str) -> Callable[[str], Place | None]:
    """open-mmlab's converter leaves its masks beside the raw ones, whose suffix they share."""
    named = alone_in(split)

    def place(stem: str) -> Place | None:
        return None if stem.endswith(TRAIN_IDS.removesuffix(".png")) else named(stem)

    return place


def open_coco_stuff(
    root: str,
    *,
    labels: Annotated[
        str, "how the masks are spelt: raw, train_ids (open-mmlab's converter) or pixelmaps (the 2017 challenge)"
    ] = "raw",
    images: Annotated[
        str, "folder of the photographs below the root; {split} stands for train and val"
    ] = "images/{split}2017",
    masks: Annotated[
        str, "folder of the masks below the root, with {split}; empty: where the publisher's archive unpacks"
    ] = "",
) -> CocoStuff:
    """Opens one spelling of the set. Raises InputError on a bad option."""
    if labels not in SPELLINGS:
        raise InputError(f"option labels={labels!r}; expected {', '.join(SPELLINGS)}")
    return CocoStuff(root=root, labels=labels, images=images, masks=masks or SPELLINGS[labels].masks)


INFO = SourceInfo(
    name="coco_stuff",
    open=open_coco_stuff,
    summary="COCO-Stuff 164k, 118287/5000 photographs, 171 classes of things and stuff, or the challenge's 92",
    licence=LICENCE,
    tasks=(Task.SEMANTIC,),
    layout=(
        "images/{train,val}2017/000000000009.jpg",
        "annotations/{train,val}2017/000000000009.png, or 000000000009_labelTrainIds.png",
        "or annotations/stuff_{train,val}2017_pixelmaps/000000000009.png",
    ),
    expected=EXPECTED,
)
