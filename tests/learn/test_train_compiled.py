"""A training whose network torch compiles learns as a plain one, and its weights keep their names: `make learn`."""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.checkpoint import load_model
from tests.fixtures.small import small_run
from tests.fixtures.train_worker import job_at, moved, train


def test_a_compiled_run_learns_as_a_plain_one(tmp_path: Path) -> None:
    losses = []
    for compiled in (False, True):
        run = small_run("segnet_basic", epochs=1, batch_size=8, compile=compiled)
        job = job_at(str(tmp_path), run.model_copy(update={"options": {"width": 2}}))
        result = train(moved(job, str(tmp_path / f"compiled-{compiled}")))
        losses.append([entry["metrics"]["train/loss"] for entry in result.history if "train/loss" in entry["metrics"]])
        load_model(result.model_uri)
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
