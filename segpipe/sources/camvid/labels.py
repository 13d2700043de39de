"""CamVid's labels: 32 colours as they were painted, and the eleven classes that the field scores. Part of `camvid`.

Source: label_colors.txt of the Cambridge-driving Labelled Video Database (Brostow, Fauqueur, Cipolla 2009) for the
colours; which of the 32 make up each of SegNet's eleven classes, as MathWorks' SegNet example documents it
(`camvidPixelLabelIDs`: those 31 without void).
"""

from __future__ import annotations

from segpipe.types import ClassInfo

EXPECTED = {"train": 367, "val": 101, "test": 233}  # of SegNet's lists
# (name, colour, which of the eleven it belongs to), in the order of label_colors.txt without Void.
_LABELS = (
    ("Animal", (64, 128, 64), "Pedestrian"),
    ("Archway", (192, 0, 128), "Building"),
    ("Bicyclist", (0, 128, 192), "Bicyclist"),
    ("Bridge", (0, 128, 64), "Building"),
    ("Building", (128, 0, 0), "Building"),
    ("Car", (64, 0, 128), "Car"),
    ("CartLuggagePram", (64, 0, 192), "Pedestrian"),
    ("Child", (192, 128, 64), "Pedestrian"),
    ("Column_Pole", (192, 192, 128), "Pole"),
    ("Fence", (64, 64, 128), "Fence"),
    ("LaneMkgsDriv", (128, 0, 192), "Road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "Road"),
    ("Misc_Text", (128, 128, 64), "SignSymbol"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
    ("OtherMoving", (128, 64, 64), "Car"),
    ("ParkingBlock", (64, 192, 128), "Pavement"),
    ("Pedestrian", (64, 64, 0), "Pedestrian"),
    ("Road", (128, 64, 128), "Road"),
    ("RoadShoulder", (128, 128, 192), "Pavement"),
    ("Sidewalk", (0, 0, 192), "Pavement"),
    ("SignSymbol", (192, 128, 128), "SignSymbol"),
    ("Sky", (128, 128, 128), "Sky"),
    ("SUVPickupTruck", (64, 128, 192), "Car"),
    ("TrafficCone", (0, 0, 64), "Pole"),
    ("TrafficLight", (0, 64, 64), "SignSymbol"),
    ("Train", (192, 64, 128), "Car"),
    ("Tree", (128, 128, 0), "Tree"),
    ("Truck_Bus", (192, 128, 192), "Car"),
    ("Tunnel", (64, 0, 64), "Building"),
    ("VegetationMisc", (192, 192, 0), "Tree"),
    ("Wall", (64, 192, 0), "Building"),
)
ALL = tuple(ClassInfo(name=name, colour=colour) for name, colour, _ in _LABELS)
# In the order and colours of SegNet's test script.
ELEVEN = tuple(
    ClassInfo(name=name, colour=colour)
    for name, colour in (
        ("Sky", (128, 128, 128)),
        ("Building", (128, 0, 0)),
        ("Pole", (192, 192, 128)),
        ("Road", (128, 64, 128)),
        ("Pavement", (60, 40, 222)),
        ("Tree", (128, 128, 0)),
        ("SignSymbol", (192, 128, 128)),
        ("Fence", (64, 64, 128)),
        ("Car", (64, 0, 128)),
        ("Pedestrian", (64, 64, 0)),
        ("Bicyclist", (0, 128, 192)),
    )
)
# Colour -> number: from 256 on in the order of `ALL`, Void last, so that no grey mask of some other order can pass.
FIRST = 256
VOID = FIRST + len(_LABELS)
COLOURS = {**{colour: number for number, (_, colour, _) in enumerate(_LABELS, start=FIRST)}, (0, 0, 0): VOID}
_PLACES = {info.name: class_id for class_id, info in enumerate(ELEVEN)}
# Number -> class id, of all labels and of the eleven.
TO_ALL = {number: number - FIRST for number in range(FIRST, VOID)}
TO_ELEVEN = {number: _PLACES[kind] for number, (_, _, kind) in enumerate(_LABELS, start=FIRST)}
