"""Ingest that is killed, or that has no room or right to write: nothing half is left, and the next run mends it."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from segpipe.errors import InputError, SegpipeError
from segpipe.stages.ingest import ingest
from tests.fixtures import check_dataset, ingest_worker
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.publish_worker import run_child, start_child

pytestmark = pytest.mark.xdist_group("ingest")


def test_a_full_disk_is_said_and_room_mends_it(source: Path, expected: str, tmp_path: Path) -> None:
    to = tmp_path / "to"
    for file_bytes in (0, 500, 4000, 10_000):
        status, answer = run_child(ingest_worker.limited_ingest, str(source), str(to), file_bytes)
        assert status == 0
        assert answer[0] == "StorageFullError", answer
        assert "bytes" in answer[1]
        assert check_dataset.versions(to) == []
    assert run_child(ingest_worker.ingest_alone, str(source), str(to)) == (0, (expected, "published"))
    assert check_dataset.leftovers(to) == []


@pytest.mark.usefixtures("one_core")
def test_killed_at_any_step_the_next_run_publishes_the_same_version(tmp_path: Path) -> None:
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    (source / "images" / "train_001.png").write_bytes(b"")
    config = streets(source, max_quarantine=0.5)
    expected = ingest(config, to=str(tmp_path / "expected")).version
    step = 0
    while True:
        step += 1
        to = tmp_path / f"step{step}"
        status, _ = run_child(
            ingest_worker.ingest_alone, str(source), str(to), 0.5, environment={"SEGPIPE_FAILPOINT": f"*:{step}"}
        )
        assert check_dataset.versions(to) in ([], [expected])
        if status == 0:
            break
        assert status == 137
        assert ingest(config, to=str(to)).version == expected
        assert check_dataset.versions(to) == [expected]
        assert check_dataset.leftovers(to) == []
    assert step > 15


def test_killed_at_random_instants_the_next_run_publishes_the_same_version(
    source: Path, expected: str, tmp_path: Path
) -> None:
    run_child(ingest_worker.ingest_alone, str(source), str(tmp_path / "warm-up"))
    started = time.perf_counter()
    run_child(ingest_worker.ingest_alone, str(source), str(tmp_path / "whole"))
    whole = time.perf_counter() - started
    instants = random.Random(0)
    killed = 0
    to = tmp_path / "to"
    for number in range(15):
        child, receiver = start_child(ingest_worker.ingest_alone, str(source), str(to))
        time.sleep(instants.uniform(0, whole))
        child.kill()
        child.join()
        receiver.close()
        killed += child.exitcode == -signal.SIGKILL
        assert check_dataset.versions(to) in ([], [expected]), f"kill {number}"
        if check_dataset.versions(to):
            shutil.rmtree(to)
    assert killed
    assert run_child(ingest_worker.ingest_alone, str(source), str(to))[1][0] == expected
    assert check_dataset.versions(to) == [expected]


def test_a_worker_process_that_dies_is_an_error_with_a_remedy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("SEGPIPE_FAILPOINT", "shard.written:1")
    with pytest.raises(SegpipeError, match="a process that was writing shards died, and nothing was published"):
        ingest(streets(source), to=str(tmp_path / "to"))
    assert check_dataset.versions(tmp_path / "to") == []


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("place", ["below/a/file", "proc"])
def test_an_unwritable_destination_is_named(place: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "below").write_text("in the way")
    to = "/proc/version/dataset" if place == "proc" else f"{tmp_path}/{place}"
    with pytest.raises(InputError) as caught:
        ingest(streets(source), to=to)
    assert to.rsplit("/", 1)[0].split("/")[1] in str(caught.value)
