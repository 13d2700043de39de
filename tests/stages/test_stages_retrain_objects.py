"""Whole nights of the object tasks, as the semantic ones go: ingest, train, evaluate, promote, and MLflow's mirror."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from segpipe import checkpoint
from segpipe.masks import decode_rle
from segpipe.stages import card, nights
from tests.fixtures.page_rules import check_page, data_of
from tests.stages.toy_night import SCENES, Told, columns_of, forbid_work, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("nights")

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "channels": 16,
    "head_width": 32,
    "smallest_anchor": 4,
    "proposals": 40,
    "samples": 32,
    "detections": 10,
    "min_score": 0.0,
}
PIXELS = {"backbone": "mobilenet_v3_large", "head_stride": 4, "width": 1}
OBJECTS: dict[str, Any] = {
    **SCENES,
    "name": "toy-objects",
    "task": "instance",
    "architectures": [
        {"arch": "mask_rcnn", "options": TINY},
        {"arch": "unet_watershed", "label": "watershed", "options": PIXELS},
    ],
}


@pytest.fixture(scope="module")
def night(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe(document=OBJECTS))


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def test_a_night_of_objects_ends_with_a_board_and_a_champion(home: Path, night: Told) -> None:
    result = night.result
    assert result.failures == {}
    assert {row.label for row in result.board} == {"mask_rcnn", "watershed"}
    assert {row.primary for row in result.board} == {"ap/coco/segm"}
    assert result.board[0].constant_class is None
    assert result.verdict.outcome == "promoted"
    assert "ap/coco/segm" in result.verdict.reason


def test_it_is_reported_by_coco_in_masks_and_boxes(home: Path, night: Told) -> None:
    with surroundings(home):
        _, found = nights.last("toy-objects")
    assert {report.task for report in found} == {"instance"}
    for report in found:
        assert {
            "ap/coco/segm",
            "ap50/coco/segm",
            "ap/coco/bbox",
            "ar100/coco/bbox",
            "pq/things",
        } <= report.metrics.keys()
        assert len(report.sample_counts) == len(report.detections) == report.num_samples == 3
        assert sum(report.truth_counts) == sum(counts for image in report.sample_counts for (counts,) in image) > 0
        assert report.low <= report.value <= report.high


def test_mlflow_shows_the_night_with_curves_classes_and_pictures(client: MlflowClient, night: Told) -> None:
    runs = runs_of(client, "toy-objects")
    run = runs["mask_rcnn"]
    metrics = run.data.metrics
    assert {"test/ap/coco/segm", "test/ap/coco/segm_low", "val/ap/coco/segm", "train/losses/rpn_box"} <= metrics.keys()
    assert {"val/pq/things", "test/pq/things", "test/ap75/coco/bbox"} <= metrics.keys()
    assert len(columns_of(client, "toy-objects")) < 30, "of all runs: as many columns as can be looked at"
    names = {tuple(name.split("/")) for name in metrics}
    folders = {name[:end] for name in names for end in range(1, len(name))}
    assert not names & folders, "a file store has a metric as a file, and no file is a folder"
    pictures = client.list_artifacts(run.info.run_id, "pictures")
    assert len(pictures) == 2
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluation/per_class.json")).read_text())
    assert table["columns"] == ["class", "AP", "AP50", "PQ", "objects"]
    note = run.data.tags["mlflow.note.content"]
    assert "**mask AP " in note
    assert "| car" in note


def test_its_pages_show_what_each_model_found_of_every_image(home: Path, night: Told) -> None:
    with surroundings(home):
        _, reports = nights.last("toy-objects")
    assert night.result.card is not None
    assert night.result.side_by_side is not None
    told = check_page(Path(night.result.card).read_text())
    kinds = Counter(str(each["alt"]).split(" of ")[0] for each in told.of("img"))
    assert kinds["prediction"] == kinds["errors"] == 3, "every image of the split"
    assert kinds["truth"] == 3 + card.PREVIEWS
    data = data_of(check_page(Path(night.result.side_by_side).read_text()))
    assert (data["whole"], len(data["images"])) == (False, 3)
    asked = {report.label: dict(zip(report.sample_ids, report.sample_counts, strict=True)) for report in reports}
    for image in data["images"]:
        for label, said in zip(data["labels"], image["maps"], strict=True):
            objects = sum(count for (count,) in asked[label][image["name"]])
            assert len(image["truth"]["classes"]) == objects == len(said["found"]) + len(said["missed"])
            assert len(said["classes"]) == len(said["found"]) + len(said["false"])


def test_the_champion_answers_with_objects(home: Path, client: MlflowClient, night: Told) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/toy-objects@champion")
    finally:
        mlflow.set_tracking_uri(before)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    answers = model.predict(images)
    assert len(answers) == 2
    for answer in json.loads(json.dumps(answers)):
        assert {len(values) for values in answer.values()} == {len(answer["scores"])}
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        for mask in answer["masks"]:
            assert decode_rle(mask, 32, 40).shape == (32, 40)
    assert [each["name"] for each in model.metadata.signature.outputs.to_dict()] == [
        "class_ids",
        "scores",
        "boxes",
        "masks",
    ]
    page = client.get_registered_model("toy-objects").description
    assert "class ids (N, H, W)" not in page
    assert "objects = model.predict(images)" in page


def test_the_same_night_again_does_nothing(home: Path, night: Told) -> None:
    with surroundings(home) as patch:
        forbid_work(patch)
        assert tell(recipe(document=OBJECTS)).result.did_nothing


def test_a_night_of_boxes(home: Path) -> None:
    with surroundings(home):
        boxes = {**OBJECTS, "name": "toy-boxes", "task": "detection"}
        boxes["architectures"] = [{"arch": "faster_rcnn", "options": TINY}]
        result = tell(recipe(document=boxes)).result
        (row,) = result.board
        assert (row.primary, result.failures) == ("ap/coco/bbox", {})
        (report,) = nights.last("toy-boxes")[1]
        assert {name.rpartition("/")[2] for name in report.metrics} == {"bbox"}
        assert checkpoint.load_bundle(row.checkpoint).task == "detection"
