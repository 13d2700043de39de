"""A night in which one entry differs from another after training alone: trained once, two models on the board."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from segpipe.checkpoint import load_bundle
from segpipe.stages import train as train_stage
from segpipe.types import CrfSettings
from tests.stages.toy_night import SCENES, Told, forbid_work, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("costs")
UNET, _ = SCENES["architectures"]
REFINED = {**UNET, "label": "refined", "train": {"inference": {"crf": {"iterations": 1}}}}
DOCUMENT: dict[str, Any] = {**SCENES, "architectures": [UNET, REFINED]}


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def trained() -> list[str]:
    """Labels of what was trained that night."""
    return []


@pytest.fixture(scope="module")
def night(home: Path, trained: list[str]) -> Told:
    fit = train_stage.fit

    def counted(job: Any, runtime: Any) -> Any:
        trained.append(job.run.label)
        return fit(job, runtime)

    with surroundings(home) as patch:
        patch.setattr(train_stage, "fit", counted)
        return tell(recipe(document=DOCUMENT))


def test_it_is_trained_once_and_both_are_on_the_board(home: Path, night: Told, trained: list[str]) -> None:
    assert night.result.failures == {}
    assert trained == ["unet"]
    assert {row.label for row in night.result.board} == {"unet", "refined"}
    (plain,), (refined,) = (list(home.glob(f"runs/toy/{label}-*")) for label in ("unet", "refined"))
    assert (plain / "checkpoints").exists()
    assert not (refined / "checkpoints").exists()
    crfs = [load_bundle(f"{folder}/model").inference.crf for folder in (plain, refined)]
    assert crfs == [None, CrfSettings(iterations=1)]


def test_mlflow_shows_the_curves_of_its_training_and_whose_it_is(home: Path, night: Told) -> None:
    runs = runs_of(MlflowClient(f"sqlite:///{home}/mlflow.db"), "toy")
    assert runs["refined"].data.params["trained_as"] == "unet"
    assert runs["refined"].data.metrics["val/miou"] == runs["unet"].data.metrics["val/miou"]
    assert "trained_as" not in runs["unet"].data.params


def test_another_crf_the_next_night_trains_nothing(home: Path, night: Told) -> None:
    other = "architectures.1.train.inference.crf.iterations=2"
    with surroundings(home) as patch:
        patch.setattr(train_stage, "fit", lambda job, runtime: pytest.fail("a model was trained"))
        told = tell(recipe(other, document=DOCUMENT))
        assert (told.result.failures, told.result.did_nothing) == ({}, False)
        forbid_work(patch)
        assert tell(recipe(other, document=DOCUMENT)).result.did_nothing
    assert len(list(home.glob("runs/toy/refined-*/model"))) == 2
