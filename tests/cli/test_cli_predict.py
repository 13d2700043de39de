"""`segpipe predict`: what it prints, how it ends, which model a name means."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest

from segpipe import palettes
from segpipe.cli import predicting
from segpipe.config import ResourceConfig
from segpipe.shards import open_dataset
from segpipe.stages import drift as drift_stage
from segpipe.stages import layout
from segpipe.stages import predict as stage
from segpipe.stages.drift import THRESHOLD
from segpipe.stages.identity import resolve
from segpipe.stages.train import train
from segpipe.types import TrainResult
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import promote
from tests.fixtures.small import publish_small, small_run, small_samples


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder: Path = tmp_path_factory.mktemp("predict")
    data = str(folder / "data")
    version = publish_small(data, train=4, val=2, test=2)
    run = resolve(small_run(epochs=1))
    return train(run, data=data, version=version, to=str(folder / "runs"), resources=ResourceConfig(), runtime="local")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for number, sample in enumerate(small_samples("test", 3)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.{'jpg' if number % 2 else 'png'}").write_bytes(sample.image)
    return str(tmp_path / "photos")


def test_masks_where_it_says(trained: TrainResult, photos: str, tmp_path: Path) -> None:
    arguments = ("predict", trained.model_uri, photos, "--to", str(tmp_path / "out"))
    found = document(segpipe(*arguments, "--json"))
    assert (found["images"], found["made"], found["quarantined"]) == (3, 3, [])
    assert Path(found["to"]).parent == tmp_path / "out"
    assert Path(found["to"]).name.startswith("unet-")
    assert sorted(path.name for path in Path(found["outputs"]["masks"]).iterdir()) == ["0.png", "1.png", "2.png"]
    shown = segpipe(*arguments)
    assert "3 images: 0 made, 3 there before" in shown.stdout
    assert shown.stdout.endswith(f"Results are in {found['to']}\n")


def test_bad_images_end_with_one(trained: TrainResult, photos: str, tmp_path: Path) -> None:
    (Path(photos) / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = ("predict", trained.model_uri, photos, "--to", str(tmp_path / "out"))
    found = document(segpipe(*arguments, "--json"), status=1)
    assert (found["made"], [entry["file"] for entry in found["quarantined"]]) == (3, ["bad.png"])
    again = segpipe(*arguments)
    assert (again.exit_code, "Traceback" in again.stderr) == (1, False)
    assert "bad.png" in again.stdout


def test_an_interrupt_says_how_to_go_on(
    trained: TrainResult, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage._Work, "_write", interrupted)
        result = segpipe("predict", trained.model_uri, photos, "--to", str(tmp_path / "out"))
    assert (result.exit_code, result.stdout) == (130, "")
    assert "the same command continues from here" in result.stderr
    assert document(segpipe("predict", trained.model_uri, photos, "--to", str(tmp_path / "out"), "--json"))["made"] == 3


def test_into_a_dataset(trained: TrainResult, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    arguments = ("predict", trained.model_uri, photos, "--into", "said", "--runtime", "local")
    found = document(segpipe(*arguments, "--json"))
    assert (found["splits"], found["uncertainty"]) == ({"images": 3}, True)
    assert open_dataset(found["uri"]).version == found["version"]
    assert "said " in segpipe(*arguments).stdout
    assert document(segpipe("data", "inspect", "said", "--json"))["version"] == found["version"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "large"), "--window 'large': expected HEIGHTxWIDTH"),
        (("--into", "said", "--output", "coco"), "--into publishes a dataset version, and --output asks for files"),
        (("--into", "said", "--palette", "voc"), "--into publishes a dataset version, and --palette asks for files"),
        (("--runtime", "local"), "--runtime is of --into"),
        (("--palette", "classes", "--output", "coco"), "palette 'classes' colours masks and overlays, and coco alone"),
        (("--output", "photos"), "output 'photos': expected some of masks"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], message: str, trained: TrainResult, photos: str) -> None:
    result = segpipe("predict", trained.model_uri, photos, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_help_names_what_there_is() -> None:
    kinds = re.findall(r"\w+", predicting._KINDS.partition(".")[0])
    assert {*kinds, "cutouts"} - {"or"} == set(stage.OUTPUTS), "cut-outs have an option of their own"
    listed = re.findall(r"\w+", re.sub(r"\(.*?\)", "", predicting._PALETTES))
    assert set(listed) - {"or"} == set(palettes.NAMES)


def test_the_champion_by_its_name(
    trained: TrainResult, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    result = segpipe("predict", "models:/shapes@champion", photos)
    assert (result.exit_code, "shapes" in result.stderr) == (2, True)
    report = scored(0.5, "unet", checkpoint=trained.model_uri, weights_sha256=trained.weights_sha256)
    assert promote(Path(layout.ledger_uri("shapes")), report, name="shapes").outcome == "promoted"
    found = document(segpipe("predict", "models:/shapes@champion", photos, "--json"))
    assert (found["model"], found["label"], found["made"]) == (trained.model_uri, "shapes", 3)
    assert found["to"].startswith(f"{layout.predictions_uri()}/shapes-")
    assert json.loads((Path(found["to"]) / "records" / "0.json").read_text())["file"] == "0.png"


def test_drift_is_told_where_there_is_something_to_compare_with(
    trained: TrainResult, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspect.signature(predicting.predict).parameters["drift_threshold"].default == THRESHOLD
    arguments = ("predict", trained.model_uri, photos, "--to", str(tmp_path / "out"))
    found = document(segpipe(*arguments, "--json"))["drift"]
    assert (found["has_drifted"], found["threshold"], found["images"], len(found["notes"])) == (False, THRESHOLD, 3, 2)
    assert "no drift of images can be told: " in segpipe(*arguments).stdout.replace("\n", " ")
    refused = segpipe(*arguments, "--drift-threshold", "2")
    assert (refused.exit_code, "at most 1" in refused.stderr) == (2, True)
    brightness = {str(level): 10 for level in range(200, 240)}
    monkeypatch.setattr(drift_stage, "_looks", lambda chosen: drift_stage.Before({"brightness": brightness}, (), None))
    for number in range(3, 12):
        shutil.copy(Path(photos) / "0.png", Path(photos) / f"{number}.png")
    shown = segpipe(*arguments).stdout.replace("\n", " ")
    assert (
        "drift: images or answers are not like those of the training   brightness went from 85.9 % (79.6 to 92.2) to "
        in shown
    )
    assert "least like the training, so label first: " in shown
