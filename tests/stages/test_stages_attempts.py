"""How the attempts of a night end: one that fails in any way stops no other, and Ctrl-C stops all of them at once."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from segpipe import checkpoint, tracking
from segpipe.config import Recipe
from segpipe.errors import ConflictError, InputError, SegpipeError
from segpipe.stages import layout, mirror
from segpipe.stages import retrain as night_stage
from segpipe.stages import train as train_stage
from segpipe.stages.attempts import attempt_all, message_of
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import IngestResult
from segpipe.stages.opening import OpenNight
from segpipe.stages.retrain import retrain, sort_outcomes, train_and_evaluate
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored
from tests.stages.toy_night import SCENES, recipe

OUT_OF_MEMORY = "toy-unet: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"
SECONDS_TO_STOP = 20.0  # of which a busy machine needs most to import and to tidy up


def raising(error: BaseException) -> Callable[[], EvalReport]:
    def attempt() -> EvalReport:
        raise error

    return attempt


@pytest.mark.parametrize("side_by_side", [False, True])
def test_one_that_starts_from_another_waits_for_its_ending(side_by_side: bool) -> None:
    ended: list[str] = []

    def attempt(label: str) -> EvalReport:
        time.sleep(0.05 if label == "parent" else 0.0)
        ended.append(label)
        if label == "parent":
            raise InputError("the parent failed")
        return scored(0.5, label)

    attempts = {label: partial(attempt, label) for label in ("parent", "child", "grandchild")}
    awaited = {"child": ["parent"], "grandchild": ["child", "parent"]}
    outcomes = attempt_all(attempts, side_by_side=side_by_side, awaited=awaited)
    assert ended == ["parent", "child", "grandchild"]
    assert [type(outcome).__name__ for outcome in outcomes.values()] == ["InputError", "EvalReport", "EvalReport"]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_whatever_ends_an_attempt_the_others_go_on(side_by_side: bool, caplog: pytest.LogCaptureFixture) -> None:
    attempts = {
        "memory": raising(RuntimeError(f"{OUT_OF_MEMORY}\nIn the training worker:\nTraceback ...")),
        "good": lambda: scored(0.5, "good"),
        "input": raising(InputError("split 'trian' is missing\nthere are: train")),
        "bug": raising(KeyError("label")),
    }
    outcomes = attempt_all(attempts, side_by_side=side_by_side)
    assert list(outcomes) == list(attempts)
    candidates, failures = sort_outcomes(outcomes)
    known = "(no fault that segpipe knows; its traceback is in the log)"
    assert [report.label for report in candidates] == ["good"]
    assert failures == {
        "memory": f"RuntimeError: {OUT_OF_MEMORY} {known}",
        "input": "split 'trian' is missing\nthere are: train",
        "bug": f"KeyError: 'label' {known}",
    }
    logged = {entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR and entry.exc_info}
    assert logged == {"memory failed", "bug failed"}


def test_what_is_no_exception_is_not_swallowed_in_a_thread() -> None:
    with pytest.raises(SystemExit):
        attempt_all({"odd": raising(SystemExit(3))}, side_by_side=True)


def test_a_message_without_text_still_says_something() -> None:
    assert message_of(MemoryError()).startswith("MemoryError: ")


# --- what MLflow is shown of it


@pytest.mark.parametrize(
    ("error", "shown"), [(RuntimeError("a bug"), True), (InputError("no"), True), (ConflictError("theirs"), False)]
)
def test_a_failed_attempt_is_shown_unless_another_process_is_at_work(
    error: Exception, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(night_stage, "train", lambda *_, **__: raising(error)())
    monkeypatch.setattr(mirror, "show_failure", lambda run, **_: told.append(run.label))
    with pytest.raises(type(error)):
        train_and_evaluate(recipe(), 0, open_night())
    assert told == (["unet"] if shown else [])


def test_a_bug_in_the_choice_leaves_no_run_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tracking.RunRef | None] = []
    monkeypatch.setattr(night_stage, "promote_best", lambda *_, **__: raising(KeyError("a bug"))())
    monkeypatch.setattr(mirror, "close_failed", lambda _, *, parent: closed.append(parent))
    with pytest.raises(KeyError):
        night_stage.choose(recipe(), open_night(), [scored(0.5)], {})
    assert closed == [None]


def open_night() -> OpenNight:
    dataset = IngestResult(
        name="streets",
        uri="streets",
        version="v1",
        status="published",
        splits={},
        quarantined=(),
        warnings=(),
        seconds=0.0,
    )
    runs = tuple(map(resolve, recipe().run_configs()))
    return OpenNight(dataset=dataset, runs=runs, parent=None, nothing_to_do=False)


# --- Ctrl-C


def stopped(
    process: subprocess.Popen[str], ready: Callable[[], bool], number: signal.Signals = signal.SIGINT
) -> tuple[int, float, str]:
    """(exit status, seconds it took to end, standard error) of a process that gets a signal as soon as `ready()`."""
    try:
        until = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        started = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, time.monotonic() - started, errors


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_does_not_wait_for_what_runs_side_by_side(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from segpipe.cli import main\n"
        "from segpipe.stages import nights\n"
        "from segpipe.stages.attempts import attempt_all\n"
        "def attempt(name):\n"
        "    pathlib.Path(folder, name).touch()\n"
        "    time.sleep(600)\n"
        "def board(experiment):\n"
        "    attempt_all({n: (lambda n=n: attempt(n)) for n in 'abc'}, side_by_side=True)\n"
        "nights.board, folder, sys.argv = board, sys.argv[1], ['segpipe', 'board']\n"
        "main()\n"
    )
    status, seconds, errors = stopped(python(script, str(tmp_path)), lambda: len(list(tmp_path.iterdir())) == 3)
    assert status == 130, errors
    assert seconds < SECONDS_TO_STOP
    assert "the same command continues from here" in errors


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ctrl_c_or_a_kill_stops_a_retrain_and_the_next_one_goes_on_at_once(
    number: signal.Signals, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document: dict[str, Any] = json.loads(json.dumps(SCENES))
    document["architectures"] = document["architectures"][:1]
    document["train"] |= {"epochs": 1000, "evaluate_every": 1000, "checkpoint_every": 3}
    path = tmp_path / "long.yaml"
    path.write_text(json.dumps(document))
    runs = Path(layout.runs_uri("toy"))
    script = (
        "import os, sys\n"
        "os.sched_getaffinity = lambda _: {0}\n"
        "from segpipe.cli import main\n"
        "sys.argv = ['segpipe', 'retrain', sys.argv[1], '--runtime', 'local', '--json']; main()\n"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, seconds, errors = stopped(
        python(script, str(path)), lambda: bool(list(runs.glob("unet-*/checkpoints/step-*/state.json"))), number
    )
    assert status == expected, errors
    assert seconds < SECONDS_TO_STOP
    assert "Traceback" not in errors

    class ResumedError(Exception):
        pass

    def resume(job: train_stage.TrainJob, runtime: object) -> None:
        found = checkpoint.latest(job.run_uri)
        assert found is not None
        assert found.step >= 2
        raise ResumedError

    monkeypatch.setattr(train_stage, "fit", resume)
    started = time.monotonic()
    with pytest.raises(SegpipeError, match="ResumedError"):
        retrain(Recipe.load(str(path)), runtime="local")
    assert time.monotonic() - started < SECONDS_TO_STOP
