"""Contact sheets: image, labels and overlay of each sample where they belong, objects over the label map."""

import io

import numpy as np
from PIL import Image

from segpipe import masks
from segpipe.report.contact_sheet import EDGE, PANEL_WIDTH, draw_sheet
from segpipe.report.drawing import GAP, MARGIN, TEXT_SIZE, TITLE_SIZE, fit, legible
from segpipe.types import ClassInfo, Sample, Segment
from tests.fixtures.pictures import png

CLASSES = (
    ClassInfo(name="ground", colour=(10, 200, 30)),
    ClassInfo(name="car", colour=(200, 10, 30), is_thing=True),
)
HEIGHT, WIDTH = 24, 36
SCALE = PANEL_WIDTH // WIDTH
TOP = MARGIN + TITLE_SIZE + 10 + TITLE_SIZE + 6 + TEXT_SIZE + 4
GREY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def sample(**changes: object) -> Sample:
    fields = {"sample_id": "a", "image": png(GREY), "height": HEIGHT, "width": WIDTH, "group": "a", **changes}
    return Sample(**fields)  # type: ignore[arg-type]


def pixel(sheet: np.ndarray, panel: int, x: int, y: int) -> tuple[int, ...]:
    left = MARGIN + panel * (WIDTH * SCALE + GAP)
    return tuple(int(v) for v in sheet[TOP + y * SCALE + SCALE // 2, left + x * SCALE + SCALE // 2])


def drawn(*samples: Sample, classes: tuple[ClassInfo, ...] = CLASSES, **more: tuple[Sample, ...]) -> np.ndarray:
    splits = {"train": samples, **more}
    data = draw_sheet(splits, classes=classes, ignore_index=255, title="toy")
    assert data == draw_sheet(splits, classes=classes, ignore_index=255, title="toy")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_labels_have_the_colours_of_their_classes_and_lie_over_the_image() -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 20:], labels[0] = 1, 255
    sheet = drawn(sample(label_map=labels.tobytes()))
    assert pixel(sheet, 0, 5, 5) == (100, 100, 100)
    assert pixel(sheet, 1, 5, 5) == CLASSES[0].colour
    assert pixel(sheet, 1, 30, 5) == CLASSES[1].colour
    assert pixel(sheet, 2, 30, 5) == (155, 50, 61)  # 0.45 of the image, 0.55 of the class
    assert max(pixel(sheet, 1, 5, 0)) < 110  # hatched: nothing is labelled
    assert pixel(sheet, 2, 5, 0) == (100, 100, 100)


def test_objects_are_drawn_small_over_large_with_an_edge_and_crowds_hatched() -> None:
    def segment(number: int, rows: slice, columns: slice, class_id: int, crowd: bool = False) -> Segment:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[rows, columns] = 1
        rle = masks.encode_rle(mask)["counts"]
        return Segment(segment_id=number, class_id=class_id, area=int(mask.sum()), is_crowd=crowd, rle=rle)

    small = segment(1, slice(4, 10), slice(4, 10), 1)
    large = segment(2, slice(2, 20), slice(2, 20), 0)
    crowd = segment(3, slice(2, 20), slice(26, 34), 1, crowd=True)
    sheet = drawn(sample(segments=(small, large, crowd)))
    assert pixel(sheet, 1, 7, 7) == CLASSES[1].colour
    assert pixel(sheet, 1, 15, 15) == CLASSES[0].colour
    assert max(pixel(sheet, 1, 30, 10)) < 110
    left = MARGIN + (WIDTH * SCALE + GAP) + 2 * SCALE
    assert tuple(sheet[TOP + 12 * SCALE, left]) == EDGE


def test_samples_of_all_sizes_stand_below_each_other() -> None:
    wide = sample(label_map=bytes(HEIGHT * WIDTH))
    tall = sample(image=png(np.zeros((900, 300, 3), np.uint8)), height=900, width=300, label_map=bytes(900 * 300))
    one, two = drawn(wide), drawn(wide, tall)
    assert two.shape[0] > one.shape[0] + 300
    assert one.shape[1] == two.shape[1] == 3 * WIDTH * SCALE + 2 * GAP + 2 * MARGIN


def test_images_without_labels_stand_side_by_side_with_nothing_that_looks_like_a_label() -> None:
    extras = {"depth": png(np.zeros((HEIGHT, WIDTH), np.uint16))}
    for count, greys in ((1, 1), (3, 3), (4, 3)):
        sheet = drawn(*(sample(sample_id=str(number), extras=extras) for number in range(count)))
        assert [pixel(sheet, panel, 5, 5) for panel in range(greys)] == [(100, 100, 100)] * greys
        assert (sheet.shape[0] > TOP + 2 * HEIGHT * SCALE) == (count > 3)
    assert not (sheet == np.array(CLASSES[0].colour)).all(axis=2).any(), "a legend of nothing"


def test_names_are_drawn_in_letters_that_the_font_has() -> None:
    assert legible("Dächer <1> …") == "Dacher <1> …"
    assert legible("屋 🏠/ﬁn Å") == "<5C4B> <1F3E0>/fin A"
    assert fit("ü" * 100, 100, TEXT_SIZE).strip(".u") == ""


def test_a_labelled_image_without_objects_says_so() -> None:
    """Of a dataset of objects alone: somebody has looked, and there is none."""
    splits = {"train": (sample(),)}
    data = draw_sheet(splits, classes=CLASSES, ignore_index=255, title="toy", label_maps=False)
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert [pixel(sheet, panel, 5, 5) for panel in (0, 1, 2)] == [(100,) * 3, (238,) * 3, (100,) * 3]
    left = MARGIN + WIDTH * SCALE + GAP
    middle = sheet[TOP + HEIGHT * SCALE // 2 - 8 : TOP + HEIGHT * SCALE // 2 + 8, left : left + WIDTH * SCALE]
    assert middle.min() < 150, "a text"


def test_each_split_follows_the_other_with_its_name() -> None:
    one = sample(label_map=bytes(HEIGHT * WIDTH))
    other = sample(sample_id="b", label_map=bytes([1]) * (HEIGHT * WIDTH))
    both, longer = drawn(one, val=(other,)), drawn(one, other)
    assert both.shape[0] == longer.shape[0] + TITLE_SIZE + 6
    second = TITLE_SIZE + 6 + HEIGHT * SCALE + TEXT_SIZE + 10 + GAP
    left = MARGIN + WIDTH * SCALE + GAP
    assert tuple(both[TOP + second + 5, left + 5]) == CLASSES[1].colour
    heading = both[TOP + HEIGHT * SCALE + GAP : TOP + HEIGHT * SCALE + GAP + TITLE_SIZE, MARGIN : MARGIN + 80]
    assert heading.min() < 100


def test_a_background_is_not_laid_over_the_image_and_the_ground_of_a_street_is() -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 20:] = 1
    for name, colour in (("_background_", (100, 100, 100)), ("Background", (100, 100, 100)), ("ground", (50, 155, 61))):
        classes = (ClassInfo(name=name, colour=(10, 200, 30)), CLASSES[1])
        sheet = drawn(sample(label_map=labels.tobytes()), classes=classes)
        assert pixel(sheet, 1, 5, 5) == (10, 200, 30)
        assert pixel(sheet, 2, 5, 5) == colour, name
        assert pixel(sheet, 2, 30, 5) == (155, 50, 61)


def test_the_legend_names_the_classes_that_no_sample_shows() -> None:
    some, none = drawn(sample(label_map=bytes(HEIGHT * WIDTH))), ClassInfo(name="zebra", colour=(1, 2, 250))
    more = drawn(sample(label_map=bytes(HEIGHT * WIDTH)), classes=(*CLASSES, none))
    assert (more == np.array([1, 2, 250])).all(axis=2).any()
    assert not (some == np.array([1, 2, 250])).all(axis=2).any()


def test_the_name_of_a_class_stands_in_its_widest_part_where_there_is_room() -> None:
    """A swapped class map is read at once: the sky is called building."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 20:] = 1
    overlay = drawn(sample(label_map=labels.tobytes()))[TOP : TOP + HEIGHT * SCALE, -MARGIN - WIDTH * SCALE : -MARGIN]
    white = (overlay == 255).all(axis=2)
    seam = 20 * SCALE
    assert white[:, : seam - 1].any()
    assert white[:, seam + 2 :].any()
    labels[:] = 0
    labels[:1, 20:] = 1  # a strip of 10 pixels: no line of text fits in
    overlay = drawn(sample(label_map=labels.tobytes()))[TOP : TOP + HEIGHT * SCALE, -MARGIN - WIDTH * SCALE : -MARGIN]
    assert not (overlay[: SCALE - 1, seam + 2 :] == 255).all(axis=2).any()
