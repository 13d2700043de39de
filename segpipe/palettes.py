"""The colours in which masks are drawn: those of the datasets whose pictures everybody knows, and two rules for any
number of classes. `PALETTES` is the table; each line says where its values come from.

Used by `stages/predict.py`. Colours of classes as a dataset gives them are in its `ClassInfo`, and in no palette here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from segpipe.errors import InputError
from segpipe.sources.camvid.labels import ALL, ELEVEN
from segpipe.sources.reading import class_colour
from segpipe.sources.reading.road_labels import ROAD_CLASSES
from segpipe.types import ClassInfo

Colour = tuple[int, int, int]
OWN, GREY = "classes", "grey"  # the colours that the model's classes have; ids without colours
_MOST = 256  # what the palette of a PNG holds


class Palette(NamedTuple):
    """The colour of class id k is `colours[k]`; `source` is where they were published."""

    source: str
    colours: tuple[Colour, ...]


def _by_rule(number: int) -> Colour:
    red, green, blue = (number * factor % 255 for factor in (2**25 - 1, 2**15 - 1, 2**21 - 1))
    return red, green, blue


# Three bytes a class, wall to flag.
_ADE20K = bytes.fromhex(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)

PALETTES: Mapping[str, Palette] = {
    "voc": Palette(
        "PASCAL VOC's colour map, class 0 the background: VOClabelcolormap.m of its development kit",
        tuple(map(class_colour, range(_MOST))),
    ),
    "cityscapes": Palette(
        "the 19 classes by train id: labels.py of cityscapesScripts", tuple(each.colour for each in ROAD_CLASSES)
    ),
    "camvid": Palette("the eleven classes of SegNet's test script", tuple(each.colour for each in ELEVEN)),
    "camvid31": Palette("all of CamVid's label_colors.txt but Void, in its order", tuple(each.colour for each in ALL)),
    "ade20k": Palette(
        "the 150 classes of SceneParsing150, the first one wall: mmseg/datasets/ade.py of MMSegmentation",
        tuple((_ADE20K[at], _ADE20K[at + 1], _ADE20K[at + 2]) for at in range(0, len(_ADE20K), 3)),
    ),
    "hub": Palette(
        "class i is i * (2**25 - 1, 2**15 - 1, 2**21 - 1) mod 255: PyTorch Hub's pages of segmentation models",
        tuple(map(_by_rule, range(_MOST))),
    ),
}
NAMES = (OWN, *PALETTES, GREY)


def colours_of(name: str, classes: Sequence[ClassInfo]) -> tuple[Colour, ...] | None:
    """The colour of each class in the palette `name`; None for grey, which has none.

    Raises InputError for a name that is none of `NAMES`, and where a palette has fewer colours than there are classes.
    """
    if name == GREY:
        return None
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown palette {name!r}; {hint}there are: {', '.join(NAMES)}")
    known = tuple(each.colour for each in classes) if name == OWN else PALETTES[name].colours
    if len(classes) > len(known):
        raise InputError(
            f"palette {name!r} has {len(known)} colours, the model {len(classes)} classes; expected a colour for each: "
            f"choose another one, or {GREY!r} for ids without colours"
        )
    return known[: len(classes)]
