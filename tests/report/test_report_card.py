"""The model card: whole, without network or script, escaped, and without a section that has nothing to say."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segpipe.report.card import MOST_BYTES, MOST_DRAWN, CardFacts, Drawn, Shown, render_card
from segpipe.sketches import Sketch
from segpipe.types import ClassInfo
from tests.fixtures.page_rules import Page, check_image, check_page
from tests.fixtures.pages import CLASSES, HOSTILE, HOSTILE_FILE, SIZE, bare_facts, card_facts

ALL = ["classes", "mistakes", "confidence", "where", "pictures", "champion"]
ALL += ["training", "cost", "data", "use", "limits"]


@pytest.fixture(scope="module")
def facts() -> CardFacts:
    return card_facts()


@pytest.fixture(scope="module")
def page(facts: CardFacts) -> Page:
    return check_page(render_card(facts))


def sections(page: Page) -> list[str]:
    return [str(attributes["id"]) for attributes in page.of("section")]


def test_a_card_is_whole_and_has_every_section(page: Page) -> None:
    assert sections(page) == ALL
    links = [attributes["href"] for attributes in page.of("a")]
    assert links == [f"#{name}" for name in ALL], "each section can be reached from the top"


def test_a_card_runs_nothing(page: Page) -> None:
    assert page.of("script") == []


def test_names_of_users_are_text(facts: CardFacts, page: Page) -> None:
    for name in (HOSTILE, HOSTILE_FILE, CLASSES[0].name, "<b>CC0</b>", "two images are <i>alike</i>"):
        assert name in page.text
    html = render_card(facts)
    assert "<script" not in html
    assert "<img src=x" not in html


def test_the_headline_and_each_class_stand_with_their_interval(facts: CardFacts, page: Page) -> None:
    report = facts.report
    assert f"{report.value:.3f}" in page.text
    assert f"{report.low:.3f} to {report.high:.3f}" in page.text
    *known, unknown = zip(CLASSES, report.class_bounds, strict=True)
    assert unknown == (CLASSES[-1], None)
    for info, bounds in known:
        iou = report.per_class[info.name]["iou"]
        assert iou is not None
        assert bounds is not None
        assert f"{iou:.3f}" in page.text
        assert f"{bounds[0]:.2f} to {bounds[1]:.2f}" in page.text


def test_pictures_are_of_one_size_and_say_what_they_show(page: Page) -> None:
    images = page.of("img")
    assert {check_image(str(each["src"])) for each in images} == {(SIZE[1], SIZE[0])}
    assert {each["width"] for each in images} == {str(SIZE[1])}
    told = [str(each["alt"]) for each in images]
    assert any(text.startswith("errors of s/") and "% wrong" in text for text in told)
    assert any(text.startswith("champion of ") for text in told)


def test_a_prediction_keeps_its_classes_and_what_is_not_labelled_is_clear(facts: CardFacts) -> None:
    import base64

    from segpipe.report import embedding

    ids_hw = np.array([[0, 1], [2, 255]])
    data = base64.b64decode(embedding.id_map(ids_hw, [info.colour for info in CLASSES]).partition("base64,")[2])
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert [tuple(rgba[y, x, :3]) for y, x in ((0, 0), (0, 1), (1, 0))] == [info.colour for info in CLASSES[:3]]
    assert rgba[..., 3].tolist() == [[255, 255], [255, 0]]
    many = [(k % 256, k // 256, 7) for k in range(300)]
    data = base64.b64decode(embedding.id_map(np.array([[299, 65535]]), many).partition("base64,")[2])
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[0].tolist() == [[43, 1, 7, 255], [0, 0, 0, 0]]


def test_what_is_not_known_has_no_section() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 900), (10, 200, 10)).save(buffer, "PNG")
    page = check_page(render_card(bare_facts(buffer.getvalue())))
    assert sections(page) == ["classes", "pictures", "cost", "data", "use", "limits"]
    assert HOSTILE_FILE in page.text
    assert "Not scored, as these images have none of it: sky." in page.text
    assert [check_image(str(each["src"])) for each in page.of("img")] == [(1000, 563)]


def test_a_report_of_before_has_a_card_too(facts: CardFacts) -> None:
    old = replace(facts, report=replace(facts.report, details=None), training=None, against=None, image_scores=())
    without = {"confidence", "where", "champion", "training"}
    assert sections(check_page(render_card(old))) == [name for name in ALL if name not in without]


def test_even_of_noise_a_card_can_be_mailed() -> None:
    random = np.random.default_rng(0)

    def noise(n: int) -> Shown:
        maps = [Sketch(ids_hw=random.integers(0, len(CLASSES), (360, 360))) for _ in range(3)]
        image_hw3 = random.integers(0, 256, (360, 360, 3)).astype(np.uint8)
        return Shown(name=f"{n}", image_hw3=image_hw3, truth=maps[0], prediction=maps[1], champion=maps[2])

    three, with_champion = [tuple(map(noise, range(3))) for _ in range(2)]
    three = tuple(replace(each, champion=None) for each in three)
    facts = card_facts(best=three, median=three, worst=three)
    assert facts.against is not None
    against = replace(facts.against, improved=with_champion, harmed=with_champion)
    data = replace(facts.data, previews=three + three)
    assert len(render_card(replace(facts, against=against, data=data)).encode()) <= MOST_BYTES


def drawn_noise() -> bytes:
    buffer = io.BytesIO()
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (600, 1000, 3)).astype(np.uint8)
    Image.fromarray(noise_HW3).save(buffer, "PNG")
    return buffer.getvalue()


def test_of_many_pictures_a_card_shows_some_that_are_spread_evenly() -> None:
    png = drawn_noise()
    many = tuple(Drawn(name=f"picture {n:02d}", png=png) for n in range(2 * MOST_DRAWN))
    html = render_card(replace(bare_facts(png), drawn=many))
    assert len(html.encode()) <= MOST_BYTES
    images = check_page(html).of("img")
    assert [str(each["alt"])[:10] for each in images] == [f"picture {n:02d}" for n in range(0, 2 * MOST_DRAWN, 2)]
    (width, height), *_ = {check_image(str(each["src"])) for each in images}
    assert (str(width), str(height)) == (images[0]["width"], images[0]["height"]), "noise is made smaller, as a whole"
    assert abs(width / height - 1000 / 600) < 0.01


def test_what_stands_out_is_said_in_words(facts: CardFacts, page: Page) -> None:
    ious = {name: scores["iou"] for name, scores in facts.report.per_class.items() if scores["iou"] is not None}
    worst, *_, best = sorted(ious, key=lambda name: ious[name])
    assert f"Best at {best} ({ious[best]:.2f}), weakest at {worst} ({ious[worst]:.2f})." in page.text
    assert (best, worst) == (HOSTILE, 'sky & "sea"')
    blank = {name: {**scores, "iou": 0.0} for name, scores in facts.report.per_class.items()}
    nothing = replace(facts, report=replace(facts.report, per_class=blank))
    assert "it has learnt nothing that counts here" in check_page(render_card(nothing)).text


def test_a_split_that_chose_the_weights_is_no_test(facts: CardFacts) -> None:
    told = "had a part in the training"
    assert told not in render_card(facts)
    splits = tuple(replace(split, use="validation, the scores of this card") for split in facts.data.splits)
    assert told in render_card(replace(facts, data=replace(facts.data, splits=splits)))


def test_of_many_classes_the_first_are_seen_and_the_rest_unfolds() -> None:
    from segpipe.report.card.page import MOST_CLASSES

    many = MOST_CLASSES + 5
    report = card_facts().report
    names = tuple(f"class {k}" for k in range(many))
    report = replace(
        report,
        classes=names,
        per_class={name: {"iou": 0.5, "pixels": 10.0} for name in names},
        truth_counts=(10,) * many,
        confusion=tuple(tuple(10 * (i == k) for i in range(many)) for k in range(many)),
        details=None,
        class_bounds=((0.4, 0.6),) * many,
    )
    classes = tuple(ClassInfo(name=name, colour=(k, k, k)) for k, name in enumerate(names))
    data = replace(card_facts().data, splits=(), previews=())
    facts = card_facts(report=report, classes=classes, data=data, against=None)
    page = check_page(render_card(facts))
    assert "5 more classes" in page.text
    assert "most frequent classes; all are in the report" in page.text
