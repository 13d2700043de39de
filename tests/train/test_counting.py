"""Training by counting: one pass that a slow count agrees with, whole in one rank or shared, and nothing ignored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segpipe import checkpoint
from segpipe.classical.appearance import count
from segpipe.data.decode import decode
from segpipe.errors import InputError
from segpipe.train import counting
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import TrainProgress
from tests.fixtures.bundles import parts_of, report_of, share_of
from tests.fixtures.small import CLASSES, small_run, small_samples
from tests.fixtures.train_worker import CPU, job_at, moved, run_ranks

KMEANS = small_run("kmeans")


@pytest.fixture
def job(small: TrainJob, tmp_path: Path) -> TrainJob:
    return replace(small, run=KMEANS, run_uri=str(tmp_path / "run"))


def test_it_counts_the_training_split_as_a_slow_count_does(job: TrainJob) -> None:
    result = counting.fit(job, LocalRuntime(CPU))
    model, bundle = checkpoint.load_model(result.model_uri)
    parts = []
    for sample in small_samples("train", 16):
        labels_HW = np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)
        parts.append(count(decode(sample).image_3HW.permute(1, 2, 0).numpy(), labels_HW, len(CLASSES)))
    state = model.state_dict()
    assert np.array_equal(state["colours_KB"].numpy(), sum(part.colours_KB for part in parts))
    assert np.array_equal(state["places_KP"].numpy(), sum(part.places_KP for part in parts))
    assert bundle.weights_sha256 == result.weights_sha256
    assert (result.parameters, result.stopped, result.epochs, result.best_epoch) == (0, "finished", 1, 1)
    (entry,) = result.history
    assert entry["metrics"]["val/miou"] == result.best_value > 0.8


def test_its_progress_is_told_from_nothing_to_all(job: TrainJob) -> None:
    told: list[TrainProgress] = []
    counting.fit(job, LocalRuntime(CPU, on_progress=told.append))
    assert [each.step for each in told] == [0, 1, 2, 3]
    assert {each.total_steps for each in told} == {3}
    assert told[-1].metrics["val/miou"] > 0.8


def test_two_ranks_count_what_one_does(job: TrainJob, tmp_path: Path) -> None:
    alone = counting.fit(job, LocalRuntime(CPU))
    shared = moved(job, str(tmp_path / "shared"))
    for status, result in run_ranks(shared, str(tmp_path / "meeting"), way=counting.fit):
        assert status == 0, result
        assert result.weights_sha256 == alone.weights_sha256
        assert (result.best_value, result.history[0]["metrics"]) == (alone.best_value, alone.history[0]["metrics"])


@pytest.mark.parametrize("arch", ["colour_thresholds", "kmeans", "spectral_superpixels", "watershed", "graph_cut"])
def test_any_number_of_workers_evaluates_to_the_same_bits(job: TrainJob, arch: str) -> None:
    result = counting.fit(replace(job, run=small_run(arch)), LocalRuntime(CPU))
    share = share_of(job, result)
    reports = []
    for world_size, threads in ((1, 1), (3, 2)):
        torch.set_num_threads(threads)
        reports.append(report_of(share, parts_of(share, world_size)))
    assert reports[0] == reports[1]
    assert reports[0].parameters == 0
    assert reports[0].value > 0.6, "three classes of flat colours"


def test_a_single_output_for_two_classes_is_refused(tmp_path: Path) -> None:
    job = job_at(str(tmp_path), small_run("kmeans", sigmoid=True), two_classes=True)
    with pytest.raises(InputError, match=r"kmeans: train: sigmoid is true: a model that counts has a score for each"):
        counting.fit(job, LocalRuntime(CPU))
