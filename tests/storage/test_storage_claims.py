"""Claims: any number of users of a folder, each seen by the others, none longer than it lives."""

import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import CorruptError
from segpipe.storage import claims as room
from segpipe.storage import process
from tests.fixtures.publish_worker import finish_child, start_child

ELSEWHERE = storage.Claim(
    kind="read",
    about="v1",
    who="ann",
    host="node7",
    place="elsewhere",
    pid=41,
    life="",
    at="2026-01-02T03:04:05+00:00",
    token="00",
)


def test_each_of_several_sees_the_others_until_they_end(root: str) -> None:
    with storage.claim(root, kind="read", about="v1", who="ann") as first:
        with storage.claim(root, kind="gc", about="", who="bob") as second:
            assert storage.claimants(root, beside=second) == [first]
            assert storage.claimants(root, beside=first) == [second]
            assert {each.token for each in storage.claimants(root)} == {first.token, second.token}
        assert storage.claimants(root, beside=first) == []
    assert storage.inventory(root) == []


def test_an_error_withdraws_it(root: str) -> None:
    with pytest.raises(KeyboardInterrupt), storage.claim(root, kind="read", about="", who="ann"):
        raise KeyboardInterrupt
    assert storage.claimants(root) == []


def hold_for_ever(folder: str, sign: str) -> None:
    with storage.claim(folder, kind="ingest", about="", who="ann"):
        Path(sign).touch()
        time.sleep(600)


def test_that_of_a_killed_process_ends_at_once_and_is_removed(tmp_path: Path) -> None:
    folder, sign = str(tmp_path / "claims"), tmp_path / "ready"
    started = start_child(hold_for_ever, folder, str(sign))
    until = time.monotonic() + 60
    while not sign.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert [each.kind for each in storage.claimants(folder)] == ["ingest"]
    os.kill(started[0].pid, signal.SIGKILL)
    assert finish_child(started) == (-signal.SIGKILL, None)
    assert storage.claimants(folder) == []
    assert len(storage.inventory(folder)) == 1, "who only looks removes nothing"
    with storage.claim(folder, kind="gc", about="", who="bob") as mine:
        assert storage.claimants(folder, beside=mine) == []
        assert len(storage.inventory(folder)) == 1


def test_one_of_another_host_ends_by_the_clock_of_the_store(tmp_path: Path) -> None:
    """Not by ours: a host whose clock is an hour ahead must not take everybody for dead."""
    file = tmp_path / "00-000000.json"
    storage.write_json_once(str(file), asdict(ELSEWHERE))
    with storage.claim(str(tmp_path), kind="gc", about="", who="bob") as mine:
        (own,) = tmp_path.glob(f"{mine.token}-*")
        for age, found in ((room.EXPIRED_SECONDS - 5, [ELSEWHERE]), (room.EXPIRED_SECONDS + 5, [])):
            os.utime(own, (5e8, 5e8))
            assert storage.claim_time(str(tmp_path), mine) == 5e8
            if file.exists():
                os.utime(file, (5e8 - age, 5e8 - age))
            assert storage.claimants(str(tmp_path), beside=mine) == found
    assert not file.exists()


def test_it_is_renewed_while_the_work_goes_on(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RENEW_SECONDS", 0.05)
    with storage.claim(root, kind="read", about="", who="ann") as mine:
        first, until = storage.inventory(root)[0].path, time.monotonic() + 30
        while first in [each.path for each in storage.inventory(root)] and time.monotonic() < until:
            assert [each.token for each in storage.claimants(root)] == [mine.token]
        assert 1 <= len(storage.inventory(root)) <= 3
        monkeypatch.setattr(room, "RENEW_SECONDS", 5.0)
    assert storage.inventory(root) == []


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    parent = replace(ELSEWHERE, place=process.host_tag(), pid=os.getppid(), life=process.life_of(os.getppid()))
    storage.write_json_once(str(tmp_path / "00-000000.json"), asdict(parent))
    storage.write_json_once(str(tmp_path / "01-000000.json"), asdict(replace(parent, token="01", life="boot/1")))
    assert storage.claimants(str(tmp_path)) == [parent]


def test_what_is_no_claim_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "00-000000.json").write_text('{"kind": "read"}')
    with pytest.raises(CorruptError, match=r"is no claim .* make sure that nobody is"):
        storage.claimants(str(tmp_path))
