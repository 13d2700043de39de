"""What a trained model costs, in MLflow: counted once, by whichever door, and no fault of it ends a night."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segpipe import tracking
from segpipe.errors import InputError, UnreachableError
from segpipe.models import spec
from segpipe.profiles import account
from segpipe.stages import costs
from tests.fixtures.example_reports import scored
from tests.stages.toy_night import SCENES, Told, columns_of, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("costs")

SCENE_CLASSES = 8
UNET, _ = SCENES["architectures"]
KMEANS = {"arch": "kmeans", "options": {"clusters": 4}}
SEGFORMER = {"arch": "segformer_b0", "options": dict(spec("segformer_b0").tiny)}
VIEWS = {"scales": [0.5, 1.0], "mirror": True, "window": {"size": [32, 32]}, "crf": {"iterations": 1}}
MANY = {**UNET, "label": "many", "train": {"inference": VIEWS}}
DOCUMENT = SCENES | {"architectures": [UNET, KMEANS, SEGFORMER, MANY]}


@pytest.fixture(scope="module")
def night(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe(document=DOCUMENT))


@pytest.fixture
def client(home: Path, night: Told) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def test_a_run_tells_what_its_model_costs(client: MlflowClient) -> None:
    data = runs_of(client, "toy")["unet"].data
    found = account("unet", SCENE_CLASSES, UNET["options"], passes={(32, 40): 1}, crops=(4, 32, 32))
    assert found.multiply_adds is not None
    assert found.crop_multiply_adds is not None
    assert found.step_bytes is not None
    costs_of = {name: value for name, value in data.metrics.items() if name.startswith("cost/")}
    assert costs_of == {
        "cost/parameters": found.parameters,
        "cost/prediction_gflops": pytest.approx(2e-9 * found.multiply_adds, rel=1e-3),
        "cost/step_gb": pytest.approx(1e-9 * found.step_bytes, rel=1e-3),
    }
    assert (data.params["cost.pass"], data.params["cost.prediction"]) == (
        "32x40",
        "an image of 32x40: passes 1 of 32x40",
    )
    assert float(data.params["cost.pass_gflops"]) == pytest.approx(2e-9 * found.multiply_adds, rel=1e-3)
    assert data.params["cost.step"] == "4 crops of 32x32, float32, without the optimiser's state"
    assert float(data.params["cost.crop_gflops"]) == pytest.approx(2e-9 * found.crop_multiply_adds, rel=1e-3)
    assert data.params["cost.field_of_view"] == "the whole image", "squeeze and excitation sees all of it"
    assert "cost.not_counted" not in data.params


def test_a_prediction_of_many_passes_tells_what_all_of_them_cost(client: MlflowClient) -> None:
    data = runs_of(client, "toy")["many"].data
    told = "an image of 32x40: passes 2 of 16x20, 4 of 32x32; its CRF is not counted"
    assert (data.params["cost.pass"], data.params["cost.prediction"]) == ("32x32", told)
    found = account("unet", SCENE_CLASSES, UNET["options"], passes={(16, 20): 2, (32, 32): 4}, crops=None)
    assert found.prediction_multiply_adds is not None
    assert data.metrics["cost/prediction_gflops"] == pytest.approx(2e-9 * found.prediction_multiply_adds, rel=1e-3)
    assert float(data.params["cost.pass_gflops"]) < data.metrics["cost/prediction_gflops"] / 4


def test_seconds_are_those_of_the_evaluation(client: MlflowClient, night: Told) -> None:
    data = runs_of(client, "toy")["unet"].data
    assert data.metrics["test/latency_ms"] > 0
    assert "ms an image on one thread of a CPU" in data.tags["mlflow.note.content"]


def test_what_is_not_known_says_so(client: MlflowClient) -> None:
    runs = runs_of(client, "toy")
    counting, attending = runs["kmeans"].data, runs["segformer_b0"].data
    assert {name for name in counting.metrics if name.startswith("cost/")} == {"cost/parameters"}
    assert counting.params["cost.not_counted"] == "it is no network"
    assert "cost.receptive_field" not in counting.params
    assert attending.params["cost.receptive_field"].startswith("not known (_safe_softmax, ")
    assert attending.metrics["cost/prediction_gflops"] > 0


def test_a_table_of_runs_can_still_be_looked_at(client: MlflowClient) -> None:
    assert len(columns_of(client, "toy")) < 30


def test_the_same_night_again_counts_nothing(home: Path, night: Told) -> None:
    with surroundings(home) as patch:
        patch.setattr(costs, "account", lambda *given, **told: pytest.fail("a cost was counted again"))
        assert tell(recipe(document=DOCUMENT)).result.did_nothing


def test_a_store_that_is_away_leaves_the_count_to_the_next_night(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnreachableError("s3://home: nobody answers")

    monkeypatch.setattr("segpipe.tracking.has_params", lambda *_: False)
    monkeypatch.setattr("segpipe.tracking.record_values", lambda *_, **__: pytest.fail("it was given up"))
    monkeypatch.setattr("segpipe.checkpoint.load_bundle", away)
    run = tracking.RunRef(tracking_uri="sqlite://", experiment_id="1", run_id="r", key="k")
    with pytest.raises(UnreachableError):
        costs.show(run, recipe().run_config(0), scored(0.5), data="datasets/toy")


@pytest.mark.parametrize(
    ("fault", "traceback"), [(InputError("it has no such thing"), False), (RuntimeError("meta tensors"), True)]
)
def test_a_fault_of_counting_is_told_and_the_night_goes_on(
    new_home: Callable[[], Path], fault: Exception, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object, **told: object) -> None:
        raise fault

    home = new_home()
    with surroundings(home) as patch, caplog.at_level(logging.WARNING, logger=costs.__name__):
        patch.setattr(costs, "account", fail)
        told = tell(recipe(document=SCENES | {"architectures": [UNET]}))
    assert (told.result.failures, told.result.verdict.outcome) == ({}, "promoted")
    (record,) = [record for record in caplog.records if record.name == costs.__name__]
    assert record.getMessage() == f"the cost of unet is not counted: {fault}"
    assert bool(record.exc_info) == traceback
    data = runs_of(MlflowClient(f"sqlite:///{home}/mlflow.db"), "toy")["unet"].data
    assert data.params["cost.not_counted"] == f"a fault: {fault}"
    assert "test/miou" in data.metrics, "what comes after it is shown"
