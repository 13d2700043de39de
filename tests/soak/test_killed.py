"""Row A1: ingest killed at every step and at random instants: a version is absent or whole, and a rerun ends alike."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from segpipe.stages.ingest import ingest
from tests.fixtures import check_dataset, ingest_worker
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.publish_worker import run_child, start_child
from tests.fixtures.trials import Trials

WHOLE = 510
STEPS = 33  # failpoints that one ingest of `small` passes; `test_killed_at_every_step` says when that changes
IN_PARALLEL = 20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good photographs of a split each, and one that is quarantined."""
    root = write_streets(tmp_path_factory.mktemp("small") / "root", splits={"train": 2, "val": 1})
    (root / "images" / "train_001.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was published before: other samples, so that no shard of `small` is there already."""
    return write_streets(tmp_path_factory.mktemp("other") / "root", splits={"test": 1})


@pytest.fixture
def prepared(small: Path, other: Path, tmp_path: Path, one_core: None) -> Callable[[str, int], tuple[Path, list[str]]]:
    """Makes a folder with `earlier` (0 or 1) versions in it; gives both."""

    def prepare(name: str, earlier: int) -> tuple[Path, list[str]]:
        to = tmp_path / name
        return to, [ingest(streets(other), to=str(to)).version for _ in range(earlier)]

    return prepare


def judged_and_mended(small: Path, to: Path, before: list[str], expected: str) -> None:
    """Whatever the kill has left, nothing half shows, and the next run ends as an undisturbed one."""
    check_dataset.judge(to, allowed=(before, [*before, expected]), swept=False)
    assert ingest(streets(small, max_quarantine=0.5), to=str(to)).version == expected
    check_dataset.judge(to, allowed=([*before, expected],))


def test_killed_at_every_step(
    trials: Trials, small: Path, prepared: Callable[[str, int], tuple[Path, list[str]]]
) -> None:
    to, _ = prepared("expected", 0)
    expected = ingest(streets(small, max_quarantine=0.5), to=str(to)).version

    def trial(number: int) -> None:
        step, earlier = number % STEPS + 1, (number + number // STEPS) % 2
        to, before = prepared(f"step{number}", earlier)
        killed, _ = run_child(
            ingest_worker.ingest_alone, str(small), str(to), 0.5, environment={"SEGPIPE_FAILPOINT": f"*:{step}"}
        )
        assert killed == 137, f"SEGPIPE_FAILPOINT=*:{step} did not kill: lower STEPS"
        judged_and_mended(small, to, before, expected)

    trials.run("A1", range(2 * STEPS if trials.soak else STEPS), trial)
    to, _ = prepared("alive", 0)
    alive, _ = run_child(
        ingest_worker.ingest_alone, str(small), str(to), 0.5, environment={"SEGPIPE_FAILPOINT": f"*:{STEPS + 1}"}
    )
    assert alive == 0, "ingest has more steps than are tried: raise STEPS"


def test_killed_at_random_instants(
    trials: Trials, small: Path, prepared: Callable[[str, int], tuple[Path, list[str]]]
) -> None:
    to, _ = prepared("expected", 0)
    expected = ingest(streets(small, max_quarantine=0.5), to=str(to)).version
    run_child(ingest_worker.ingest_alone, str(small), str(to), 0.5)  # starts the fork server
    started = time.perf_counter()
    run_child(ingest_worker.ingest_alone, str(small), str(prepared("whole", 0)[0]), 0.5)
    whole = time.perf_counter() - started

    def trial(number: int) -> None:
        to, before = prepared(f"instant{number}", number % 2)
        child, receiver = start_child(ingest_worker.ingest_alone, str(small), str(to), 0.5)
        time.sleep(random.Random(number).uniform(0, whole))
        child.kill()
        child.join()
        receiver.close()
        assert child.exitcode in (-signal.SIGKILL, 0)
        judged_and_mended(small, to, before, expected)

    trials.run("A1", WHOLE - 2 * STEPS - IN_PARALLEL, trial)


def test_killed_with_worker_processes_that_end_with_it(
    trials: Trials, source: Path, expected: str, tmp_path: Path
) -> None:
    """As a user runs it: a process a core. The workers notice, and what they were writing is swept."""
    code = "import sys; from tests.fixtures.ingest_worker import ingest_on_two_cores as i; i(*sys.argv[1:])"
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def trial(number: int) -> None:
        to = tmp_path / f"to{number}"
        with subprocess.Popen([sys.executable, "-c", code, str(source), str(to)], env=surroundings) as running:
            until(lambda: bool(children_of(running.pid)) or running.poll() is not None)
            time.sleep(random.Random(number).uniform(0, 2.5))
            running.send_signal(signal.SIGSTOP)  # or it could start one more worker between the look and the kill
            workers = children_of(running.pid)
            running.kill()
        until(lambda: not any(is_running(worker) for worker in workers))
        check_dataset.judge(to, allowed=([], [expected]), swept=False)
        assert run_child(ingest_worker.ingest_alone, str(source), str(to))[1][0] == expected
        check_dataset.judge(to, allowed=([expected],))

    trials.run("A1", IN_PARALLEL, trial)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "nothing happened for 20 s"
        time.sleep(0.02)


def children_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def is_running(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody waits for may stay as a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
