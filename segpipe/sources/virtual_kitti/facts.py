"""What is published of Virtual KITTI 2: scenes, conditions, cameras, classes, and what the values of its files mean."""

from __future__ import annotations

from segpipe.types import IGNORE_8BIT, ClassInfo

FRAMES = {"Scene01": 447, "Scene02": 233, "Scene06": 270, "Scene18": 339, "Scene20": 837}
VARIATIONS = (
    *("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right", "clone"),
    *("fog", "morning", "overcast", "rain", "sunset"),
)
CAMERAS = ("Camera_0", "Camera_1")
# colors.txt, the same in every scene.
PAINTED = (
    ("Terrain", (210, 0, 200)),
    ("Sky", (90, 200, 255)),
    ("Tree", (0, 199, 0)),
    ("Vegetation", (90, 240, 0)),
    ("Building", (140, 140, 140)),
    ("Road", (100, 60, 100)),
    ("GuardRail", (250, 100, 255)),
    ("TrafficSign", (255, 255, 0)),
    ("TrafficLight", (200, 200, 0)),
    ("Pole", (255, 130, 0)),
    ("Misc", (80, 80, 80)),
    ("Truck", (160, 60, 60)),
    ("Car", (255, 127, 80)),
    ("Van", (0, 139, 139)),
)
UNDEFINED = len(PAINTED)
THINGS = ("Truck", "Car", "Van")
CLASSES = tuple(ClassInfo(name=name, colour=colour, is_thing=name in THINGS) for name, colour in PAINTED)
COLOURS = {**{colour: number for number, (_, colour) in enumerate(PAINTED)}, (0, 0, 0): UNDEFINED}
TABLE = {**{number: number for number in range(UNDEFINED)}, UNDEFINED: IGNORE_8BIT}
RULES = (
    "masks are RGB, read by the colours of colors.txt; Undefined (black) is ignored",
    "an object's number is its trackID + 1, the same in all frames of a clip",
    "depth: 16-bit grey PNG, centimetres along the camera's axis, 65535 is 655.35 m or more (sky)",
    "flow: 16-bit RGB PNG, to the next frame: (2 * red / 65535 - 1) * (width - 1) and (2 * green / 65535 - 1) * "
    "(height - 1) pixels, blue 0 where it is not known; the last frame of a clip has none",
)
LICENCE = "CC BY-NC-SA 3.0 (europe.naverlabs.com/proxy-virtual-worlds-vkitti-2)"
