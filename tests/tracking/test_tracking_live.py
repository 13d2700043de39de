"""The live logger: values arrive, and nobody waits or fails when they cannot."""

import logging
import pickle
import time

import mlflow
import pytest

from segpipe import tracking
from segpipe.tracking import MetricLogger, RunRef, live
from tests.fixtures.mlflow_store import free_port, speaking


@pytest.fixture(autouse=True)
def _ship_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.05)


def values(run: RunRef, name: str) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient(run.tracking_uri).get_metric_history(run.run_id, name)
    return sorted((m.step, m.value) for m in history)


def test_values_arrive(open_run) -> None:
    run = open_run("a")
    logger = MetricLogger(run)
    for step in range(5):
        logger({"train/loss": 1.0 / (step + 1), "train/losses/car (left)": 0.5}, step)
    assert logger.close(60) == 0
    assert values(run, "train/loss") == [(step, 1.0 / (step + 1)) for step in range(5)]
    assert len(values(run, "train/losses/car _left_")) == 5


def test_a_copy_in_another_process_has_a_queue_of_its_own(open_run) -> None:
    run = open_run("a")
    logger = MetricLogger(run)
    logger({"train/loss": 1.0}, 1)
    copy = pickle.loads(pickle.dumps(logger))
    copy({"train/loss": 2.0}, 2)
    assert (logger.close(60), copy.close(60)) == (0, 0)
    assert values(run, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_steps_that_a_resumed_training_repeats_are_not_doubled(open_run) -> None:
    run = open_run("a")
    for first in (0, 3):
        logger = MetricLogger(run)
        for step in range(first, first + 5):
            logger({"train/loss": float(step)}, step)
        assert logger.close(60) == 0
    assert values(run, "train/loss") == [(step, float(step)) for step in range(8)]
    history = [{"step": step, "epoch": 0, "metrics": {"train/loss": float(step)}} for step in range(9)]
    assert tracking.mirror_history(run, history) == 1


def test_what_is_not_a_number_is_counted_and_does_not_raise(open_run, caplog: pytest.LogCaptureFixture) -> None:
    logger = MetricLogger(open_run("a"))
    logger({"train/loss": "much", "val/miou": 0.5}, 1)  # type: ignore[dict-item]
    assert logger.close(60) == 1
    assert "train/loss of step 1 is not a number" in caplog.text


def test_a_full_queue_loses_its_oldest_values(monkeypatch: pytest.MonkeyPatch, open_run) -> None:
    monkeypatch.setattr(live, "CAPACITY", 10)
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 3600.0)
    run = open_run("a")
    logger = MetricLogger(run)
    for step in range(25):
        logger({"train/loss": float(step)}, step)
    assert logger.close(60) == 15
    assert values(run, "train/loss") == [(step, float(step)) for step in range(15, 25)]


def test_values_that_mlflow_refuses_are_counted_and_do_not_stop_the_rest(
    open_run, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run("a")
    gone = RunRef(tracking_uri=run.tracking_uri, experiment_id=run.experiment_id, run_id="0" * 32, key="a")
    logger = MetricLogger(gone)
    logger({"train/loss": 1.0}, 1)
    assert logger.close(60) == 1
    assert "1 live metric values are not in MLflow: MLflow at sqlite" in caplog.text
    assert "Traceback" not in caplog.text


def test_training_does_not_wait_for_a_server_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    run = RunRef(tracking_uri=f"http://127.0.0.1:{free_port()}", experiment_id="1", run_id="a", key="a")
    with caplog.at_level(logging.WARNING):
        _log_a_lot(run)
    assert "live metrics are waiting, training goes on" in caplog.text


def test_training_does_not_wait_for_a_server_that_hangs() -> None:
    with speaking(None) as uri:
        _log_a_lot(RunRef(tracking_uri=uri, experiment_id="1", run_id="a", key="a"))


def _log_a_lot(run: RunRef) -> None:
    logger = MetricLogger(run)
    start = time.monotonic()
    for step in range(1000):
        logger({"train/loss": 1.0}, step)
    logged = time.monotonic() - start
    unsent = logger.close(4)
    # Bounds with a lot of room: a logger that waited for the server would need minutes.
    assert logged < 5
    assert time.monotonic() - start < 20
    assert unsent == 1000


def test_closing_without_a_value_is_free() -> None:
    assert MetricLogger(RunRef(tracking_uri="http://x", experiment_id="1", run_id="a", key="a")).close() == 0
