"""Ingest that has no room or right to write, or loses a worker: nothing half is left, and the next run mends it.

Kills by the hundred, and disks that fill up at every step, are in tests/soak.
"""

import os
from pathlib import Path

import pytest

from segpipe.errors import InputError, SegpipeError
from segpipe.stages.ingest import ingest
from tests.fixtures import check_dataset, ingest_worker
from tests.fixtures.ingest_worker import streets
from tests.fixtures.publish_worker import run_child

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
