"""Objects and segments on cards and pages of a night: their colours, what is painted as wrong, what is said of it."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segpipe.report import mistakes, sketched
from segpipe.report.card import MOST_BYTES, CardFacts, render_card
from segpipe.report.objects import FALSE, FOUND, MISSED, OBJECT_COLOURS
from segpipe.report.side_by_side import NightFacts, render_night
from segpipe.sketches import Objects, Sketch
from segpipe.types import ClassInfo, Task
from tests.fixtures.object_pages import CELLS, SIZE, STREET, cases, object_card, object_night
from tests.fixtures.object_pages import sketched as sketch_of
from tests.fixtures.page_rules import Page, check_image, check_page, data_of
from tests.fixtures.pages import HOSTILE, HOSTILE_FILE

TASKS = (Task.INSTANCE, Task.DETECTION, Task.PANOPTIC)
BOTH = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def cards() -> dict[Task, Page]:
    return {task: check_page(render_card(object_card(task))) for task in TASKS}


@pytest.fixture(scope="module")
def nights() -> dict[Task, tuple[NightFacts, Page]]:
    return {task: (facts, check_page(render_night(facts))) for task in TASKS for facts in [object_night(task)]}


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).convert("RGBA"))


def test_what_was_found_has_the_colour_of_the_true_object() -> None:
    truth, said = sketch_of(Task.INSTANCE, 0), sketch_of(Task.INSTANCE, 0, 2)
    true_colours = sketched.colours(truth, CELLS, whole=False)
    assert len(set(true_colours)) > 4
    assert set(true_colours) <= set(OBJECT_COLOURS)
    colours = sketched.colours(said, CELLS, whole=False, truth=true_colours)
    assert said.objects is not None
    assert len(said.objects.found) == 5
    assert all(colours[own - 1] == true_colours[true - 1] for true, own in said.objects.found)
    assert len(colours) == 6, "and the false one has one, too"


def test_segments_have_shades_of_their_class_s_colour_and_stuff_has_its_own() -> None:
    colours = sketched.colours(sketch_of(Task.PANOPTIC, 0), STREET, whole=True)
    assert colours[:2] == [STREET[0].colour, STREET[1].colour]
    assert not set(colours) & set(OBJECT_COLOURS)


def test_a_map_of_objects_is_clear_where_there_is_none_and_parts_those_that_touch() -> None:
    found = Sketch(ids_hw=np.array([[0, 1, 1, 2], [0, 0, 0, 2]]), objects=Objects(class_ids=(1, 1)))
    rgba = pixels(sketched.flat(found, [(1, 2, 3), (4, 5, 6)]))
    assert rgba[..., 3].tolist() == [[0, 255, 255, 255], [0, 0, 0, 255]]
    assert [tuple(rgba[y, x, :3].tolist()) for y, x in ((0, 1), (0, 3), (1, 3))] == [(1, 2, 3), (255,) * 3, (4, 5, 6)]


def test_mistakes_are_painted_by_what_they_are() -> None:
    true_HW, said_HW = np.zeros((2, 12, 48), np.int64)
    true_HW[2:10, 2:10], said_HW[3:9, 2:10] = 1, 1  # found
    true_HW[2:10, 14:22], true_HW[2:10, 26:34] = 2, 3  # missed; found, but the next one reaches into it
    said_HW[2:10, 26:32], said_HW[2:10, 32:36], said_HW[2:10, 40:46] = 2, 3, 4
    true_HW[2:10, 34:36] = 4
    said = Objects(class_ids=(1,) * 4, found=((1, 1), (3, 2), (4, 3)), missed=(2,), false=(4,))
    shown = Image.fromarray(np.full((12, 48, 3), 100, np.uint8))
    painted_HW3 = mistakes.paint(shown, true_HW, said_HW, said, is_whole=False)
    at = {name: tuple(painted_HW3[y, x].tolist()) for name, (y, x) in AT.items()}
    assert at["border of what was found"] == FOUND
    assert at["border of what was missed"] == MISSED
    assert at["border of what is false"] == FALSE
    assert at["nothing"] == at["inside of what was found"] == at["rim of what was found"] == (170, 170, 170)
    assert np.argmax(at["inside of what was missed"]) == 0
    assert at["taken by another"] != (170, 170, 170)
    whole_HW3 = mistakes.paint(shown, true_HW, said_HW, said, is_whole=True)
    assert tuple(whole_HW3[0, 0].tolist()) != (170, 170, 170), "hatched: a panoptic truth says nothing there"
    assert tuple(whole_HW3[2, 5].tolist()) != (170, 170, 170), "of what was found, a row is said to be nothing"


AT = {
    "border of what was found": (3, 2),
    "inside of what was found": (6, 6),
    "rim of what was found": (2, 6),
    "border of what was missed": (2, 14),
    "inside of what was missed": (6, 18),
    "border of what is false": (2, 40),
    "taken by another": (5, 33),
    "nothing": (0, 0),
}


def test_mistakes_are_told_in_words() -> None:
    truth, said = sketch_of(Task.INSTANCE, 1), sketch_of(Task.INSTANCE, 1, 1)
    assert sketched.told_errors(said, truth, ignore_index=255, whole=False) == "6 found, 1 missed, 1 false"
    assert sketched.told(said, CELLS) == f"7 {HOSTILE}"
    assert sketched.told(Sketch(ids_hw=np.zeros((2, 2)), objects=Objects(class_ids=())), CELLS) == "nothing"
    truth, said = sketch_of(Task.PANOPTIC, 1), sketch_of(Task.PANOPTIC, 1, 1)
    share, counts = sketched.told_errors(said, truth, ignore_index=255, whole=True).split(" wrong, ")
    assert 1 < float(share.removesuffix(" %")) < 10
    assert counts.endswith("1 false")


@BOTH
def test_a_card_shows_image_truth_prediction_and_errors(task: Task, cards: dict[Task, Page]) -> None:
    page = cards[task]
    told = [str(each["alt"]) for each in page.of("img")]
    kinds = [text.split(" of ")[0].split()[0] for text in told]
    assert kinds[:8] == ["image", "truth", "prediction", "errors"] * 2
    assert any("missed" in text and text.startswith("errors of ") for text in told)
    assert kinds.count("champion") == 3
    assert {check_image(str(each["src"])) for each in page.of("img")} == {(SIZE[1], SIZE[0])}
    assert "champion: 4 found, 3 missed, 1 false" in page.text or task is Task.PANOPTIC
    name = "PQ" if task is Task.PANOPTIC else "F1 at IoU 0.5"
    assert f"The best, the middle and the worst images of the split, by their own {name}." in page.text
    for word in (*mistakes.NAMES, "What was found has the colour of the true object."):
        assert word in page.text
    assert ("Striped" in page.text) == (task is Task.PANOPTIC)


@BOTH
def test_a_card_says_how_many_are_found_and_how_many_of_what_it_says_are_right(
    task: Task, cards: dict[Task, Page]
) -> None:
    shares = "89 % of the 63 segments" if task is Task.PANOPTIC else "86 % of the 49 objects"
    assert f"It finds {shares}; of what it takes for one, " in cards[task].text
    assert "Not scored" not in cards[task].text, "what is no thing is not looked for"


def test_even_of_noise_a_card_of_objects_can_be_mailed() -> None:
    random = np.random.default_rng(0)
    ids_hw = np.kron(np.arange(100).reshape(10, 10), np.ones((36, 36), int))
    objects = Objects(class_ids=(1,) * 100, found=tuple((n, n) for n in range(1, 50)), false=tuple(range(50, 101)))

    def noise(facts: CardFacts, *, champion: bool) -> CardFacts:
        image_hw3 = random.integers(0, 256, (360, 360, 3)).astype(np.uint8)
        found = Sketch(ids_hw=ids_hw, objects=objects)
        three = tuple(
            replace(each, image_hw3=image_hw3, truth=found, prediction=found, champion=found if champion else None)
            for each in (cases(Task.INSTANCE, [0]) * 3)
        )
        if not champion:
            return replace(facts, best=three, median=three, worst=three)
        assert facts.against is not None
        return replace(facts, against=replace(facts.against, improved=three, harmed=three))

    facts = noise(noise(object_card(Task.INSTANCE), champion=True), champion=False)
    assert len(render_card(facts).encode()) <= MOST_BYTES


@BOTH
def test_the_viewer_has_objects_with_their_colours_and_what_they_found(
    task: Task, nights: dict[Task, tuple[NightFacts, Page]]
) -> None:
    facts, page = nights[task]
    data = data_of(page)
    assert (data["wide"], data["whole"]) == (False, task is Task.PANOPTIC)
    assert data["paints"] == [list(colour) for colour in mistakes.NAMES.values()]
    assert data["images"][-1]["name"] == HOSTILE_FILE
    for image, shown in zip(data["images"], facts.images, strict=True):
        assert shown.truth is not None
        for packed, drawn in zip((image["truth"], *image["maps"]), (shown.truth, *shown.maps), strict=True):
            assert drawn.objects is not None
            ids = np.frombuffer(zlib.decompress(base64.b64decode(packed["ids"])), "u1").reshape(SIZE)
            assert (ids == drawn.ids_hw).all()
            assert packed["classes"] == list(drawn.objects.class_ids)
            assert len(packed["colours"]) == len(packed["classes"])
            assert packed["missed"] == list(drawn.objects.missed)
            for true, own in packed["found"]:
                assert packed["colours"][own - 1] == image["truth"]["colours"][true - 1]
    assert "pixels of another one found" in page.text


def test_more_objects_than_a_byte_counts_are_told_apart() -> None:
    facts = object_night(Task.INSTANCE)
    many = Sketch(ids_hw=np.arange(400).reshape(20, 20), objects=Objects(class_ids=(1,) * 399))
    images = (replace(facts.images[0], image_hw3=np.zeros((20, 20, 3), np.uint8), truth=many, maps=(many,) * 3),)
    data = data_of(check_page(render_night(replace(facts, images=images))))
    assert data["wide"]
    ids = np.frombuffer(zlib.decompress(base64.b64decode(data["images"][0]["truth"]["ids"])), "<u2")
    assert ids.tolist() == list(range(400))


def test_classes_that_colours_tell_apart_have_a_legend() -> None:
    known = [sketch_of(Task.PANOPTIC, 0)]
    assert [name for name, _ in sketched.legend(STREET, known, whole=True)] == ["sky", "road", "car", "bus"]
    assert sketched.legend(CELLS, [sketch_of(Task.INSTANCE, 0)], whole=False) == [], "there, they tell objects apart"
    two = (CELLS[1], ClassInfo(name="debris", colour=(1, 2, 3), is_thing=True))
    assert (
        len(sketched.legend(two, [Sketch(ids_hw=np.ones((1, 1)), objects=Objects(class_ids=(1,)))], whole=False)) == 1
    )
