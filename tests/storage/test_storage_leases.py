"""The lease: one worker at a time, and none is waited for that is gone. On a local folder, on S3, between processes."""

import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError, UnreachableError
from segpipe.storage import leases, process
from tests.fixtures.publish_worker import finish_child, start_child

ELSEWHERE = leases._Owner(
    state="held", token="theirs", who="ann", host="node7", place="elsewhere", pid=41, life="", at="2026-01-02T03:04:05Z"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heart that beats every few hundredths of a second."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(leases, "ABANDONED_SECONDS", 0.4)


def take(folder: str) -> Any:
    return storage.lease(folder, what="the run", who="me")


def states(folder: str) -> list[str]:
    return [record["state"] for _, record in storage.records(folder)]


def test_one_at_a_time_and_the_next_one_after_it(root: str) -> None:
    with take(root):
        with pytest.raises(ConflictError) as caught, take(root):
            pytest.fail("two at once")
        message = str(caught.value)
        assert message.startswith(f"the run: process {os.getpid()} on ")
        assert "(user me) has worked on it since 20" in message
        assert "end it, then run the same command again" in message
        assert states(root) == ["held"]
    with take(root):
        pass
    assert states(root) == ["held", "released"] * 2


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), take(str(tmp_path)):
        raise KeyboardInterrupt
    assert states(str(tmp_path)) == ["held", "released"]


def test_of_eight_takers_one_wins(root: str) -> None:
    together, tried = threading.Barrier(8), threading.Barrier(8)

    def contend(_: int) -> bool:
        together.wait(60)
        try:
            with take(root):
                tried.wait(60)
                return True
        except ConflictError:
            tried.wait(60)
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(contend, range(8))) == 1
    assert states(root) == ["held", "released"]


# --- processes of this host


def hold_for_ever(folder: str, sign: str) -> None:
    with take(folder):
        Path(sign).touch()
        time.sleep(600)


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    folder, sign = str(tmp_path / "drivers"), tmp_path / "ready"
    started = start_child(hold_for_ever, folder, str(sign))
    until = time.monotonic() + 60
    while not sign.exists() and time.monotonic() < until:
        time.sleep(0.02)
    pid = started[0].pid
    with pytest.raises(ConflictError, match=rf"^the run: process {pid} on "), take(folder):
        pytest.fail("two at once")
    os.kill(pid, signal.SIGKILL)
    assert finish_child(started) == (-signal.SIGKILL, None)
    before = time.monotonic()
    with take(folder):
        assert time.monotonic() - before < 5
    assert states(folder) == ["held", "held", "released"]


def owned_by(folder: str, **changes: Any) -> None:
    mine = {"place": process.host_tag(), "pid": os.getpid(), "life": process.life_of(os.getpid())}
    storage.append_record(folder, asdict(replace(ELSEWHERE, **mine | changes)), after=0)


def test_one_that_this_process_could_not_give_back_is_none(tmp_path: Path) -> None:
    owned_by(str(tmp_path))
    with take(str(tmp_path)):
        assert states(str(tmp_path)) == ["held", "held"]


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    parent = os.getppid()
    owned_by(str(tmp_path / "same"), pid=parent, life=process.life_of(parent))
    with pytest.raises(ConflictError, match=f"process {parent} on node7"), take(str(tmp_path / "same")):
        pytest.fail("it is alive")
    owned_by(str(tmp_path / "other"), pid=parent, life="boot/1")
    with take(str(tmp_path / "other")):
        pass


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "0.3"], {})
    life = process.life_of(pid)
    until = time.monotonic() + 60
    while process.life_of(pid) != "ended" and time.monotonic() < until:
        time.sleep(0.01)
    owned_by(str(tmp_path), pid=pid, life=life)
    with take(str(tmp_path)):
        pass
    os.waitpid(pid, 0)


# --- other hosts


@pytest.mark.usefixtures("quick")
def test_one_elsewhere_whose_heart_beats_is_at_work(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    storage.append_record(root, asdict(ELSEWHERE), after=0)
    heart = threading.Thread(target=leases._beat, args=(root, "the run", 1, ended))
    heart.start()
    monkeypatch.setattr(leases, "ABANDONED_SECONDS", 60.0)
    try:
        with pytest.raises(ConflictError, match=r"process 41 on node7 \(user ann\).*since 2026-01-02"), take(root):
            pytest.fail("two at once")
    finally:
        ended.set()
        heart.join()


@pytest.mark.usefixtures("quick")
def test_one_elsewhere_whose_heart_stands_still_is_gone(root: str, caplog: pytest.LogCaptureFixture) -> None:
    storage.append_record(root, asdict(ELSEWHERE), after=0)
    storage.write_once(storage.join(root, "beats", "000001-000009"), b"")
    before = time.monotonic()
    with caplog.at_level(logging.WARNING), take(root):
        assert time.monotonic() - before >= 0.4
    assert "the run: process 41 on node7 holds it; watching whether it is alive" in caplog.messages
    assert caplog.messages[-1].startswith("the run: process 41 on node7, which worked on it since 2026-01-02")
    assert states(root) == ["held", "held", "released"]
    assert storage.list_tree(storage.join(root, "beats")) == []


@pytest.mark.usefixtures("quick")
def test_one_elsewhere_that_ends_while_it_is_watched_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path)
    storage.append_record(folder, asdict(ELSEWHERE), after=0)
    storage.write_once(storage.join(folder, "beats", "000001-000009"), b"")
    monkeypatch.setattr(leases, "ABANDONED_SECONDS", 60.0)
    timer = threading.Timer(0.2, leases._release, (folder, "the run", 1, ELSEWHERE))
    timer.start()
    with take(folder):
        assert states(folder) == ["held", "released", "held"]
    timer.join()


# --- the heart


@pytest.mark.usefixtures("quick")
def test_the_heart_beats_on_when_the_store_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, write, away = str(tmp_path), leases.write_once, iter([True, True])

    def write_or_not(uri: str, data: bytes) -> bool:
        if next(away, False):
            raise UnreachableError("the store is away")
        return write(uri, data)

    with take(folder), caplog.at_level(logging.WARNING):
        monkeypatch.setattr(leases, "write_once", write_or_not)
        seen: set[str] = set()
        until = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < until:
            found = leases._beats(folder)
            assert len(found) <= 2, "an old beat is removed"
            seen.update(found)
    assert len(seen) == 3
    assert "the run: could not show that this process works on it, trying again: the store is away" in caplog.messages
    assert leases._beats(folder) == []


@pytest.mark.usefixtures("quick")
def test_whose_work_was_taken_over_is_told_and_does_not_give_back_what_is_not_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(tmp_path)
    with caplog.at_level(logging.WARNING), take(folder):
        storage.append_record(folder, asdict(ELSEWHERE), after=1)
        until = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < until:
            time.sleep(0.02)
        assert caplog.messages[0].startswith("the run: another process took the work over")
    assert states(folder) == ["held", "held"]
    assert "its lease was not given back" in caplog.messages[-1]


# --- damage


@pytest.mark.parametrize("content", [b"{", b'{"state": "held"}', b"[]"])
def test_a_damaged_record_is_named_with_what_mends_it(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "drivers"
    folder.mkdir()
    (folder / "000001.json").write_bytes(content)
    expected = pytest.raises(CorruptError, match=r"only say who works on the run: .*delete that folder")
    with expected as caught, take(str(folder)):
        pytest.fail("damage is not a lease")
    assert str(folder) in str(caught.value)
