"""What is known of each copy of a public dataset, made up or real: counts that others wrote down. See the tests beside.

`$SEGPIPE_DATA` is the folder of real copies; without it the made-up ones are read alone.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.sources import pascal_part
from tests.fixtures.small_files import HEIGHT, WIDTH

DATA = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
Options = dict[str, str | int | float | bool]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one copy: samples, segments and crowds of each split; pixels of some class ids, all splits.

    `source` is that of a mini dataset or one of its variants.
    """

    source: str
    folder: str = ""
    options: Options = field(default_factory=dict)
    samples: dict[str, int]
    segments: dict[str, int] = field(default_factory=dict)
    crowds: dict[str, int] = field(default_factory=dict)
    pixels: dict[int, int] = field(default_factory=dict)


MINI_PIXELS = HEIGHT * WIDTH
PARTS = {info.name: class_id for class_id, info in enumerate(pascal_part.CLASSES["parts"])}
PART_IDS = [PARTS[name] for name in ("person", "person head", "person lear", "car", "car wheel", "boat")]
FACTS = [
    Facts(
        source="voc",
        samples={"train": 2, "val": 1},
        segments={"train": 6, "val": 3},
        pixels={0: 3 * MINI_PIXELS // 6, 15: 3 * MINI_PIXELS // 3, 3: 3 * MINI_PIXELS // 6, 255: 3 * MINI_PIXELS // 3},
    ),
    Facts(source="voc", options={"objects": ""}, samples={"train": 2, "val": 1}),
    Facts(
        source="voc",
        folder="voc_sample",
        options={"split": "train"},
        samples={"train": 3},
        segments={"train": 12},
        pixels={255: 10369},
    ),
    Facts(
        source="ade20k",
        samples={"train": 2, "val": 1},
        pixels={0: 2 * MINI_PIXELS // 3, 149: 2 * MINI_PIXELS // 3, 2: MINI_PIXELS // 3, 255: MINI_PIXELS},
    ),
    Facts(source="ade20k", folder="ade20k_sample", options={"split": "val"}, samples={"val": 3}, pixels={255: 22924}),
    Facts(
        source="cityscapes",
        samples={"train": 1, "val": 1},
        segments={"train": 4, "val": 4},
        crowds={"train": 1, "val": 1},
        pixels={0: MINI_PIXELS // 3, 13: 2 * MINI_PIXELS // 3, 11: MINI_PIXELS // 3, 255: 2 * MINI_PIXELS // 3},
    ),
    Facts(source="cityscapes", options={"segments": False}, samples={"train": 1, "val": 1}),
    Facts(
        source="cityscapes",
        folder="cityscapes_sample",
        options={"split": "val"},
        samples={"val": 1},
        segments={"val": 15},
        pixels={11: 107, 13: 1802},
    ),
    Facts(source="bdd100k", samples={"train": 1, "val": 1}, pixels={0: 432, 10: 432, 18: 432, 255: 432}),
    Facts(source="nuclei", samples={"train": 2, "val": 1}, segments={"train": 6, "val": 3}),
    Facts(
        source="nuclei",
        folder="nuclei_dsb2018",
        samples={"train": 41, "val": 15},
        segments={"train": 1600, "val": 820},
    ),
    Facts(source="isbi2012", samples={"train": 9, "val": 1, "test": 1}),
    Facts(
        source="isbi2012",
        folder="isbi2012",
        samples={"train": 24, "val": 3, "test": 3},
        pixels={0: 1727250, 1: 6137070},
    ),
    Facts(source="davis", samples={"train": 3, "val": 3}, segments={"train": 3, "val": 6}, pixels={1: 3 * 24 + 3 * 48}),
    Facts(
        source="davis",
        options={"year": 2016},
        samples={"train": 3, "val": 3},
        segments={"train": 3, "val": 3},
        pixels={1: 3 * 24 + 3 * 48},
    ),
    Facts(source="davis", folder="davis", options={"year": 2016}, samples={"val": 139}, segments={"val": 139}),
    Facts(
        source="label_studio",
        options={"shares": "1,0,0"},
        samples={"train": 3},
        segments={"train": 3},
        # The polygon from a quarter to three quarters, and a brush; what nobody painted.
        pixels={0: MINI_PIXELS // 2 - 4 * 6, 1: MINI_PIXELS // 4 + 6 * 6, 255: 9 * MINI_PIXELS // 4 - 2 * 6},
    ),
    Facts(
        source="labelme",
        options={"shares": "1,0,0"},
        samples={"train": 4},
        segments={"train": 12},
    ),
    Facts(
        source="labelme",
        folder="voc_sample",
        options={"json": "labelme_json", "images": "JPEGImages", "classes": "class_names.txt", "shares": "1,0,0"},
        samples={"train": 3},
        segments={"train": 12},
        pixels={255: 10369},
    ),
    Facts(
        source="mapillary",
        samples={"train": 1, "val": 1},
        segments={"train": 3, "val": 3},
        pixels={0: MINI_PIXELS, 1: MINI_PIXELS // 2, 255: MINI_PIXELS // 2},
    ),
    Facts(
        source="gta5",
        samples={"train": 1, "val": 1, "test": 1},
        pixels={0: 3 * MINI_PIXELS // 4, 13: 3 * MINI_PIXELS // 4, 255: 3 * MINI_PIXELS // 2},
    ),
    Facts(source="yolo", samples={"train": 2, "val": 1}, segments={"train": 2, "val": 2}),
    Facts(source="oxford_pet", options={"validation": 0.0}, samples={"train": 12, "test": 1}),
    Facts(
        source="coco",
        samples={"train": 2, "val": 2},
        segments={"train": 3, "val": 3},
        crowds={"train": 1, "val": 1},
    ),
    Facts(
        source="coco",
        folder="coco_mini",
        samples={"train": 80, "val": 79},
        segments={"train": 739, "val": 624},
        crowds={"train": 8, "val": 5},
    ),
    Facts(
        source="coco",
        folder="voc_sample",
        options={"annotations": "coco_annotations.json", "images": "", "shares": "1,0,0"},
        samples={"train": 3},
        segments={"train": 12},
    ),
    Facts(
        source="camvid-original",
        samples={"train": 3, "val": 1, "test": 2},
        pixels={3: 3 * MINI_PIXELS, 9: 3 * MINI_PIXELS // 2, 255: 3 * MINI_PIXELS // 2},
    ),
    Facts(
        source="camvid-32",
        samples={"train": 3, "val": 1, "test": 2},
        pixels={17: 3 * MINI_PIXELS // 2, 10: 3 * MINI_PIXELS // 2, 7: 3 * MINI_PIXELS // 2, 255: 3 * MINI_PIXELS // 2},
    ),
    Facts(
        source="cityscapes-coarse",
        samples={"train": 1, "val": 1, "train_extra": 1},
        segments={"train": 2, "val": 2, "train_extra": 2},
        crowds={"train": 1, "val": 1, "train_extra": 1},
        pixels={0: MINI_PIXELS, 13: MINI_PIXELS, 255: MINI_PIXELS},
    ),
    Facts(
        source="coco-keypoints",
        samples={"train": 2, "val": 2},
        segments={"train": 3, "val": 3},
        crowds={"train": 1, "val": 1},
    ),
    *(
        Facts(
            source=source,
            samples={"train": 2, "val": 1},
            pixels={first: 3 * MINI_PIXELS // 4, last: 3 * MINI_PIXELS // 4, 255: 3 * MINI_PIXELS // 4},
        )
        for source, first, last in (("coco_stuff", 0, 79), ("coco_stuff-train_ids", 79, 170))
    ),
    *(
        Facts(
            source=f"pascal_context{spelling}",
            samples={"train": 2, "val": 1},
            pixels={47 - first: 3 * MINI_PIXELS // 4, 38 - first: 3 * MINI_PIXELS // 4, rest: 3 * MINI_PIXELS // 2},
        )
        for spelling, first, rest in (("", 0, 0), ("-59", 1, 255), ("-official", 0, 0), ("-merged", 0, 0))
    ),
    Facts(
        source="coco_20i",
        samples={"train": 2, "val": 1},
        pixels={1: 6 * 6, 2: 28 * 18, 3: 28 * 18, 255: 4 * HEIGHT - 2 * 18 + 4 * HEIGHT},
    ),
    Facts(
        source="coco_20i-fold1",
        samples={"train": 2, "val": 1},
        pixels={1: 6 * 6, 2: 28 * 18, 3: 28 * 18, 255: 28 * 18 - 6 * 6 + 2 * (4 * HEIGHT) - 2 * 18 - 2 * 18},
    ),
    Facts(
        source="pascal_part",
        samples={"train": 2, "val": 1},
        segments={"train": 3, "val": 2},
        # In sixths: a person with one stripe left, its head and ear; a car with two left, a wheel class of two.
        pixels=dict(zip(PART_IDS, (sixth * MINI_PIXELS // 6 for sixth in (1, 1, 1, 2, 2, 2)), strict=True)),
    ),
    Facts(
        source="pascal_part-objects",
        samples={"train": 2, "val": 1},
        segments={"train": 3, "val": 2},
        pixels={15: MINI_PIXELS // 2, 7: 2 * MINI_PIXELS // 3, 4: MINI_PIXELS // 3, 17: MINI_PIXELS // 2},
    ),
    Facts(
        source="pascal_5i",
        samples={"train": 2, "val": 1},
        pixels={0: 3 * MINI_PIXELS // 2 - MINI_PIXELS // 4, 1: MINI_PIXELS // 4, 15: MINI_PIXELS // 4},
    ),
    Facts(
        source="pascal_5i-fold2",
        samples={"train": 2, "val": 1},
        pixels={1: MINI_PIXELS // 4, 15: MINI_PIXELS // 4, 255: MINI_PIXELS},
    ),
    Facts(
        source="coco_stuff-pixelmaps",
        samples={"train": 2, "val": 1},
        pixels={90: 3 * MINI_PIXELS // 4, 91: 3 * MINI_PIXELS // 2, 255: 3 * MINI_PIXELS // 4},
    ),
    Facts(
        source="coco_panoptic",
        samples={"train": 1, "val": 1},
        segments={"train": 4, "val": 4},
        crowds={"train": 1, "val": 1},
        pixels={0: MINI_PIXELS, 1: MINI_PIXELS // 3, 255: 2 * MINI_PIXELS // 3},
    ),
    Facts(
        source="coco_panoptic",
        folder="coco_panoptic_sample",
        options={
            "annotations": "panoptic_examples.json",
            "images": "input_images",
            "pngs": "panoptic_examples",
            "shares": "1,0,0",
        },
        samples={"train": 2},
        segments={"train": 50},
        crowds={"train": 3},
        pixels={255: 2712 + 7189},
    ),
]
AT_HAND = [facts for facts in FACTS if not facts.folder or (DATA / facts.folder).exists()]
