"""Palettes: the values as they were published."""

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
