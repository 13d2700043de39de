"""The label table of Cityscapes, which BDD100K and GTA5 share: 34 ids in the files, of which 19 are scored.

Source: Cordts et al. 2016; the ids, train ids and colours are those of cityscapesScripts' labels.py. Part of `reading`.
"""

from __future__ import annotations

from segpipe.types import IGNORE_8BIT, ClassInfo

NUM_IDS = 35  # 34 is the licence plate of GTA5, which Cityscapes writes as -1
# (label id in the files, name, colour, is it counted one by one); the place in this table is the train id
_SCORED = (
    (7, "road", (128, 64, 128), False),
    (8, "sidewalk", (244, 35, 232), False),
    (11, "building", (70, 70, 70), False),
    (12, "wall", (102, 102, 156), False),
    (13, "fence", (190, 153, 153), False),
    (17, "pole", (153, 153, 153), False),
    (19, "traffic light", (250, 170, 30), False),
    (20, "traffic sign", (220, 220, 0), False),
    (21, "vegetation", (107, 142, 35), False),
    (22, "terrain", (152, 251, 152), False),
    (23, "sky", (70, 130, 180), False),
    (24, "person", (220, 20, 60), True),
    (25, "rider", (255, 0, 0), True),
    (26, "car", (0, 0, 142), True),
    (27, "truck", (0, 0, 70), True),
    (28, "bus", (0, 60, 100), True),
    (31, "train", (0, 80, 100), True),
    (32, "motorcycle", (0, 0, 230), True),
    (33, "bicycle", (119, 11, 32), True),
)
ROAD_CLASSES = tuple(ClassInfo(name=name, colour=colour, is_thing=is_thing) for _, name, colour, is_thing in _SCORED)
# What is in the files -> class id. Ids that are not scored (unlabelled, parking, caravan, ...) are ignored.
LABEL_IDS = {
    **dict.fromkeys(range(NUM_IDS), IGNORE_8BIT),
    **{label_id: class_id for class_id, (label_id, *_) in enumerate(_SCORED)},
    IGNORE_8BIT: IGNORE_8BIT,
}
TRAIN_IDS = {**{class_id: class_id for class_id in range(len(_SCORED))}, IGNORE_8BIT: IGNORE_8BIT}
