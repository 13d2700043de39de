"""Mask2Former as a panoptic model, through the loops as they are."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult
from tests.fixtures.bundles import parts_of, report_of, share_of
from tests.fixtures.small_streets import publish_streets, street_run


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("query-streets")
    version = publish_streets(f"{folder}/data")
    run = street_run("mask2former")
    return TrainJob(run=run, data=f"{folder}/data", version=version, run_uri=f"{folder}/run", code_version="test")


@pytest.fixture(scope="module")
def trained(job: TrainJob) -> TrainResult:
    return fit(job, LocalRuntime(torch.device("cpu")))


def losses_of(result: TrainResult) -> list[dict[str, float]]:
    return [entry["metrics"] for entry in result.history if "train/loss" in entry["metrics"]]


def test_a_person_sees_three_terms_in_training(trained: TrainResult) -> None:
    steps = losses_of(trained)
    assert len(steps) == 4
    for metrics in steps:
        terms = [metrics[f"train/losses/{name}"] for name in ("class", "mask", "dice")]
        assert min(terms) > 0
        assert math.isfinite(metrics["train/loss"])
        assert metrics["train/loss"] == pytest.approx(sum(terms))


def test_a_second_training_draws_the_same_points(job: TrainJob, trained: TrainResult, tmp_path: Path) -> None:
    """And so comes to the same weights: points are a function of (seed, step, rank), as dropout is."""
    again = fit(dataclasses.replace(job, run_uri=f"{tmp_path}/again"), LocalRuntime(torch.device("cpu")))
    assert losses_of(again) == losses_of(trained)
    assert again.weights_sha256 == trained.weights_sha256


def test_reports_are_bit_equal_for_any_number_of_workers(job: TrainJob, trained: TrainResult) -> None:
    share = share_of(job, trained)
    found = [report_of(share, parts_of(share, workers)) for workers in (1, 3)]
    assert found[0] == found[1]
    assert found[0].num_samples == 7
    assert found[0].primary == "pq/all"
