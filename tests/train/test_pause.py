"""A training that is paused and goes on ends as one that never paused, to the bit; a pause is no ending."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segpipe import checkpoint
from segpipe.config import RunConfig
from segpipe.train import loop
from segpipe.train.loop import fit_until
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import TrainPause, TrainResult
from tests.fixtures.small import small_run
from tests.fixtures.train_worker import CPU, DieAt, moved, run_child, run_ranks, same, train

# Two epochs of four steps, with all that has a state of its own: schedule, average, accumulated micro-batches.
RUN = small_run(batch_size=2, accumulate=2, ema_decay=0.9, warmup_steps=2, schedule="cosine")


def pause(job: TrainJob, until: int) -> TrainPause | TrainResult:
    """`fit_until` in this process, in one thread on the CPU."""
    torch.set_num_threads(1)
    return fit_until(job, LocalRuntime(CPU), until=until)


def pause_and_die(job: TrainJob, until: int) -> None:
    """The same in a process that is killed in the step before."""
    torch.set_num_threads(1)
    fit_until(job, LocalRuntime(CPU, DieAt(until - 1)), until=until)


@pytest.fixture(scope="module")
def unpaused(small: TrainJob, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(replace(small, run=RUN, run_uri=str(tmp_path_factory.mktemp("unpaused"))))


@pytest.mark.parametrize("pauses", [(1, 3, 6), (4,), (7, 8)], ids=["in epochs", "between them", "to the end"])
def test_with_pauses_it_ends_as_without(job: TrainJob, unpaused: TrainResult, pauses: tuple[int, ...]) -> None:
    job = replace(job, run=RUN)
    for until in pauses[:-1]:
        paused = pause(job, until)
        assert isinstance(paused, TrainPause)
        assert (paused.step, paused.total_steps, paused.primary) == (until, 8, "miou")
        assert 0 < paused.score < 1
        assert paused.train_seconds > 0
        assert not Path(job.run_uri, "model").exists()
    pause(job, pauses[-1])
    assert same(train(job)) == same(unpaused)


def test_a_pause_that_was_killed_is_reached_all_the_same(job: TrainJob, unpaused: TrainResult) -> None:
    job = replace(job, run=RUN)
    assert run_child(pause_and_die, job, 7) == (-9, None)
    once, again = pause(job, 7), pause(job, 7)
    assert isinstance(once, TrainPause)
    assert isinstance(again, TrainPause)
    assert (once.score, once.step, once.train_seconds) == (again.score, again.step, again.train_seconds)
    assert same(train(job)) == same(unpaused)


def test_the_score_is_of_the_weights_as_they_stand(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where an epoch's end has measured it, it is not measured again."""
    job = replace(job, run=small_run())
    paused = pause(job, 4)
    assert isinstance(paused, TrainPause)
    newest = checkpoint.newest_state(job.run_uri)
    assert newest is not None
    assert paused.score == newest["history"][-1]["metrics"]["val/miou"] == newest["best_value"]
    monkeypatch.setattr(loop, "_validate", lambda _: pytest.fail("it was validated twice"))
    assert pause(job, 4) == replace(paused, scoring_seconds=pytest.approx(0, abs=1))


def test_a_training_that_ends_before_gives_its_result(job: TrainJob) -> None:
    patient = small_run(epochs=6, patience=1, learning_rate=1e-9)
    ended = pause(replace(job, run=patient), 23)
    assert isinstance(ended, TrainResult)
    assert ended.stopped == "patience"
    assert ended.steps < 23


def ranks_until_three(job: TrainJob, runtime: Any) -> Any:
    return fit_until(job, runtime, until=3)


def test_two_ranks_pause_together(small: TrainJob, tmp_path: Path) -> None:
    run: RunConfig = small_run()
    job, plain = (moved(replace(small, run=run), str(tmp_path / name)) for name in ("paused", "plain"))
    paused = run_ranks(job, str(tmp_path / "first"), way=ranks_until_three)
    assert [(status, answer.step) for status, answer in paused] == [(0, 3), (0, 3)]
    assert paused[0][1].score == paused[1][1].score
    (_, ended), _ = run_ranks(job, str(tmp_path / "second"))
    (_, undisturbed), _ = run_ranks(plain, str(tmp_path / "third"))
    assert same(ended) == same(undisturbed)
