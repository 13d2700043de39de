"""Pictures of predictions: what is drawn where, in which colour, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import InputError
from segpipe.report.drawing import GAP, MARGIN, TEXT_SIZE, TITLE_SIZE
from segpipe.report.overlay import WRONG, draw
from segpipe.types import ClassInfo

CLASSES = (
    ClassInfo(name="sky", colour=(10, 200, 30)),
    ClassInfo(name="road", colour=(200, 10, 30)),
    ClassInfo(name="car", colour=(30, 10, 200)),
)
TOP = MARGIN + TITLE_SIZE + 10 + TEXT_SIZE + 6


def picture(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image)


def example(height: int = 24, width: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, a prediction and a truth: the left half is road, one column of it predicted as car, one row ignored."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[:, : width // 2] = 1
    prediction = labels.copy()
    prediction[:, 0] = 2
    labels[0] = 255
    return image, prediction, labels


def drawn(image: np.ndarray, prediction: np.ndarray, labels: np.ndarray | None, title: str = "a") -> np.ndarray:
    return picture(draw(image, prediction, labels, classes=CLASSES, ignore_index=255, title=title))


def test_the_four_panels_hold_image_truth_prediction_and_errors() -> None:
    image, prediction, labels = example()
    sheet = drawn(image, prediction, labels)
    scale = 15  # 480 // 32
    w, h = 32 * scale, 24 * scale
    right, below = MARGIN + w + GAP, TOP + h + GAP + TEXT_SIZE + 6

    def pixel(left: int, top: int, x: int, y: int) -> tuple[int, ...]:
        return tuple(int(v) for v in sheet[top + y * scale + scale // 2, left + x * scale + scale // 2])

    for x, y in ((0, 5), (3, 20), (31, 23)):
        assert pixel(MARGIN, TOP, x, y) == tuple(image[y, x])
        assert pixel(right, TOP, x, y) == CLASSES[labels[y, x]].colour
        assert pixel(MARGIN, below, x, y) == CLASSES[prediction[y, x]].colour
    red, green, blue = pixel(right, below, 0, 5)
    assert abs(red - WRONG[0]) < 45
    assert red > 2 * max(green, blue)
    assert len(set(pixel(right, below, 9, 9))) == 1  # a right pixel is grey
    assert max(pixel(right, below, 9, 0)) < 110  # an unlabelled one is dark


@pytest.mark.parametrize("labelled", [True, False])
def test_what_a_model_is_unsure_of_is_a_panel_more(labelled: bool) -> None:
    """Of a tall image, whose panels stand in one row: black where it is sure, white where it is least so."""
    image, prediction, labels = example(60, 20)
    uncertainty = np.zeros((60, 20), dtype=np.float32)
    uncertainty[10:, 4], uncertainty[10:, 5] = 0.02, 0.01
    truth = labels if labelled else None
    arguments = {"classes": CLASSES, "ignore_index": 255, "title": "a"}
    sheet = picture(draw(image, prediction, truth, uncertainty_HW=uncertainty, **arguments))
    panel = 2 + 2 * labelled  # those before it
    left, top = MARGIN + panel % 4 * (160 + GAP), TOP + panel // 4 * (TEXT_SIZE + 6 + 480 + GAP)
    shown = sheet[top : top + 480, left : left + 160]
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[200, 4 * 8 + 4].tolist() == [255, 255, 255]
    red, green, blue = shown[200, 5 * 8 + 4].tolist()
    assert red == 255 > green > blue == 0
    sure = picture(draw(image, prediction, truth, uncertainty_HW=0 * uncertainty, **arguments))
    assert not sure[top : top + 480, left : left + 160].any()
    with pytest.raises(InputError, match=r"a: uncertainty is \(60, 19\), the image \(60, 20\); they must be equal"):
        draw(image, prediction, truth, uncertainty_HW=uncertainty[:, 1:], **arguments)


def test_a_thin_uncertain_edge_of_a_large_image_is_not_lost() -> None:
    image, prediction, labels = example(960, 1280)
    uncertainty = np.zeros((960, 1280), dtype=np.float32)
    uncertainty[:, 601] = 0.1
    sheet = picture(
        draw(image, prediction, labels, uncertainty_HW=uncertainty, classes=CLASSES, ignore_index=255, title="a")
    )
    below = TOP + 2 * (TEXT_SIZE + 6 + 360 + GAP)
    assert sheet[below : below + 360, MARGIN : MARGIN + 480].any(axis=2).all(axis=0).sum() == 1


def test_the_same_arguments_give_the_same_bytes() -> None:
    arguments = {"classes": CLASSES, "ignore_index": 255, "title": "a"}
    assert draw(*example(), **arguments) == draw(*example(), **arguments)


def test_without_labels_only_image_and_prediction_are_drawn() -> None:
    image, prediction, labels = example()
    assert drawn(image, prediction, None).shape[0] < drawn(image, prediction, labels).shape[0]
    assert drawn(image, prediction, None).shape[1] == drawn(image, prediction, labels).shape[1]


def test_a_tall_image_is_drawn_in_one_row() -> None:
    sheet = drawn(*example(60, 20))
    assert sheet.shape[1] == 4 * 160 + 3 * GAP + 2 * MARGIN


def test_large_and_one_pixel_images_become_panels_of_readable_size() -> None:
    large, single = drawn(*example(1200, 1600)), drawn(*example(1, 1))
    assert large.shape[1] == single.shape[1] == 2 * 480 + GAP + 2 * MARGIN


def test_16_bit_labels_with_their_own_ignore_index_are_drawn() -> None:
    image, prediction, labels = example()
    wide = labels.astype(np.uint16)
    wide[labels == 255] = 65535
    data = draw(image, prediction, wide, classes=CLASSES, ignore_index=65535, title="a")
    np.testing.assert_array_equal(picture(data), drawn(image, prediction, labels))


def test_an_image_without_any_label_is_drawn() -> None:
    image, prediction, labels = example()
    assert drawn(image, prediction, np.full_like(labels, 255)).shape[2] == 3


def test_a_long_title_does_not_widen_the_picture() -> None:
    assert drawn(*example(), title="x" * 500).shape == drawn(*example()).shape


def test_what_does_not_fit_together_is_refused() -> None:
    image, prediction, labels = example()
    with pytest.raises(InputError, match="s/1: image is float64"):
        drawn(image.astype(float), prediction, labels, title="s/1")
    with pytest.raises(InputError, match=r"prediction is \(23, 32\), the image \(24, 32\)"):
        drawn(image, prediction[1:], labels)
    with pytest.raises(InputError, match="truth holds 7; expected class ids 0 to 2"):
        drawn(image, prediction, np.full_like(labels, 7))
    with pytest.raises(InputError, match="prediction holds 255; expected class ids 0 to 2"):
        drawn(image, np.full_like(prediction, 255), labels)
