"""Mask2Former as a model of objects and of classes, through the loops as they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from segpipe.config import InferenceConfig
from segpipe.errors import InputError
from segpipe.tasks import TASKS
from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import Task
from tests.fixtures.bundles import parts_of, report_of, share_of
from tests.fixtures.small_streets import publish_streets, street_run

TWO_VIEWS = InferenceConfig(scales=(1.0,), mirror=True)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("query-objects")
    version = publish_streets(f"{folder}/data")
    run = street_run("mask2former")
    return TrainJob(run=run, data=f"{folder}/data", version=version, run_uri=str(folder), code_version="test")


@pytest.mark.parametrize(
    ("task", "keys"), [("instance", {}), ("semantic", {}), ("semantic", {"inference": TWO_VIEWS, "input_scale": 0.5})]
)
def test_it_is_trained_and_scored_as_any_model_of_the_task(
    job: TrainJob, task: str, keys: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = street_run("mask2former", task=task, **keys)
    result = fit(replace(job, run=run, run_uri=str(tmp_path_factory.mktemp(task))), LocalRuntime(torch.device("cpu")))
    steps = [entry["metrics"] for entry in result.history if "train/loss" in entry["metrics"]]
    assert len(steps) == 4
    for metrics in steps:
        assert {name for name in metrics if "/losses/" in name} == {
            f"train/losses/{n}" for n in ("class", "mask", "dice")
        }
        assert all(math.isfinite(value) for value in metrics.values())
    share = share_of(job, result)
    reports = [report_of(share, parts_of(share, workers)) for workers in (1, 3)]
    assert reports[0] == reports[1]
    assert (reports[0].task, reports[0].num_samples) == (task, 7)
    assert reports[0].primary == TASKS[Task(task)].primary


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_weights": "enet"}, "mask2former: train: class_weights is enet: .* leave it out"),
        ({"aux_weight": 0.1}, "mask2former: train: aux_weight is 0.1: .* leave it out"),
    ],
)
def test_weights_of_pixels_and_heads_are_no_part_of_its_loss(
    job: TrainJob, keys: dict[str, object], message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = street_run("mask2former", task="semantic", **keys)
    with pytest.raises(InputError, match=message):
        fit(replace(job, run=run, run_uri=str(tmp_path_factory.mktemp("weighted"))), LocalRuntime(torch.device("cpu")))
