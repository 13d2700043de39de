"""The sheet of training crops: the pixels that were given, and their labels in the colours of the classes."""

import io

import numpy as np
from PIL import Image

from segpipe.report.drawing import GAP, MARGIN, TEXT_SIZE, TITLE_SIZE
from segpipe.report.inputs import PANEL_WIDTH, draw_inputs
from segpipe.types import ClassInfo

CLASSES = (ClassInfo(name="ground", colour=(10, 200, 30)), ClassInfo(name="roof", colour=(200, 10, 30)))
SIZE = (8, 16)
SCALE = PANEL_WIDTH // SIZE[1]


def drawn(labels: np.ndarray | None) -> np.ndarray:
    images = np.full((1, *SIZE, 3), (90, 60, 30), np.uint8)
    data = draw_inputs(
        images.tobytes(),
        None if labels is None else labels.astype(np.int32).tobytes(),
        size=SIZE,
        classes=CLASSES,
        ignore_index=255,
        title="unet: crops",
    )
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pixel(sheet: np.ndarray, panel: int, x: int, y: int) -> tuple[int, ...]:
    top = MARGIN + TITLE_SIZE + 10 + TEXT_SIZE + 6
    left = MARGIN + panel * (PANEL_WIDTH + GAP)
    return tuple(int(v) for v in sheet[top + y * SCALE + SCALE // 2, left + x * SCALE + SCALE // 2])


def test_labels_stand_beside_their_crop() -> None:
    labels = np.zeros((1, *SIZE), np.int64)
    labels[0, 2:, 8:] = 1
    sheet = drawn(labels)
    assert pixel(sheet, 0, 3, 3) == (90, 60, 30)
    assert pixel(sheet, 1, 3, 3) == CLASSES[0].colour
    assert pixel(sheet, 1, 12, 5) == CLASSES[1].colour


def test_what_is_not_labelled_has_no_classes_colour() -> None:
    sheet = drawn(np.full((1, *SIZE), 255))
    assert pixel(sheet, 1, 3, 3) not in {info.colour for info in CLASSES}


def test_crops_without_a_map_stand_alone() -> None:
    sheet = drawn(None)
    assert pixel(sheet, 0, 3, 3) == (90, 60, 30)
