"""Pictures of panoptic maps: segments in their colours, errors by the rules of panoptic quality, what is refused."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import InputError
from segpipe.predictions import PanopticMap
from segpipe.report import panoptic, pictures
from segpipe.report.drawing import GAP, MARGIN, TEXT_SIZE, TITLE_SIZE
from segpipe.report.mistakes import MISPLACED
from segpipe.report.objects import FALSE, FOUND, MISSED, Colour, patches_of_map, shade
from segpipe.report.panoptic import BORDER
from segpipe.types import ClassInfo
from tests.fixtures.panoptic_maps import SIZE, panoptic_map

SKY, CAR, BUS = range(3)
CLASSES = (
    ClassInfo(name="sky", colour=(60, 120, 200)),
    ClassInfo(name="car", colour=(200, 40, 40), is_thing=True),
    ClassInfo(name="bus", colour=(40, 160, 40), is_thing=True),
)
SCALE = 10  # 640 // 60
TOP = MARGIN + TITLE_SIZE + 10 + TEXT_SIZE + 6
# A large id, as COCO's are: a colour of three bytes.
LARGE = 9_000_001


# Sky above; below two cars side by side, a third one, a crowd of cars, and a strip that nobody labelled.
TRUTH = panoptic_map(
    (1, SKY, (0, 0, 60, 12)),
    (LARGE, CAR, (0, 12, 15, 32)),
    (3, CAR, (15, 12, 30, 32)),
    (4, CAR, (30, 12, 45, 32)),
    (5, CAR, (45, 12, 60, 32)),
    crowds=(5,),
)
# The sky a row too high, one car right, one taken for a bus, one not seen, a car in the crowd.
PREDICTION = panoptic_map(
    (7, SKY, (0, 0, 60, 11)),
    (8, CAR, (0, 11, 15, 32)),
    (9, BUS, (15, 11, 30, 32)),
    (10, CAR, (45, 12, 60, 32)),
)


def photo() -> np.ndarray:
    return np.full((*SIZE, 3), 100, dtype=np.uint8)


def drawn(prediction: PanopticMap, truth: PanopticMap | None, title: str = "a") -> np.ndarray:
    data = pictures.draw(photo(), prediction, truth, classes=CLASSES, ignore_index=255, title=title)
    return np.asarray(Image.open(io.BytesIO(data)))


def pixel(sheet: np.ndarray, panel: int, x: int, y: int, dx: int = 5, dy: int = 5) -> Colour:
    """What the panel shows of pixel (x, y) of the image; dx and dy say where in its square."""
    w, h = SIZE[1] * SCALE, SIZE[0] * SCALE
    left, top = MARGIN + panel % 2 * (w + GAP), TOP + panel // 2 * (h + GAP + TEXT_SIZE + 6)
    red, green, blue = sheet[top + y * SCALE + dy, left + x * SCALE + dx].tolist()
    return red, green, blue


def over(grey: int, colour: Colour, opacity: float) -> Colour:
    red, green, blue = (round((1 - opacity) * grey + opacity * value) for value in colour)
    return red, green, blue


def test_segments_have_the_colours_of_their_class_and_things_their_own_shade() -> None:
    sheet = drawn(PREDICTION, TRUTH)
    assert pixel(sheet, 0, 20, 20) == (100, 100, 100)
    assert pixel(sheet, 1, 2, 2) == over(100, CLASSES[SKY].colour, 0.6)
    cars = [pixel(sheet, 1, x, 30) for x in (3, 18, 33, 48)]
    assert cars[0] == over(100, shade(CLASSES[CAR].colour, 0), 0.6)
    assert all(one != two for one, two in itertools.pairwise(cars))
    assert all(red > max(green, blue) for red, green, blue in cars)
    assert pixel(sheet, 2, 18, 30) == over(100, shade(CLASSES[BUS].colour, 0), 0.6)
    assert pixel(sheet, 1, 15, 20, dx=0) == pixel(sheet, 1, 5, 12, dy=0) == BORDER
    assert max(pixel(sheet, 1, 10, 36)) < 110, "nothing is said there: hatched"
    assert max(pixel(sheet, 2, 35, 20)) < 110


def test_errors_are_those_of_panoptic_quality() -> None:
    sheet = drawn(PREDICTION, TRUTH)
    plain = 120 + 100 // 2
    assert pixel(sheet, 3, 20, 5) == pixel(sheet, 3, 5, 25) == (plain, plain, plain)
    assert pixel(sheet, 3, 5, 11) == over(plain, MISPLACED, 0.7), "the sky's row that went to the car below"
    assert pixel(sheet, 3, 35, 20) == over(plain, MISSED, 0.7)
    assert pixel(sheet, 3, 20, 11) == over(plain, FALSE, 0.7), "sky that was found, but for the bus"
    both = {pixel(sheet, 3, 20, y, dx, dy) for y in (18, 20) for dx in range(10) for dy in range(10)}
    assert both == {over(plain, MISSED, 0.7), over(plain, FALSE, 0.7)}, "missed and false: striped"
    assert max(pixel(sheet, 3, 50, 20)) < 110, "a crowd is not counted"
    assert max(pixel(sheet, 3, 10, 36)) < 110, "neither is what nobody labelled"
    assert pixel(sheet, 3, 5, 32, dy=0) == FOUND, "where the car that was found ends"
    assert pixel(sheet, 3, 15, 20, dx=0) != FOUND, "the bus is false"
    assert pixel(sheet, 3, 0, 20, dx=0) != FOUND, "the image's border is none"


def test_captions_and_legend_say_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def compose(panels, entries, title):
        said.extend([caption for caption, _ in panels] + [name for name, _ in entries])
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(panoptic, "compose", compose)
    panoptic.draw(photo(), PREDICTION, TRUTH, classes=CLASSES, title="a")
    captions = ["image", "truth: 4 things, 1 of stuff", "prediction: 3 things, 1 of stuff"]
    kinds = ["found", "missed", "false", "pixels of another one found"]
    assert said == [
        *captions,
        "errors: 2 found, 2 missed, 1 false",
        *("sky", "car", "bus"),
        *kinds,
        "nothing said or not labelled or a crowd",
    ]
    said.clear()
    whole = panoptic_map((1, SKY, (0, 0, 60, 40)))
    panoptic.draw(photo(), whole, None, classes=CLASSES, title="a")
    assert said == ["image", "prediction: 0 things, 1 of stuff", "sky"]


NOTHING = panoptic_map()


@pytest.mark.parametrize(("prediction", "truth"), [(NOTHING, TRUTH), (PREDICTION, NOTHING), (NOTHING, NOTHING)])
def test_nothing_said_and_nothing_labelled_are_drawn(prediction: PanopticMap, truth: PanopticMap) -> None:
    assert drawn(prediction, truth).shape == (*drawn(PREDICTION, TRUTH).shape[:2], 3)


def test_the_same_arguments_give_the_same_bytes_and_no_truth_two_panels() -> None:
    twice = [panoptic.draw(photo(), PREDICTION, TRUTH, classes=CLASSES, title="a") for _ in range(2)]
    assert twice[0] == twice[1]
    assert drawn(PREDICTION, None).shape[0] < drawn(PREDICTION, TRUTH).shape[0]


def test_of_hundreds_of_segments_each_is_looked_at_in_its_box_alone() -> None:
    boxes = [(x, y, x + 3, y + 2) for y in range(0, 40, 2) for x in range(0, 60, 3)]
    crowded = panoptic_map(*((n, CAR, box) for n, box in enumerate(boxes, start=1)))
    patches = patches_of_map(crowded.ids_HW, list(range(1, len(boxes) + 1)))
    assert sum(patch.inside_hw.size for patch in patches) == crowded.ids_HW.size
    assert drawn(crowded, crowded).any()


def test_segments_of_a_map_are_cut_out_and_what_is_not_there_is_empty() -> None:
    first, last, none = patches_of_map(TRUTH.ids_HW, [3, LARGE, 6])
    assert (first.top, first.left, first.inside_hw.shape) == (12, 15, (20, 15))
    assert (last.top, last.left, bool(last.inside_hw.all())) == (12, 0, True)
    assert none.inside_hw.size == 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (dataclasses.replace(PREDICTION, ids_HW=PREDICTION.ids_HW[1:]), r"s/1: prediction is of \(39, 60\), the image"),
        (dataclasses.replace(PREDICTION, segments=PREDICTION.segments[:3]), "prediction: segment 10 is in its map or"),
        (dataclasses.replace(PREDICTION, ids_HW=np.zeros(SIZE, np.int32)), "prediction: segment 7 is in its map or"),
        (panoptic_map((1, 3, (0, 0, 9, 9))), "prediction: segment 1 is of class 3; expected 0 to 2"),
    ],
    ids=["size", "unnamed", "undrawn", "class"],
)
def test_what_does_not_fit_together_is_refused(prediction: PanopticMap, message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(prediction, TRUTH, title="s/1")
    with pytest.raises(InputError, match=message.replace("prediction", "truth")):
        drawn(PREDICTION, prediction, title="s/1")
