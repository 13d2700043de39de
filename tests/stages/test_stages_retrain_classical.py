"""A whole night of baselines beside a network: one board, one gate, and a baseline that is registered and served."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from segpipe import checkpoint
from segpipe.models import MODELS
from segpipe.stages import nights
from tests.fixtures.small import OPTIONS
from tests.stages.toy_night import SCENES, Told, forbid_work, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("nights")

BASELINES = [name for name, spec in MODELS.items() if spec.learns_by == "counting" and spec.task == "semantic"]
CLASSICAL: dict[str, Any] = {
    **SCENES,
    "name": "toy-classical",
    "architectures": [
        {"arch": "unet", "options": OPTIONS["unet"]},
        *({"arch": name} for name in BASELINES),
    ],
}


@pytest.fixture(scope="module")
def night(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe(document=CLASSICAL))


def test_baselines_and_a_network_stand_on_one_board(night: Told) -> None:
    result = night.result
    assert result.failures == {}
    assert {row.label for row in result.board} == {"unet", *BASELINES}
    assert {row.primary for row in result.board} == {"miou"}
    assert result.verdict.outcome == "promoted"
    # A network of one epoch of two steps knows nothing yet; to count eight images is enough for sky and road.
    assert result.board[-1].label == "unet"
    assert {row.label: row.parameters for row in result.board if row.label != "unet"} == dict.fromkeys(BASELINES, 0)
    assert result.board[0].value > 4 * (result.board[0].constant_value or 0)


def test_the_same_night_again_does_nothing(home: Path, night: Told) -> None:
    with surroundings(home) as patch:
        forbid_work(patch)
        assert tell(recipe(document=CLASSICAL)).result.did_nothing


def test_mlflow_shows_what_was_counted(home: Path, night: Told) -> None:
    runs = runs_of(mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db"), "toy-classical")
    metrics = runs["kmeans"].data.metrics
    assert {"val/miou", "test/miou", "test/miou_low"} <= metrics.keys()
    assert runs["kmeans"].data.params["options.clusters"] == "32"


def test_each_model_lists_the_libraries_that_it_needs_itself(home: Path, night: Told) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = {run.info.run_id: label for label, run in runs_of(client, "toy-classical").items()}
    experiment = client.get_experiment_by_name("toy-classical").experiment_id
    listed = {
        runs[model.source_run_id]: set(_names(Path(model.artifact_location) / "requirements.txt"))
        for model in client.search_logged_models([experiment])
    }
    ours = {"scikit-image", "scikit-learn", "threadpoolctl", "opencv-python-headless", "timm"}
    assert {label: names & ours for label, names in listed.items()} == {
        "unet": set(),
        **{label: {"scikit-image"} for label in BASELINES},
        **{label: {"scikit-image", "scikit-learn", "threadpoolctl"} for label in ("kmeans", "spectral_superpixels")},
    }


def _names(file: Path) -> list[str]:
    return [line.partition("==")[0] for line in file.read_text().split()]


def test_the_champion_is_served_and_says_what_its_method_says(home: Path, night: Told) -> None:
    with surroundings(home):
        _, found = nights.last("toy-classical")
        best = next(report for report in found if report.label == night.result.board[0].label)
        model, bundle = checkpoint.load_model(best.checkpoint)
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/toy-classical@champion")
    images_NHW3 = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    ids_NHW = served.predict(images_NHW3)
    method, known = model.method, model._appearance()
    expected = np.stack([method(image_HW3, known).argmax(axis=0) for image_HW3 in images_NHW3])
    assert bundle.arch == best.arch
    assert ids_NHW.dtype == np.uint8
    assert np.array_equal(ids_NHW, expected)
