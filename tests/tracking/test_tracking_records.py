"""Datasets, evaluations and pictures as a user of MLflow finds them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from segpipe import tracking
from segpipe.report.overlay import draw
from segpipe.reports import from_plain, to_plain
from segpipe.tracking import RunRef
from segpipe.tracking.records import evaluation_note
from segpipe.types import ClassInfo, EvalReport
from tests.fixtures.example_reports import eval_report

VERSION = "9f1c" * 16


def report(**changes: object) -> EvalReport:
    per_class = {
        "sky": {"iou": 0.5, "dice": 0.6, "pixels": 300.0},
        "car|van": {"iou": None, "dice": None, "pixels": 100.0},
    }
    return eval_report(classes=tuple(per_class), per_class=per_class, num_samples=233, parameters=11_200_000, **changes)


def record(run: RunRef) -> None:
    image = np.zeros((8, 12, 3), dtype=np.uint8)
    labels = np.zeros((8, 12), dtype=np.uint8)
    classes = (ClassInfo(name="sky", colour=(1, 2, 3)),)
    picture = draw(image, labels, labels, classes=classes, ignore_index=255, title="a")
    tracking.record_evaluation(
        run,
        report=report(),
        report_json=b'{"the": "report"}',
        recipe_text="name: toy\n",
        pictures=[("seq/0001", picture), ("b", picture)],
    )


def artifacts(run: RunRef, folder: str | None = None) -> list[str]:
    return sorted(item.path for item in mlflow.MlflowClient(run.tracking_uri).list_artifacts(run.run_id, folder))


def test_a_dataset_shows_its_name_version_source_and_context(open_run) -> None:
    run = open_run("a")
    for _ in range(2):
        for split, context in (("train", "training"), ("test", "evaluation")):
            tracking.record_dataset(
                run, name="toy", version=VERSION, uri="s3://b/toy", split=split, context=context, profile={"samples": 3}
            )
    inputs = mlflow.MlflowClient(run.tracking_uri).get_run(run.run_id).inputs.dataset_inputs
    shown = {i.dataset.name: (i.dataset.digest, i.dataset.source_type, i.tags[0].value) for i in inputs}
    assert shown == {
        "toy/train": (VERSION[:12], "s3", "training"),
        "toy/test": (VERSION[:12], "s3", "evaluation"),
    }
    assert len(inputs) == 2
    source = json.loads(inputs[0].dataset.source)
    assert (source["uri"], source["version"]) == ("s3://b/toy", VERSION)


def test_an_evaluation_leaves_metrics_tables_files_and_pictures_once(open_run, tmp_path: Path) -> None:
    run = open_run("a")
    record(run)
    before = artifacts(run)
    record(run)
    client = mlflow.MlflowClient(run.tracking_uri)
    data = client.get_run(run.run_id).data
    assert data.metrics == {"test/miou": 0.5, "test/miou_low": 0.4, "test/miou_high": 0.6}
    assert len(client.get_metric_history(run.run_id, "test/miou")) == 1
    assert artifacts(run) == before == ["evaluation", "pictures", "recipe.yaml"]
    assert artifacts(run, "pictures") == ["pictures/b.png", "pictures/seq_0001.png"]
    table = json.loads(
        Path(client.download_artifacts(run.run_id, "evaluation/per_class.json", str(tmp_path))).read_text()
    )
    assert table == {
        "columns": ["class", "IoU", "Dice", "pixels %"],
        "data": [["sky", 0.5, 0.6, 75.0], ["car|van", None, None, 25.0]],
    }
    assert json.loads(data.tags["mlflow.loggedArtifacts"]) == [{"path": "evaluation/per_class.json", "type": "table"}]


def test_an_evaluation_on_another_split_leaves_what_was_measured_before(open_run) -> None:
    run = open_run("a")
    tracking.mirror_history(run, [{"step": 7, "epoch": 0, "metrics": {"val/miou": 0.3}}])
    for split, value in (("test", 0.5), ("val", 0.7), ("val", 0.8)):
        changed = replace(report(split=split), metrics={"miou": value}, value=value)
        tracking.record_evaluation(run, report=changed, report_json=b"{}", recipe_text="", pictures=[])
    data = mlflow.MlflowClient(run.tracking_uri).get_run(run.run_id).data
    shown = {name: value for name, value in data.metrics.items() if name.endswith("/miou")}
    assert shown == {"val/miou": 0.3, "test/miou": 0.5, "evaluated_val/miou": 0.8}
    assert "on 233 images of `camvid` / `val`" in data.tags["mlflow.note.content"]


def test_the_description_keeps_its_beginning_and_gets_one_evaluation(open_run) -> None:
    run = open_run("a")
    client = mlflow.MlflowClient(run.tracking_uri)
    client.set_tag(run.run_id, "mlflow.note.content", "`unet` on toy")
    record(run)
    record(run)
    note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert "`unet` on toy\n\n## Evaluation" in note
    assert note.count("## Evaluation") == 1


def test_the_note_tells_the_result_with_its_interval_and_every_class() -> None:
    stored = json.dumps(to_plain(report()), sort_keys=True)
    note = evaluation_note(from_plain(EvalReport, json.loads(stored), origin="x"), {})
    assert "**mIoU 0.5000** (95 % interval 0.4000 to 0.6000 over images) on 233 images of `camvid` / `test`." in note
    assert "The images come from 1 group, too few to resample" in note
    rows = [[cell.strip() for cell in line.split(" | ")] for line in note.splitlines() if line.startswith("| ")]
    assert [[cell.strip("| ").removesuffix("&emsp;") for cell in row] for row in rows] == [
        ["class", "IoU", "Dice", "pixels %"],
        ["sky", "0.5000", "0.6000", "75.0000"],
        ["car\\|van", "-", "-", "25.0000"],
    ]
    assert 'load_model("runs/unet")' in note


@pytest.mark.parametrize("changes", [{"resampled": "groups"}, {"groups": ("a", "b"), "num_samples": 2}])
def test_the_note_warns_only_of_images_that_belong_together(changes: dict[str, Any]) -> None:
    assert "too few to resample" not in evaluation_note(eval_report(**changes), {})


def test_the_note_of_many_classes_says_where_the_rest_is() -> None:
    many = {f"class {i}": {"iou": 0.1} for i in range(150)}
    note = evaluation_note(eval_report(classes=tuple(many), per_class=many), {})
    assert "class 59" in note
    assert "class 60" not in note
    assert "90 more classes are in `evaluation/per_class.json`" in note
