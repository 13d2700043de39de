"""The page of all models of a night: whole, escaped, and with everything that its viewer shows."""

import base64
import io
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segpipe.report import embedding, svg
from segpipe.report.side_by_side import (
    MOST_BYTES,
    MOST_DRAWN,
    Compared,
    NightFacts,
    image_budget,
    render_night,
)
from tests.fixtures.page_rules import Page, check_image, check_page, data_of
from tests.fixtures.pages import CLASSES, HOSTILE, HOSTILE_FILE, SIZE, night_facts, predictions, truths


@pytest.fixture(scope="module")
def facts() -> NightFacts:
    return night_facts()


@pytest.fixture(scope="module")
def page(facts: NightFacts) -> Page:
    return check_page(render_night(facts))


def unpacked(text: str, *, dtype: str = "u1") -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(SIZE)


def test_the_page_is_whole(facts: NightFacts, page: Page) -> None:
    assert [each["id"] for each in page.of("section")] == ["viewer", "board", "cost", "classes"]
    for report in facts.reports:
        assert f"{report.low:.3f} to {report.high:.3f}" in page.text
    assert page.text.count("champion") == 1


def test_names_of_users_are_text(page: Page) -> None:
    assert len(page.of("script")) == 2, "the data and the viewer, and none of a user"
    for name in (HOSTILE, "unet is <b>better</b>", "no memory </script><script>alert(2)</script>"):
        assert name in page.text
    assert [each["name"] for each in data_of(page)["classes"]] == [info.name for info in CLASSES]


def test_the_viewer_has_every_model_s_map_of_every_image(facts: NightFacts, page: Page) -> None:
    data = data_of(page)
    assert data["labels"] == [report.label for report in facts.reports]
    assert [each["name"] for each in data["images"]][-1] == HOSTILE_FILE
    for row, image in enumerate(data["images"]):
        assert check_image(image["photo"]) == (image["width"], image["height"]) == (SIZE[1], SIZE[0])
        truth_hw = truths()[row]
        assert (unpacked(image["truth"]["ids"]) == np.where(truth_hw == 255, len(CLASSES), truth_hw)).all()
        assert (unpacked(image["maps"][0]["ids"]) == predictions(0.5, 0)[row]).all()
        assert image["scores"] == [0.9, 0.8, None]


def test_every_element_that_the_viewer_asks_for_is_there(page: Page) -> None:
    asked = set(re.findall(r'\$\("([a-z-]+)"\)', page.scripts[1])) | {"data"}
    assert asked <= set(page.ids())


def test_other_tasks_compare_their_pictures(facts: NightFacts) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 200, 10)).save(buffer, "PNG")
    images = (Compared(name=HOSTILE_FILE, pictures=(buffer.getvalue(),) * 3),)
    data = data_of(check_page(render_night(replace(facts, images=images))))
    assert [check_image(each) for each in data["images"][0]["pictures"]] == [(300, 200)] * 3
    assert "photo" not in data["images"][0]


def test_without_images_there_is_no_viewer(facts: NightFacts) -> None:
    page = check_page(render_night(replace(facts, images=(), failures={})))
    assert page.of("script") == []
    assert [each["id"] for each in page.of("section")] == ["board", "cost", "classes"]


def test_one_model_has_nothing_to_be_weighed_against(facts: NightFacts) -> None:
    images = tuple(replace(each, maps=each.maps[:1], scores=each.scores[:1]) for each in facts.images)
    page = check_page(render_night(replace(facts, reports=facts.reports[:1], images=images)))
    assert [each["id"] for each in page.of("section")] == ["viewer", "board", "classes"]


@pytest.mark.parametrize(("models", "images"), [(1, 24), (3, 24), (46, 10), (200, 4)])
def test_the_more_models_the_fewer_images(models: int, images: int) -> None:
    assert image_budget(models) == images


@pytest.mark.parametrize(("models", "images"), [(1, 24), (6, 15), (20, 4), (40, 2), (200, 1)])
def test_of_drawn_pictures_a_page_has_room_for_fewer(models: int, images: int) -> None:
    assert image_budget(models, drawn=True) == images


def test_pictures_of_many_models_can_still_be_opened(facts: NightFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "data:image/jpeg;base64,".ljust(embedding.DRAWN_BYTES, "A")
    monkeypatch.setattr(embedding, "drawn", lambda png: (uri, 1000, 600))
    for models in (1, 20, MOST_DRAWN):
        reports = tuple(replace(facts.reports[0], label=f"m{n}") for n in range(models))
        budget = image_budget(models, drawn=True)
        images = tuple(Compared(name=f"{n}", pictures=(b"png",) * models) for n in range(budget))
        page = render_night(replace(facts, reports=reports, images=images))
        assert len(page.encode()) <= MOST_BYTES


def test_names_of_many_models_stay_inside_their_chart(facts: NightFacts) -> None:
    random = np.random.default_rng(0)
    values, costs = np.sort(random.uniform(0.55, 0.7, 46))[::-1].tolist(), random.uniform(0.01, 0.2, 46).tolist()
    reports = tuple(
        replace(facts.reports[0], label=f"model {n:02d}", value=value, low=value - 0.02, high=value + 0.02, latency=s)
        for n, value, s in zip(range(46), values, costs, strict=True)
    )
    html = render_night(replace(facts, reports=reports, images=()))
    marks = re.findall(r'<g class="mark[^>]*><title>(model \d+): [^<]*</title>(.*?)</g>', html)
    assert [name for name, _ in marks[:46]] == [report.label for report in reports], "each is there, and says its name"
    heights = {name: re.findall(r'<text x="[^"]*" y="([^"]*)"', body) for name, body in marks[:46]}
    assert heights["model 00"], "the best is named"
    assert 10 <= sum(map(bool, heights.values())) < 46
    assert all(float(y) <= svg.LOWEST_NAME for found in heights.values() for y in found)
    assert svg.LOWEST_NAME < svg.HEIGHT
