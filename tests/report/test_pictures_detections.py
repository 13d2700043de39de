"""Pictures of detected objects: what is painted where, what counts as found, missed and false, what is refused."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from segpipe import masks
from segpipe.errors import InputError
from segpipe.metrics.coco_match import match, overlaps
from segpipe.metrics.matching import matches
from segpipe.predictions import Detections, LabelMap
from segpipe.report import detections, pictures
from segpipe.report.drawing import GAP, MARGIN, TEXT_SIZE, TITLE_SIZE
from segpipe.report.objects import FALSE, FOUND, MISSED, OBJECT_COLOURS, Patch, contour, patches_of, shade, tints
from segpipe.types import ClassInfo

CELLS = (ClassInfo(name="background", colour=(0, 0, 0)), ClassInfo(name="cell", colour=(230, 159, 0), is_thing=True))
PETS = (
    ClassInfo(name="cat", colour=(200, 40, 40), is_thing=True),
    ClassInfo(name="dog", colour=(40, 40, 200), is_thing=True),
)
SIZE = (80, 120)
SCALE = 5  # 640 // 120
TOP = MARGIN + TITLE_SIZE + 10 + TEXT_SIZE + 6
Box = tuple[int, int, int, int]


def objects(
    boxes: list[Box], *, classes: list[int] | None = None, scores: list[float] | None = None, with_masks: bool = True
) -> Detections:
    """Full rectangles (x0, y0, x1, y1) in an image of SIZE."""
    painted = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros(SIZE, dtype=bool)
        mask[y0:y1, x0:x1] = True
        painted.append(masks.encode_rle(mask)["counts"])
    return Detections(
        size=SIZE,
        class_ids_N=np.array(classes or [1] * len(boxes), dtype=np.int64),
        scores_N=np.array(scores or [1.0] * len(boxes)),
        boxes_N4=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        masks=tuple(painted) if with_masks else None,
    )


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 90, (*SIZE, 3), dtype=np.uint8)


def drawn(
    prediction: Detections, truth: Detections | None, classes: tuple[ClassInfo, ...] = CELLS, title: str = "a"
) -> np.ndarray:
    data = pictures.draw(photo(), prediction, truth, classes=classes, ignore_index=255, title=title)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image)


def panel(sheet: np.ndarray, number: int) -> np.ndarray:
    """The middle pixel of each pixel of the image, in one of the four panels."""
    w, h = SIZE[1] * SCALE, SIZE[0] * SCALE
    left = MARGIN + number % 2 * (w + GAP)
    top = TOP + number // 2 * (h + GAP + TEXT_SIZE + 6)
    return sheet[top : top + h, left : left + w]


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 90) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < tolerance)


# Found with a shift of one pixel; missed; false.
TRUTH = objects([(5, 5, 25, 25), (40, 40, 60, 60)])
PREDICTION = objects([(6, 5, 26, 25), (80, 10, 100, 30)], scores=[0.9, 0.8])


def test_each_panel_shows_what_it_says() -> None:
    sheet = drawn(PREDICTION, TRUTH)
    image, truth, prediction, matched = (panel(sheet, n) for n in range(4))
    np.testing.assert_array_equal(image[2::SCALE, 2::SCALE], photo())
    for part, x, y, what in ((truth, 8, 21, 0), (truth, 43, 56, 1), (prediction, 8, 21, 0), (prediction, 83, 26, 1)):
        assert near(part[y * SCALE, x * SCALE], OBJECT_COLOURS[what], 100)
    for part, x, y in ((truth, 90, 20), (prediction, 50, 50), (truth, 1, 1), (matched, 15, 15)):
        red, green, blue = part[y * SCALE, x * SCALE].tolist()
        assert red == green == blue, "where nothing is drawn, the photograph is grey"
    # Contours run along the outermost pixels: of the prediction where it is right, else of what is wrong.
    assert tuple(matched[5 * SCALE, 15 * SCALE]) == FOUND
    assert tuple(matched[15 * SCALE, 6 * SCALE]) == FOUND
    assert tuple(matched[40 * SCALE, 50 * SCALE]) == MISSED
    assert tuple(matched[10 * SCALE, 90 * SCALE]) == FALSE
    assert near(matched[50 * SCALE, 50 * SCALE], MISSED, 120)
    assert len({matched[y, x].tobytes() for y, x in ((50 * SCALE, 50 * SCALE), (20 * SCALE, 90 * SCALE))}) == 2


def test_captions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []

    def compose(panels, entries, title):
        captions.extend([caption for caption, _ in panels] + [name for name, _ in entries])
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(detections, "compose", compose)
    doubtful = objects([(6, 5, 26, 25), (80, 10, 100, 30), (0, 0, 9, 9)], scores=[0.9, 0.8, 0.3])
    hopeless = objects([(6, 5, 26, 25), (80, 10, 100, 30)], scores=[0.31, 0.2])
    for prediction in (doubtful, hopeless, objects([(1, 1, 9, 9)])):
        detections.draw(photo(), prediction, TRUTH, classes=CELLS, title="a")
    legend = ["found", "missed", "false"]
    assert captions == [
        *("image", "truth: 2 objects", "prediction: 2 objects (and 1 of scores below 0.5)"),
        *("at IoU 0.5: 1 found, 1 missed, 1 false", *legend),
        *("image", "truth: 2 objects", "prediction: none of 2 scores 0.5; the best 0.31"),
        *("at IoU 0.5: 0 found, 2 missed, 0 false", *legend),
        *("image", "truth: 2 objects", "prediction: 1 object", "at IoU 0.5: 0 found, 2 missed, 1 false", *legend),
    ]


def test_a_class_of_objects_is_in_the_legend_only_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        detections, "compose", lambda p, e, t: seen.append([n for n, _ in e]) or Image.new("RGB", (1, 1))
    )
    for classes in (CELLS, PETS):
        detections.draw(photo(), PREDICTION, None, classes=classes, title="a")
    assert seen == [[], ["dog"]]


def test_objects_that_touch_differ_and_keep_to_the_colour_of_their_class() -> None:
    row = [Patch(0, 5 * n, np.ones((5, 5), dtype=bool)) for n in range(6)]
    own = tints(row, np.ones(6, dtype=np.int64), CELLS, by_object=True)
    assert set(own) <= set(OBJECT_COLOURS)
    several = tints(row, np.array([0, 0, 0, 1, 1, 0]), PETS, by_object=False)
    for colours in (own, several):
        assert all(one != two for one, two in itertools.pairwise(colours))
    assert several[0] == shade(PETS[0].colour, 0)
    assert all(red > blue for red, _, blue in (several[0], several[1], several[2], several[5]))
    assert all(blue > red for red, _, blue in several[3:5])


def test_boxes_without_masks_are_drawn_as_boxes() -> None:
    boxes = objects([(5, 5, 25, 25), (80, 10, 100, 30)], with_masks=False)
    sheet = drawn(boxes, dataclasses.replace(TRUTH, masks=None))
    prediction, matched = panel(sheet, 2), panel(sheet, 3)
    assert near(prediction[5 * SCALE, 15 * SCALE], OBJECT_COLOURS[0], 1)
    red, green, blue = prediction[20 * SCALE, 15 * SCALE].tolist()
    assert red == green == blue, "a box is not filled"
    assert tuple(matched[5 * SCALE, 15 * SCALE]) == FOUND
    assert tuple(matched[40 * SCALE, 50 * SCALE]) == MISSED


def test_a_mask_keeps_its_pixels_and_a_tiny_one_does_not_vanish() -> None:
    shape = np.zeros(SIZE, dtype=bool)
    shape[10:20, 30:33] = True
    shape[19, 30:50] = True
    rles = tuple(masks.encode_rle(mask)["counts"] for mask in (shape, np.zeros(SIZE), np.eye(*SIZE) * 0 + shape * 0))
    found = dataclasses.replace(objects([(0, 0, 9, 9)] * 3), masks=rles)
    same, empty, _ = patches_of(found, SIZE[::-1], what="a")
    assert (same.top, same.left, same.inside_hw.shape) == (10, 30, (10, 20))
    np.testing.assert_array_equal(same.inside_hw, shape[10:20, 30:50])
    assert empty.inside_hw.size == 0
    shrunk = patches_of(objects([(7, 7, 8, 8), (119, 79, 120, 80)]), (12, 8), what="a")
    assert [(p.top, p.left, p.inside_hw.tolist()) for p in shrunk] == [(1, 1, [[True]]), (7, 11, [[True]])]


def test_contours_of_touching_objects_lie_beside_each_other() -> None:
    picture = np.zeros((6, 12, 3), dtype=np.uint8)
    contour(picture, Patch(0, 0, np.ones((6, 6), dtype=bool)), (9, 0, 0))
    contour(picture, Patch(0, 6, np.ones((6, 6), dtype=bool)), (0, 9, 0))
    assert picture[3, :, 0].tolist() == [9, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]
    assert picture[3, :, 1].tolist() == [0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 9]


@pytest.mark.parametrize("with_masks", [True, False])
def test_what_is_found_is_what_the_measure_matches(with_masks: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        corners = rng.integers(0, 60, (14, 2))
        boxes = [(int(x), int(y), int(x) + 18, int(y) + 18) for x, y in corners]
        shifted = [
            (x + int(a), y + int(b), x + 18, y + 18)
            for (x, y, *_), (a, b) in zip(boxes, rng.integers(0, 9, (14, 2)), strict=True)
        ]
        truth = objects(boxes, with_masks=with_masks)
        found = objects(shifted, scores=rng.random(14).tolist(), with_masks=with_masks)
        order = np.argsort(-found.scores_N)

        def entries(each: Detections, places: np.ndarray) -> list[dict]:
            return [
                {"iscrowd": 0, "rle": {"size": list(SIZE), "counts": (each.masks or [b""] * 14)[n]}}
                | {"bbox": [*each.boxes_N4[n, :2], *(each.boxes_N4[n, 2:] - each.boxes_N4[n, :2])]}
                for n in places
            ]

        ious = overlaps(entries(truth, np.arange(14)), entries(found, order), "segm" if with_masks else "bbox")
        counted, _ = match(ious, np.zeros((1, 14), dtype=bool), np.zeros(14, dtype=bool))
        taken = matches(found, truth)
        assert (taken[order] >= 0).tolist() == counted[:, 0, 0].tolist()
        assert len(set(taken[taken >= 0].tolist())) == (taken >= 0).sum()


def test_a_detection_of_another_class_finds_nothing() -> None:
    assert matches(objects([(5, 5, 25, 25)], classes=[0]), objects([(5, 5, 25, 25)], classes=[1])).tolist() == [-1]


NOTHING = objects([])


@pytest.mark.parametrize(("prediction", "truth"), [(NOTHING, TRUTH), (PREDICTION, NOTHING), (NOTHING, NOTHING)])
@pytest.mark.parametrize("with_masks", [True, False])
def test_nothing_found_and_nothing_there_are_drawn(prediction: Detections, truth: Detections, with_masks: bool) -> None:
    if not with_masks:
        prediction, truth = dataclasses.replace(prediction, masks=None), dataclasses.replace(truth, masks=None)
    matched = panel(drawn(prediction, truth), 3)
    colours = {tuple(int(v) for v in pixel) for pixel in matched.reshape(-1, 3)}
    assert (FOUND in colours, MISSED in colours, FALSE in colours) == (False, len(truth) > 0, len(prediction) > 0)


def test_without_a_truth_image_and_prediction_stand_alone() -> None:
    alone, both = drawn(PREDICTION, None), drawn(PREDICTION, TRUTH)
    assert alone.shape[1] == both.shape[1]
    assert alone.shape[0] < both.shape[0]


def test_the_same_arguments_give_the_same_bytes() -> None:
    twice = [detections.draw(photo(), PREDICTION, TRUTH, classes=PETS, title="a") for _ in range(2)]
    assert twice[0] == twice[1]


def test_of_hundreds_of_objects_each_is_looked_at_in_its_box_alone() -> None:
    boxes = [(x, y, x + 5, y + 5) for y in range(0, 78, 4) for x in range(0, 116, 6)]
    crowded = objects(boxes)
    assert len(crowded) == 400
    areas = [(min(x1, SIZE[1]) - x0) * (min(y1, SIZE[0]) - y0) for x0, y0, x1, y1 in boxes]
    patches = patches_of(crowded, (SIZE[1], SIZE[0]), what="prediction")
    assert [patch.inside_hw.size for patch in patches] == areas
    assert drawn(crowded, crowded).any()


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (
            dataclasses.replace(PREDICTION, size=(80, 121)),
            r"s/1: prediction is of \(80, 121\), the image of \(80, 120\)",
        ),
        (dataclasses.replace(PREDICTION, class_ids_N=np.array([1, 2])), "prediction holds class 2; expected .* 0 to 1"),
        (dataclasses.replace(PREDICTION, class_ids_N=np.array([-1, 1])), "prediction holds class -1; expected"),
        (dataclasses.replace(PREDICTION, scores_N=np.ones(3)), r"2 class ids and scores of \(3,\); expected as many"),
        (dataclasses.replace(PREDICTION, masks=(b"0",)), r"2 class ids and masks of \(1,\)"),
        (dataclasses.replace(PREDICTION, scores_N=np.array([0.9, np.nan])), "scores or boxes that are no finite"),
        (dataclasses.replace(PREDICTION, masks=(b"0", b"\xff")), "prediction: a mask does not decode: run lengths"),
        (LabelMap(ids_HW=np.zeros(SIZE, dtype=np.uint8)), "the prediction is a LabelMap, the truth a Detections"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_together_is_refused(prediction: Detections, message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(prediction, TRUTH, title="s/1")
    if isinstance(prediction, Detections) and prediction.size != SIZE:
        with pytest.raises(InputError, match="truth is of"):
            drawn(PREDICTION, prediction)
