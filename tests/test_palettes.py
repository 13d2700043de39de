"""Palettes: the values as they were published."""

import hashlib

import pytest

from segpipe import palettes
from segpipe.errors import InputError
from segpipe.palettes import PALETTES, colours_of
from segpipe.types import ClassInfo

# (palette, class id, colour): VOClabelcolormap.m; labels.py of cityscapesScripts; SegNet's test script; ADE20K's wall,
# building, person, road, skyscraper (the same as road) and flag.
PUBLISHED = [
    ("voc", 0, (0, 0, 0)),
    ("voc", 1, (128, 0, 0)),
    ("voc", 15, (192, 128, 128)),
    ("voc", 20, (0, 64, 128)),
    ("voc", 255, (224, 224, 192)),
    ("cityscapes", 0, (128, 64, 128)),
    ("cityscapes", 10, (70, 130, 180)),
    ("cityscapes", 18, (119, 11, 32)),
    ("camvid", 0, (128, 128, 128)),
    ("camvid", 4, (60, 40, 222)),
    ("camvid", 10, (0, 128, 192)),
    ("camvid31", 0, (64, 128, 64)),
    ("camvid31", 30, (64, 192, 0)),
    ("ade20k", 0, (120, 120, 120)),
    ("ade20k", 1, (180, 120, 120)),
    ("ade20k", 12, (150, 5, 61)),
    ("ade20k", 6, (140, 140, 140)),
    ("ade20k", 48, (140, 140, 140)),
    ("ade20k", 149, (92, 0, 255)),
    # 2**25 - 1, 2**15 - 1 and 2**21 - 1 leave 1, 127 and 31 when divided by 255: twice that is still below it.
    ("hub", 0, (0, 0, 0)),
    ("hub", 1, (1, 127, 31)),
    ("hub", 2, (2, 254, 62)),
    ("hub", 3, (3, 126, 93)),
]


@pytest.mark.parametrize(("name", "class_id", "colour"), PUBLISHED)
def test_values_as_published(name: str, class_id: int, colour: tuple[int, int, int]) -> None:
    assert PALETTES[name].colours[class_id] == colour


# The first digits of SHA-256 over the bytes of every colour, as read from the files that were published: palette of
# mmseg/datasets/ade.py; labels.py of cityscapesScripts by train id; label_colors.txt of CamVid; the colours of
# Scripts/test_segmentation_camvid.py of SegNet.
WHOLE = {
    "ade20k": "ce475c9151035eff",
    "cityscapes": "5af5a8d200c61cb3",
    "camvid31": "34db25e30496ca50",
    "camvid": "ea47b7c4a518cb20",
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_colour_is_as_published(name: str) -> None:
    colours = bytes(part for colour in PALETTES[name].colours for part in colour)
    assert hashlib.sha256(colours).hexdigest().startswith(WHOLE[name])


def test_the_bits_of_a_class_are_dealt_to_the_colours_of_voc() -> None:
    """As VOClabelcolormap.m does it: three bits of the id at a time, the lowest into the highest of each colour."""
    for class_id, colour in enumerate(PALETTES["voc"].colours):
        dealt = [sum((class_id >> (3 * at + part) & 1) << (7 - at) for at in range(8)) for part in range(3)]
        assert list(colour) == dealt


def test_how_many_classes_each_has() -> None:
    lengths = {name: len(palette.colours) for name, palette in PALETTES.items()}
    assert lengths == {"voc": 256, "cityscapes": 19, "camvid": 11, "camvid31": 31, "ade20k": 150, "hub": 256}
    assert all(0 <= part <= 255 for each in PALETTES.values() for colour in each.colours for part in colour)
    assert all(each.source for each in PALETTES.values())


def test_a_palette_for_a_models_classes() -> None:
    classes = [ClassInfo(name=str(k), colour=(k, 2, 3)) for k in range(12)]
    assert colours_of(palettes.OWN, classes) == tuple((k, 2, 3) for k in range(12))
    assert colours_of(palettes.GREY, classes) is None
    assert colours_of("ade20k", classes) == PALETTES["ade20k"].colours[:12]
    with pytest.raises(InputError, match="'camvid' has 11 colours, the model 12 classes"):
        colours_of("camvid", classes)
    with pytest.raises(InputError, match="'cityscape'; did you mean 'cityscapes'"):
        colours_of("cityscape", classes)
