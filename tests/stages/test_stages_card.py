"""The pages that evaluations and nights leave: from what lies in the home, and never in the way of anything."""

import json
import logging
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import checkpoint, reports, storage
from segpipe.config import EvaluateConfig
from segpipe.config.run import digest
from segpipe.errors import CorruptError
from segpipe.promotion import Rules
from segpipe.promotion.gate import judge
from segpipe.report.card import MOST_DRAWN
from segpipe.report.side_by_side import image_budget
from segpipe.shards import open_dataset
from segpipe.sketches import Objects, Sketch, pack
from segpipe.stages import card, card_about, costs, evaluations, fingerprint, gallery, layout, small_maps
from segpipe.stages.evaluate import evaluate, report_uri
from segpipe.stages.evaluations import CARD, REPORT, load_card, load_pictures
from segpipe.types import CrfSettings, EvalReport, Fingerprint, SplitFingerprint
from tests.fixtures.page_rules import check_image, check_page, data_of
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
        assert found[row].ids_hw.shape == (height, width), "no image is larger than a page shows it"
        predicted_K = np.array(report.sample_counts)[row, :, 2]
        said_K = np.bincount(found[row].ids_hw.ravel(), minlength=3)
        assert (said_K >= predicted_K).all(), "what is not labelled is predicted, too"
    assert small_maps.read(folder + "-nowhere", rows) == {}


def test_a_picture_s_file_is_named_as_its_sample() -> None:
    assert evaluations.shown_name("test-0000002-ca0d61.png") == "test-0000002"
    assert evaluations.shown_name("a.png") == "a.png"


def test_a_damaged_file_of_maps_is_named(scored: tuple[str, EvalReport], tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"no zip"):
        (tmp_path / small_maps.FILE).write_bytes(content)
        with pytest.raises(CorruptError, match=r"predictions\.zip: is damaged .*evaluate again"):
            small_maps.read(str(tmp_path), [0])


def test_damaged_objects_of_a_map_are_named(tmp_path: Path) -> None:
    sketch = Sketch(ids_hw=np.array([[0, 1]]), objects=Objects(class_ids=(2,), missed=(1,)))
    small_maps.write(str(tmp_path), {"a": pack(sketch)}, ["a"])
    assert small_maps.read(str(tmp_path), [0])[0].objects == sketch.objects
    (tmp_path / small_maps.FILE).unlink()
    with zipfile.ZipFile(tmp_path / small_maps.FILE, "w") as packed:
        packed.writestr("000000.png", pack(sketch).png)
        packed.writestr("000000.json", b'{"class_ids": ["car"]}')
    with pytest.raises(CorruptError, match=r"predictions\.zip: .*every field of Objects"):
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


def beside_an_old_one(folder: str, report: EvalReport) -> tuple[EvalReport, str]:
    """A worse model with its evaluation's folder: the same maps, but all that is in them counted for less."""
    worse = replace(report, label="old", weights_sha256="0" * 64, value=report.value / 2)
    halved = tuple(tuple((i // 2, t, p) for i, t, p in image) for image in report.sample_counts)
    worse = replace(worse, sample_counts=halved)
    other = report_uri(worse, config=CONFIG, to=layout.evaluations_uri("shapes"))
    shutil.copytree(folder, other)
    storage.delete(storage.join(other, REPORT))
    storage.write_json_once(storage.join(other, REPORT), reports.to_plain(worse))
    return worse, other


@pytest.fixture
def own(scored: tuple[str, EvalReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The evaluation's folder in a home of the test's own."""
    home = Path(shutil.copytree(Path(scored[0]).parents[3], tmp_path / "home"))
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    return report_uri(scored[1], config=CONFIG, to=layout.evaluations_uri("shapes"))


def test_a_night_has_a_page_and_the_challenger_s_card_tells_what_changed(
    shapes: Shapes, scored: tuple[str, EvalReport], own: str
) -> None:
    report = scored[1]
    worse, other = beside_an_old_one(own, report)
    verdict = replace(judge(report, worse, Rules()), outcome="promoted", reason="by <b>far</b>")
    known = {"config": CONFIG, "data": shapes.data, "failures": {"enet": "no memory"}}
    found, is_new = gallery.make("shapes", verdict, {other: worse, own: report}, **known)  # type: ignore[arg-type]
    assert is_new
    assert None not in (found.card, found.side_by_side)
    told = check_page(storage.read_bytes(str(found.card)).decode())
    assert "champion" in [each["id"] for each in told.of("section")]
    assert "by <b>far</b>" in told.text
    assert any(str(each["alt"]).startswith("champion of ") for each in told.of("img"))
    page = check_page(storage.read_bytes(str(found.side_by_side)).decode())
    assert data_of(page)["labels"] == ["unet", "old"], "the best first"
    images = data_of(page)["images"]
    assert len(images) == report.num_samples
    assert all(len(each["maps"]) == 2 and each["truth"] for each in images)
    again, is_new = gallery.make("shapes", verdict, {other: worse, own: report}, **known)  # type: ignore[arg-type]
    assert (again, is_new) == (found, False), "the same night again makes nothing"


def test_models_without_label_maps_are_compared_by_their_pictures(
    shapes: Shapes, scored: tuple[str, EvalReport], own: str
) -> None:
    storage.delete(storage.join(own, small_maps.FILE))
    ((_, png),) = load_pictures(own)
    for n in range(50):
        storage.write_once(storage.join(own, "pictures", f"drawn-{n:02d}-0a.png"), png)
    worse, other = beside_an_old_one(own, scored[1])
    storage.delete(storage.join(other, "pictures", "drawn-00-0a.png"))
    verdict = replace(judge(scored[1], worse, Rules()), outcome="promoted")
    found, _ = gallery.make(
        "shapes", verdict, {other: worse, own: scored[1]}, config=CONFIG, data=shapes.data, failures={}
    )
    data = data_of(check_page(storage.read_bytes(str(found.side_by_side)).decode()))
    names = [each["name"] for each in data["images"]]
    assert len(names) == image_budget(2, drawn=True)
    assert "drawn-00" not in names, "one of them has no such picture"
    assert names[-1] > "drawn-45", "they lie evenly over all of them"
    for each in data["images"]:
        assert "maps" not in each
        assert [check_image(uri) for uri in each["pictures"]] == [(each["width"], each["height"])] * 2
    own_card = check_page(storage.read_bytes(str(found.card)).decode())
    alts = [str(each["alt"]) for each in own_card.of("img")]
    assert sum("image, truth and prediction in panels" in alt for alt in alts) == MOST_DRAWN
    assert not any(alt.startswith("prediction of ") for alt in alts)


def test_a_page_mends_no_dataset(shapes: Shapes, scored: tuple[str, EvalReport], tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(shapes.data, copy)
    file = Path(fingerprint.uri_of(str(copy), shapes.version))
    file.parent.mkdir()
    file.write_bytes(b"{")
    dataset = open_dataset(str(copy), version=shapes.version)
    bundle = checkpoint.load_bundle(shapes.result.model_uri)
    assert card_about.fingerprint_of(dataset) is None
    assert file.read_bytes() == b"{", "the next ingest writes it again, and nobody else"
    told = card_about.costs_of(scored[1], bundle, None)
    assert {"parameters", "weights", "time of the evaluation"} <= told.keys()
    assert "size of an image" not in told


def test_what_a_prediction_takes_is_said_as_mlflow_has_it(
    shapes: Shapes, scored: tuple[str, EvalReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, bundle = scored[1], checkpoint.load_bundle(shapes.result.model_uri)
    counts = dict.fromkeys(("images", "pixels", "crowds"), 0)
    triples = dict.fromkeys(("rgb_sum", "rgb_square_sum", "objects_by_size"), (0, 0, 0))
    of_classes = dict.fromkeys(("images_of_class", "objects_of_class"), (0, 0, 0))
    split = SplitFingerprint(sizes={"64x48": 2, "40x32": 5, "64x64": 4}, **counts, **triples, **of_classes)  # type: ignore[arg-type]
    seen = Fingerprint(dataset_version=shapes.version, splits={"test": split}, warnings=())
    looks = costs.looks_of(bundle, seen, "test")
    told = card_about.costs_of(report, bundle, seen)
    assert told["size of an image"] == "32 x 40", "the most frequent"
    assert float(told["GFLOP for an image"]) > 0
    refined = replace(bundle, inference=replace(bundle.inference, crf=CrfSettings()))
    assert card_about.costs_of(report, refined, seen)["GFLOP for an image"].endswith(", without its CRF")
    monkeypatch.setattr(costs, "looks_of", lambda *_: replace(looks, by_object=True))
    told = card_about.costs_of(report, bundle, seen)
    assert ("GFLOP for an object" in told, "GFLOP for an image" in told) == (True, False)


def test_a_split_is_accused_of_a_training_only_on_its_own_dataset(
    shapes: Shapes, scored: tuple[str, EvalReport]
) -> None:
    report, bundle = scored[1], checkpoint.load_bundle(shapes.result.model_uri)
    dataset, scores = open_dataset(shapes.data), "the scores of this card"
    uses = card_about.uses_of(report, bundle, dataset)
    assert uses == {"train": ["training"], "val": ["validation"], "test": [scores]}
    assert card_about.previewed(report, uses, dataset) == "train"
    on_val = replace(report, split="val")
    assert card_about.uses_of(on_val, bundle, dataset)["val"] == ["validation", scores]
    elsewhere = card_about.uses_of(on_val, replace(bundle, dataset="another_town"), dataset)
    assert elsewhere == {"val": [scores]}
    assert card_about.previewed(on_val, elsewhere, dataset) == "val"


def as_if_made_by(run: Path, identity: dict[str, Any]) -> str:
    """The model of a copied run, which says that this is the recipe it was made by."""
    model = run / "model" / checkpoint.BUNDLE
    told = json.loads(model.read_text()) | {"config_digest": digest(identity)}
    for path, document in ((run / layout.RUN_CONFIG, identity), (model, told)):
        path.unlink()
        storage.write_json_once(str(path), document)
    return str(run / "model")


def test_a_split_may_have_had_every_use(shapes: Shapes, scored: tuple[str, EvalReport], tmp_path: Path) -> None:
    told = shapes.run.identity
    told["train"] |= {"train_split": "test", "validation_split": "test"}
    model_uri = as_if_made_by(shapes.copy_run(tmp_path), told)
    report = replace(scored[1], checkpoint=model_uri)
    uses = card_about.uses_of(report, checkpoint.load_bundle(model_uri), open_dataset(shapes.data))
    assert uses == {"test": ["training", "validation", "the scores of this card"]}


def test_an_ensemble_is_told_of_by_what_its_members_learnt_from(
    shapes: Shapes, scored: tuple[str, EvalReport], tmp_path: Path
) -> None:
    run, member = shapes.copy_run(tmp_path), shapes.run.identity
    told = {**{key: value for key, value in member.items() if key != "train"}, "members": [member, member]}
    report = replace(scored[1], split="val", checkpoint=as_if_made_by(run, told))
    bundle, dataset = checkpoint.load_bundle(report.checkpoint), open_dataset(shapes.data)
    scores = "the scores of this card"
    assert card_about.uses_of(report, bundle, dataset) == {"train": ["training"], "val": ["validation", scores]}
    (run / layout.RUN_CONFIG).unlink()
    assert card_about.uses_of(report, bundle, dataset) == {"val": [scores]}, "a model that was copied alone"
    storage.write_json_once(str(run / layout.RUN_CONFIG), member)
    with pytest.raises(CorruptError, match=r"run\.json: is not the recipe"):
        card_about.uses_of(report, bundle, dataset)
