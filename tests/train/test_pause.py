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
from tests.fixtures.train_worker import CPU, moved, run_ranks, same, train

# Two epochs of four steps, with all that has a state of its own: schedule, average, accumulated micro-batches.
RUN = small_run(batch_size=2, accumulate=2, ema_decay=0.9, warmup_steps=2, schedule="cosine")


def pause(job: TrainJob, until: int) -> TrainPause | TrainResult:
    """`fit_until` in this process, in one thread on the CPU."""
    torch.set_num_threads(1)
    return fit_until(job, LocalRuntime(CPU), until=until)


def test_with_pauses_it_ends_as_without(job: TrainJob, small: TrainJob, tmp_path: Path) -> None:
    unpaused = train(replace(small, run=RUN, run_uri=str(tmp_path / "unpaused")))
    job = replace(job, run=RUN)
    for until in (1, 4, 7):  # in an epoch, at the end of one, in the next
        paused = pause(job, until)
        assert isinstance(paused, TrainPause)
        assert (paused.step, paused.total_steps, paused.primary) == (until, 8, "miou")
        assert 0 < paused.score < 1
        assert paused.train_seconds > 0
        assert not Path(job.run_uri, "model").exists()
    again = pause(job, 7)
    assert isinstance(again, TrainPause)
    assert (again.score, again.step, again.train_seconds) == (paused.score, 7, paused.train_seconds), "it is one pause"
    ended = pause(job, 8)
    assert isinstance(ended, TrainResult)
    assert same(ended) == same(train(job)) == same(unpaused)


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
    job = moved(replace(small, run=run), str(tmp_path / "paused"))
    paused = run_ranks(job, str(tmp_path / "meeting"), way=ranks_until_three)
    assert [(status, answer.step) for status, answer in paused] == [(0, 3), (0, 3)]
    assert paused[0][1].score == paused[1][1].score
