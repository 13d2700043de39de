"""Pictures of keypoints: limbs where COCO has them, dots elsewhere, what is far off in red."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import InputError
from segpipe.predictions import Poses
from segpipe.report.objects import FOUND, MISSED, OBJECT_COLOURS
from segpipe.report.pictures import draw
from segpipe.report.poses import LIMBS
from segpipe.types import ClassInfo
from tests.fixtures.figures import CLASSES, figure_samples

SIZE = (90, 120)
GREY_HW3 = np.full((*SIZE, 3), 128, np.uint8)
LEFT = next(iter(LIMBS))


def poses(num_keypoints: int, *, objects: int = 1, shift: float = 0.0) -> Poses:
    """Keypoints on a diagonal, `shift` pixels to the right; boxes of 80 pixels."""
    places = np.linspace(15, 75, num_keypoints)
    points = np.stack([places + shift, places, np.full(num_keypoints, 2.0)], axis=1)
    return Poses(
        size=SIZE,
        class_ids_N=np.zeros(objects, np.int64),
        scores_N=np.ones(objects),
        boxes_N4=np.tile([5.0, 5.0, 85.0, 85.0], (objects, 1)),
        points_NP3=np.tile(points, (objects, 1, 1)),
    )


def page(prediction: Poses, truth: Poses | None, classes: tuple[ClassInfo, ...] = CLASSES) -> np.ndarray:
    data = draw(GREY_HW3, prediction, truth, classes=classes, ignore_index=255, title="t")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(axis=2).sum())


def test_the_same_arguments_give_the_same_bytes() -> None:
    arguments: dict[str, Any] = {"classes": CLASSES, "ignore_index": 255, "title": "t"}
    one, two = (draw(GREY_HW3, poses(17), poses(17), **arguments) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("num_keypoints", "limbs"), [(17, True), (5, False), (16, False)])
def test_only_cocos_joints_have_limbs(num_keypoints: int, limbs: bool) -> None:
    found = page(poses(num_keypoints), None)
    assert (pixels(found, (255, 160, 60)) > 300) == limbs, "the right side's colour, beyond the legend"
    assert (pixels(found, OBJECT_COLOURS[0]) > 0) != limbs


@pytest.mark.parametrize(("shift", "colour", "other"), [(7.0, FOUND, MISSED), (9.0, MISSED, FOUND)])
def test_what_is_a_tenth_of_the_box_away_is_right(
    shift: float, colour: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    """The box is 80 pixels long. The swatches of the legend have the colours, too."""
    found = page(poses(17, shift=shift), poses(17))
    assert pixels(found, colour) > 500 > 250 > pixels(found, other)


def test_a_keypoint_in_doubt_is_not_drawn() -> None:
    sure, doubtful = poses(5), poses(5)
    doubtful.points_NP3[:, 1:, 2] = 0.1
    shown = [sum(pixels(page(each, None), colour) for colour in OBJECT_COLOURS[1:5]) for each in (sure, doubtful)]
    assert shown[0] > shown[1] + 200, "the legend alone is left"


def test_without_truth_there_are_two_panels_and_of_another_number_three() -> None:
    alone, both, other = page(poses(5), None), page(poses(5), poses(5)), page(poses(5), poses(5, objects=2))
    assert alone.shape[0] < both.shape[0]
    assert pixels(both, FOUND) > pixels(other, FOUND) == 0


@pytest.mark.parametrize("objects", [0, 1, 30])
def test_any_number_of_objects(objects: int) -> None:
    assert page(poses(17, objects=objects), poses(17, objects=objects)).ndim == 3


def test_a_point_outside_of_the_image_is_no_trouble() -> None:
    assert page(poses(17, shift=-500.0), poses(17)).ndim == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (91, 120)}, r"t: prediction is of \(91, 120\), the image of \(90, 120\)"),
        ({"class_ids_N": np.array([2])}, r"holds classes \[2\]; expected 0 to 1"),
        ({"class_ids_N": np.array([0, 0])}, "has 2 class ids, and scores, boxes and points of"),
        ({"points_NP3": np.zeros((1, 17, 2))}, "has 1 class ids, and scores"),
        ({"points_NP3": np.full((1, 17, 3), np.nan)}, "no finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        page(dataclasses.replace(poses(17), **changes), None)


def test_a_figure_as_the_fixture_draws_it() -> None:
    """The image of the sample itself, with its truth as the prediction: every joint right, nothing wrong."""
    from segpipe.tasks.keypoints import KeypointsOps

    sample = next(figure_samples("test", 1))
    truth = KeypointsOps(CLASSES, 255).truth(sample)
    image_HW3 = np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB"))
    data = draw(image_HW3, truth, truth, classes=CLASSES, ignore_index=255, title=sample.sample_id)
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels(found, LEFT) > 500
    assert pixels(found, FOUND) > 300 > pixels(found, MISSED)
