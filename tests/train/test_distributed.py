"""Two ranks (gloo, on this machine): one run in two processes, with the faults of either."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segpipe import checkpoint
from segpipe.config import RunConfig
from segpipe.data.loader import EvalBatches, TrainBatches
from segpipe.shards import open_dataset
from segpipe.tasks.semantic import SemanticOps
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult
from tests.fixtures.small import CLASSES, IGNORE, publish_small, small_run
from tests.fixtures.train_worker import moved, run_ranks, same, statistics_digest, train

# Two epochs of four steps, a save where each ends. Of the validation images rank 0 gets 8 (one batch), rank 1 gets 3.
RUN = small_run(checkpoint_every=2, ema_decay=0.8)
SAMPLES = {"train": 16, "val": 11, "test": 2}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("ranks")
    version = publish_small(f"{folder}/data", **SAMPLES)
    return TrainJob(run=RUN, data=f"{folder}/data", version=version, run_uri=f"{folder}/run", code_version="test")


@pytest.fixture(scope="module")
def undisturbed(shared: TrainJob) -> TrainResult:
    """What both ranks gave back."""
    (first, ours), (second, theirs) = run_ranks(shared, f"{shared.run_uri}.meeting")
    assert (first, second) == (0, 0)
    assert same(ours) == same(theirs)
    return ours


@pytest.fixture
def job(shared: TrainJob, tmp_path: Path) -> TrainJob:
    return moved(shared, str(tmp_path / "run"))


@pytest.fixture
def meetings(tmp_path: Path) -> Iterator[str]:
    """Files at which the ranks of one attempt meet: a new one for each."""
    return (str(tmp_path / f"meeting-{number}") for number in range(10))


def losses(result: TrainResult) -> list[float]:
    return [entry["metrics"]["train/loss"] for entry in result.history if "train/loss" in entry["metrics"]]


def test_two_ranks_are_one_run(undisturbed: TrainResult, job: TrainJob) -> None:
    """Not bit-equal to one rank, whose batch statistics span four images instead of two, but the same course."""
    alone = train(job)
    assert (undisturbed.epochs, undisturbed.steps, undisturbed.stopped) == (2, 8, "finished")
    assert [entry["step"] for entry in undisturbed.history] == [entry["step"] for entry in alone.history]
    assert losses(undisturbed)[0] == pytest.approx(losses(alone)[0], rel=0.1)
    assert losses(undisturbed) != losses(alone)


def test_without_batch_statistics_two_ranks_compute_what_one_does(job: TrainJob, meetings: Iterator[str]) -> None:
    """The gradient of the global batch, up to the order in which floats are added. A rate of 1e-12 moves nothing."""
    run = small_run(epochs=1, learning_rate=1e-12, batch_size=2)
    results = run_ranks(replace(job, run=run), next(meetings))
    alone = train(replace(moved(job, f"{job.run_uri}-alone"), run=run))
    assert [status for status, _ in results] == [0, 0]
    assert len(losses(results[0][1])) == len(losses(alone)) == 8


def test_the_ranks_cut_the_global_batches(shared: TrainJob) -> None:
    """As in data/test_loader.py, for the very run of this file: no sample twice, none left out."""
    dataset = open_dataset(shared.data)
    for epoch in range(2):
        ranks = [TrainBatches(dataset, RUN.train, rank=rank, world_size=2) for rank in range(2)]
        seen = [[batch.sample_ids for batch in batches.epoch(epoch)] for batches in ranks]
        together = [list(one + other) for one, other in zip(*seen, strict=True)]
        assert together == [ranks[0].sample_ids(epoch, position) for position in range(4)]
        assert sorted(sample_id for batch in together for sample_id in batch) == sorted(dataset.sample_ids("train"))


def test_validation_counts_every_image_once(undisturbed: TrainResult) -> None:
    """The last scores are those of the saved weights over the whole split, counted here by one process."""
    dataset, ops = open_dataset(f"{Path(undisturbed.run_uri).parent}/data"), SemanticOps(CLASSES, IGNORE)
    final = checkpoint.load(undisturbed.run_uri, 8)
    model, bundle = checkpoint.load_model(undisturbed.model_uri)
    model.load_state_dict(dict(final.weights))
    meter = ops.meter()
    for batch in EvalBatches(dataset, "val", batch_size=8):
        ops.measure(meter, ops.predict(model, batch, bundle), batch)
    expected = {f"val/{name}": value for name, value in ops.scores(meter).items()}
    assert undisturbed.history[-1]["metrics"] == expected
    assert sorted(meter.pixels.per_sample) == dataset.sample_ids("val")


def test_both_ranks_validate_with_the_batch_statistics_that_are_saved(
    job: TrainJob, meetings: Iterator[str], tmp_path: Path
) -> None:
    """Each rank sees other crops and so other statistics; a score must be that of the weights that a resume loads."""
    files = [tmp_path / f"statistics-{rank}" for rank in range(2)]
    options = {rank: {"statistics_to": str(file)} for rank, file in enumerate(files)}
    results = run_ranks(replace(job, run=small_run()), next(meetings), options=options)
    assert [status for status, _ in results] == [0, 0]
    saved = [statistics_digest(checkpoint.load(job.run_uri, step).weights) for step in (4, 8)]
    assert [file.read_text().split() for file in files] == [saved, saved]
    assert len(set(saved)) == 2


@pytest.mark.parametrize(
    ("rank", "steps"),
    [(1, (1,)), (0, (5,)), (1, (5, 3))],
    ids=["before the first save", "rank 0", "twice"],
)
def test_a_run_that_lost_a_rank_ends_as_the_undisturbed_one(
    job: TrainJob, meetings: Iterator[str], undisturbed: TrainResult, rank: int, steps: tuple[int, ...]
) -> None:
    """`steps` count from the start of each attempt; the second attempt of the last case begins at step 4."""
    for step in steps:
        statuses = attempt(job, next(meetings), {rank: {"die_in_step": step}})
        assert statuses[rank] == -9
        assert statuses[1 - rank] not in (0, -9), "the survivor cannot go on alone"
        assert not Path(job.run_uri, "model").exists()
    results = run_ranks(job, next(meetings))
    assert [status for status, _ in results] == [0, 0]
    assert same(results[0][1]) == same(results[1][1]) == same(undisturbed)


def attempt(job: TrainJob, meeting: str, options: Mapping[int, Mapping[str, Any]]) -> list[int]:
    return [status for status, _ in run_ranks(job, meeting, options=options)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [0, 5])
def test_nonsense_on_one_rank_stops_both_within_the_step(
    job: TrainJob, meetings: Iterator[str], rank: int, step: int
) -> None:
    results = run_ranks(job, next(meetings), options={rank: {"nonsense_in_step": step}})
    dataset = open_dataset(job.data)
    batches = TrainBatches(dataset, RUN.train, rank=0, world_size=1)
    for number, (status, (kind, message)) in enumerate(results):
        assert (status, kind) == (0, "NonFiniteError")
        assert f"on rank {number} at step {step} (epoch {step // 4})" in message
        assert f"in samples {', '.join(batches.sample_ids(step // 4, step % 4))}." in message
    found = checkpoint.latest(job.run_uri)
    assert (found.step if found else 0) == (4 if step else 0)
    assert not Path(job.run_uri, "model").exists()


def test_a_batch_that_does_not_divide_is_refused_on_every_rank(job: TrainJob, meetings: Iterator[str]) -> None:
    run: RunConfig = small_run(batch_size=3)
    for status, (kind, message) in run_ranks(replace(job, run=run), next(meetings)):
        assert (status, kind) == (0, "InputError")
        assert "train.batch_size is 3, which does not divide over 2 workers" in message
