"""The classes of the made-up streets and the colours that things may have there.

Colours overlap between classes on purpose (grey houses, grey roads, grey cars; clothes of any colour), so that a model
has to look at shape and place. Below world.py and paint.py.
"""

from __future__ import annotations

from segpipe.types import ClassInfo

Colour = tuple[int, int, int]

CLASSES = (
    ClassInfo(name="sky", colour=(70, 130, 180)),
    ClassInfo(name="building", colour=(110, 80, 80)),
    ClassInfo(name="road", colour=(128, 64, 128)),
    ClassInfo(name="tree", colour=(107, 142, 35)),
    ClassInfo(name="car", colour=(0, 0, 190), is_thing=True),
    ClassInfo(name="person", colour=(220, 20, 60), is_thing=True),
    ClassInfo(name="pole", colour=(190, 190, 190)),
    ClassInfo(name="sign", colour=(250, 190, 0), is_thing=True),
)
SKY, BUILDING, ROAD, TREE, CAR, PERSON, POLE, SIGN = range(len(CLASSES))

CAR_COLOURS: tuple[Colour, ...] = (
    (190, 30, 30),
    (28, 60, 140),
    (225, 225, 228),
    (40, 42, 46),
    (150, 153, 158),
    (96, 100, 104),
    (206, 168, 40),
    (40, 110, 70),
    (170, 90, 40),
    (120, 160, 190),
    (96, 30, 60),
    (214, 205, 180),
)
CLOTHES: tuple[Colour, ...] = (
    (35, 38, 50),
    (60, 75, 110),
    (150, 40, 45),
    (205, 200, 190),
    (70, 95, 60),
    (200, 150, 60),
    (110, 80, 60),
    (160, 90, 150),
    (60, 140, 150),
    (100, 100, 104),
    (230, 120, 50),
)
SKINS: tuple[Colour, ...] = ((236, 196, 168), (214, 164, 126), (166, 114, 80), (104, 70, 50))
HAIRS: tuple[Colour, ...] = ((40, 30, 25), (90, 60, 35), (200, 165, 95), (120, 120, 122), (25, 25, 28))
FACADES: tuple[Colour, ...] = (
    (168, 92, 72),
    (206, 188, 150),
    (150, 150, 152),
    (112, 114, 118),
    (190, 160, 120),
    (140, 70, 60),
    (214, 208, 196),
    (120, 130, 140),
    (160, 120, 90),
    (190, 150, 150),
    (140, 150, 120),
)
CROWNS: tuple[Colour, ...] = ((52, 92, 40), (74, 110, 44), (40, 78, 48), (98, 118, 50), (150, 110, 40), (120, 70, 40))
# top of the sky, sky at the horizon, light on the ground
SKIES: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((70, 130, 205), (186, 212, 236), (255, 250, 240)),
    ((100, 150, 210), (214, 224, 232), (255, 252, 246)),
    ((168, 174, 182), (206, 208, 210), (236, 240, 246)),
    ((120, 130, 150), (232, 190, 150), (255, 226, 190)),
    ((60, 72, 120), (226, 140, 100), (232, 186, 160)),
    ((44, 52, 84), (110, 104, 128), (168, 172, 206)),
)
