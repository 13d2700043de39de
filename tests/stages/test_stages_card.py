"""The pages that evaluations and nights leave: from what lies in the home, and never in the way of anything."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe import storage
from segpipe.config import EvaluateConfig
from segpipe.errors import CorruptError
from segpipe.predictions import PanopticMap, class_map
from segpipe.promotion import Rules
from segpipe.promotion.gate import judge
from segpipe.shards import open_dataset
from segpipe.stages import card, evaluations, gallery, layout, small_maps
from segpipe.stages.evaluate import evaluate, report_uri
from segpipe.stages.evaluations import CARD, load_card
from segpipe.types import EvalReport, Segment
from tests.fixtures.page_rules import check_page, data_of
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")

CONFIG = EvaluateConfig(pictures=1, batch_size=2)


@pytest.fixture(scope="module")
def scored(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, EvalReport]:
    """An evaluation's folder and its report, in a home of their own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPIPE_HOME", str(home))
        to = layout.evaluations_uri("shapes")
    report = evaluate(
        shapes.result.model_uri,
        data=shapes.data,
        version=shapes.version,
        to=to,
        config=CONFIG,
        experiment="shapes",
        label="unet",
        runtime="local",
    )
    return report_uri(report, config=CONFIG, to=to), report


def test_every_evaluation_has_a_card(shapes: Shapes, scored: tuple[str, EvalReport]) -> None:
    folder, report = scored
    page = check_page((load_card(folder) or b"").decode())
    names = [str(each["id"]) for each in page.of("section")]
    assert {"classes", "confidence", "where", "pictures", "training", "cost", "data", "use", "limits"} <= set(names)
    assert "champion" not in names, "nobody has judged it yet"
    assert f"{report.value:.3f}" in page.text
    assert "CC0-1.0" in page.text, "the licence of the data"
    assert shapes.result.model_uri in page.text, "how to load it"
    told = " ".join(str(each["alt"]) for each in page.of("img"))
    assert "train/0000" in told, "what the data looks like"


def test_small_maps_are_those_of_all_images(shapes: Shapes, scored: tuple[str, EvalReport]) -> None:
    folder, report = scored
    rows = list(range(report.num_samples))
    found = small_maps.read(folder, rows)
    assert list(found) == rows
    for row, (height, width) in enumerate(open_dataset(shapes.data).sizes("test")):
        assert found[row].shape == (height, width), "no image is larger than a page shows it"
        predicted_K = np.array(report.sample_counts)[row, :, 2]
        said_K = np.bincount(found[row].ravel(), minlength=3)
        assert (said_K >= predicted_K).all(), "what is not labelled is predicted, too"
    assert small_maps.read(folder + "-nowhere", rows) == {}


def test_a_picture_s_file_is_named_as_its_sample() -> None:
    assert evaluations.shown_name("test-0000002-ca0d61.png") == "test-0000002"
    assert evaluations.shown_name("a.png") == "a.png"


def test_a_panoptic_truth_is_a_class_for_every_pixel() -> None:
    ids_HW = np.array([[7, 7, 0], [9, 9, 0]], dtype=np.int32)
    segments = tuple(Segment(segment_id=n, class_id=k, area=2.0) for n, k in ((7, 1), (9, 0)))
    found = class_map(PanopticMap(ids_HW=ids_HW, segments=segments), nothing=255)
    np.testing.assert_array_equal(found, [[1, 1, 255], [0, 0, 255]])
    nowhere = PanopticMap(ids_HW=np.zeros((1, 2), dtype=np.int32), segments=())
    np.testing.assert_array_equal(class_map(nowhere, nothing=255), [[255, 255]])


def test_a_damaged_file_of_maps_is_named(scored: tuple[str, EvalReport], tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"no zip"):
        (tmp_path / small_maps.FILE).write_bytes(content)
        with pytest.raises(CorruptError, match=r"predictions\.zip: is damaged .*evaluate again"):
            small_maps.read(str(tmp_path), [0])


def test_a_card_that_cannot_be_made_ends_nothing(
    shapes: Shapes, scored: tuple[str, EvalReport], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, report = scored
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / small_maps.FILE).write_bytes(b"no zip")
    with caplog.at_level(logging.WARNING):
        card.write(report, str(copy), data=shapes.data)
    assert "the model card of unet could not be made" in caplog.text
    assert (copy / CARD).read_bytes() == load_card(folder), "the one before stays"


def test_a_night_has_a_page_and_the_challenger_s_card_tells_what_changed(
    shapes: Shapes, scored: tuple[str, EvalReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = scored
    monkeypatch.setenv("SEGPIPE_HOME", str(Path(folder).parents[3]))
    # A worse model, known by its own evaluation: the same maps, but all that is in them counted for less.
    worse = replace(report, label="old", weights_sha256="0" * 64, value=report.value / 2)
    halved = tuple(tuple((i // 2, t, p) for i, t, p in image) for image in report.sample_counts)
    worse = replace(worse, sample_counts=halved)
    other = report_uri(worse, config=CONFIG, to=layout.evaluations_uri("shapes"))
    shutil.copytree(folder, other)
    storage.delete(storage.join(other, "report.json"))
    from segpipe import reports

    storage.write_json_once(storage.join(other, "report.json"), reports.to_plain(worse))
    verdict = replace(judge(report, worse, Rules()), outcome="promoted", reason="by <b>far</b>")
    known = {"config": CONFIG, "data": shapes.data, "failures": {"enet": "no memory"}}
    found, is_new = gallery.make("shapes", verdict, {other: worse, folder: report}, **known)  # type: ignore[arg-type]
    assert is_new
    assert None not in (found.card, found.side_by_side)
    told = check_page(storage.read_bytes(str(found.card)).decode())
    assert "champion" in [each["id"] for each in told.of("section")]
    assert "by <b>far</b>" in told.text
    assert any(str(each["alt"]).startswith("champion of ") for each in told.of("img"))
    page = check_page(storage.read_bytes(str(found.side_by_side)).decode())
    assert data_of(page)["labels"] == ["unet", "old"], "the best first"
    assert len(data_of(page)["images"]) == report.num_samples
    again, is_new = gallery.make("shapes", verdict, {other: worse, folder: report}, **known)  # type: ignore[arg-type]
    assert (again, is_new) == (found, False), "the same night again makes nothing"
