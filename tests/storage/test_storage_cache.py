"""The cache of remote files: whole and checked or not there, within its limit, shared, honest when full."""

import errno
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segpipe import storage
from segpipe.errors import CorruptError, InputError, UnreachableError
from segpipe.storage import cache, object_store, ranges, turns
from tests.fixtures.publish_worker import finish_child, start_child
from tests.fixtures.slow_store import SlowStore, busy, flipped, short, slow_store, stalled

__all__ = ["slow_store"]


def put(store: SlowStore, name: str, data: bytes) -> dict[str, Any]:
    """Puts an object into the store; the arguments of `fetch` for it."""
    store.folder.mkdir(exist_ok=True)
    (store.folder / name).write_bytes(data)
    return {"uri": f"{store.uri}/{name}", "sha256": storage.sha256_bytes(data), "size": len(data)}


def limit(monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", repr(limit_bytes / 2**30))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"locks"}


def test_a_file_is_fetched_once_in_pieces_and_kept(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PIECE_BYTES", 100)
    data = os.urandom(250)
    wanted = put(slow_store, "x", data)
    path = storage.fetch(**wanted)
    assert path is not None
    assert path.read_bytes() == data
    assert path == storage.cache_folder() / wanted["sha256"]
    assert [(start, end) for _, start, end in slow_store.reads] == [(0, 100), (100, 200), (200, 250)]
    assert storage.fetch(**wanted) == path
    assert len(slow_store.reads) == 3
    assert storage.cached_bytes() == 250
    assert names(path.parent) == {wanted["sha256"]}


@pytest.mark.parametrize("fault", [busy, stalled, short])
def test_passing_faults_cost_a_piece(slow_store: SlowStore, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PIECE_BYTES", 100)
    wanted = put(slow_store, "x", os.urandom(250))
    slow_store.faults = [fault, fault]
    budget = storage.RetryBudget(10)
    path = storage.fetch(**wanted, budget=budget)
    assert path is not None
    assert storage.sha256_file(str(path)) == wanted["sha256"]
    assert len(slow_store.reads) == 5
    assert budget.retries == 2
    assert 0 < budget.spent < 1


def test_a_damaged_download_is_fetched_again_once(slow_store: SlowStore) -> None:
    wanted = put(slow_store, "x", b"whole")
    slow_store.faults = [flipped]
    path = storage.fetch(**wanted)
    assert path is not None
    assert path.read_bytes() == b"whole"
    storage.forget_cached(wanted["sha256"])
    slow_store.faults = [flipped, flipped]
    with pytest.raises(CorruptError, match=r"/x: sha256 [0-9a-f]{12}, the manifest says .* fetched twice; restore"):
        storage.fetch(**wanted)
    assert names(storage.cache_folder()) == set(), "nothing of it stays"
    with pytest.raises(CorruptError, match="/x: 5 bytes, the manifest says 6"):
        storage.fetch(**wanted | {"size": 6})
    with pytest.raises(InputError, match="/y: no such object"):
        storage.fetch(**wanted | {"uri": f"{slow_store.uri}/y"})


def test_the_retries_of_a_pass_have_a_budget(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object comes at its second try, and still there is an end."""
    monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 0.02)
    wanted = [put(slow_store, str(number), bytes([number])) for number in range(200)]
    slow_store.faults = [fault for _ in wanted for fault in (busy, bytes)]
    budget = storage.RetryBudget(0.3)
    said = r"/\d+: slow:// did not answer in 1 tries over 0 s .*; the reads of this pass waited 0 s of at most 0 .* run"
    with pytest.raises(UnreachableError, match=said):
        [storage.fetch(**each, budget=budget) for each in wanted]
    assert 5 <= budget.retries <= 20


def test_a_closed_budget_ends_a_pause(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 25.0)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_SECONDS", 25.0)
    wanted = put(slow_store, "x", b"1")
    slow_store.faults = [busy] * 2
    budget = storage.RetryBudget()
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        future = pool.submit(storage.fetch, **wanted, budget=budget)
        while not budget.retries:
            time.sleep(0.001)
        budget.close()
        with pytest.raises(UnreachableError, match="the reader was closed meanwhile"):
            future.result()
    assert time.monotonic() - started < 10, "not the 12 seconds and more of the pause"


def test_the_least_recently_opened_goes_first(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 250)
    wanted = [put(slow_store, str(number), bytes([number]) * 100) for number in range(4)]
    paths = []
    for number in (0, 1):
        path = storage.fetch(**wanted[number])
        assert path is not None
        os.utime(path, (1000 + number, 1000 + number))
        paths.append(path)
    assert storage.fetch(**wanted[0]) == paths[0], "used again, so 1 is the oldest"
    with open(paths[1], "rb") as opened:
        storage.fetch(**wanted[2])
        assert names(storage.cache_folder()) == {wanted[0]["sha256"], wanted[2]["sha256"]}
        assert opened.read() == bytes([1]) * 100, "what a process has open is readable to the end"
    assert storage.cached_bytes() <= 250


def test_what_killed_processes_left_is_removed_and_what_is_not_ours_stays(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = storage.cache_folder()
    folder.mkdir()
    limit(monkeypatch, 250)
    (folder / "notes.txt").write_bytes(bytes(240))
    from segpipe.storage.process import host_tag

    leftover = folder / f".segpipe-tmp.{host_tag()}.999999999.{'0' * 16}"
    leftover.write_bytes(bytes(100))
    wanted = put(slow_store, "x", bytes(100))
    storage.fetch(**wanted)
    assert names(folder) == {"notes.txt", wanted["sha256"]}


def test_a_full_disk_is_said_once_and_read_around(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache._say_once.cache_clear()
    wanted = put(slow_store, "x", bytes(100))
    real = open

    def full(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "w" in mode and ".segpipe-tmp." in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", full)
    with caplog.at_level(logging.WARNING):
        assert [storage.fetch(**wanted) for _ in range(3)] == [None] * 3
    assert len(caplog.messages) == 1
    assert "no room for 100 bytes (No space left on device); reading from the store without it" in caplog.text
    assert names(storage.cache_folder()) == set()
    limit(monkeypatch, 99)
    assert storage.fetch(**wanted) is None
    assert "the limit of 99 bytes (SEGPIPE_CACHE_GIB) is less than one file of 100" in caplog.text


def test_the_settings_are_read_and_refused(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert storage.cache_limit() == 32 << 30
    for text, expected in (("0", 0), ("0.5", 1 << 29), ("", 32 << 30)):
        monkeypatch.setenv("SEGPIPE_CACHE_GIB", text)
        assert storage.cache_limit() == expected
    for text in ("-1", "nan", "inf", "8GiB"):
        monkeypatch.setenv("SEGPIPE_CACHE_GIB", text)
        with pytest.raises(InputError, match=rf"SEGPIPE_CACHE_GIB='{text}': expected GiB from 0"):
            storage.cache_limit()
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "0")
    assert storage.fetch(**put(slow_store, "x", b"1")) is None
    assert slow_store.reads == []
    monkeypatch.setenv("SEGPIPE_CACHE", "s3://bucket/x")
    with pytest.raises(InputError, match="SEGPIPE_CACHE='s3://bucket/x' is no local folder"):
        storage.cache_folder()
    monkeypatch.delenv("SEGPIPE_CACHE")
    assert storage.cache_folder() == Path(os.environ["SEGPIPE_HOME"]) / "cache"
    monkeypatch.setenv("SEGPIPE_HOME", "s3://bucket/home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert storage.cache_folder() == tmp_path / "caches" / "segpipe"


def test_a_folder_that_cannot_be_made_is_named(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = put(slow_store, "x", b"1")
    monkeypatch.setenv("SEGPIPE_CACHE", f"{slow_store.folder}/x/cache")
    with pytest.raises(InputError, match="x/cache: cannot be written"):
        storage.fetch(**wanted)


def test_threads_that_want_one_file_fetch_it_once(slow_store: SlowStore) -> None:
    wanted = put(slow_store, "x", os.urandom(1000))
    start = threading.Barrier(8)

    def fetch(_: int) -> Path | None:
        start.wait()
        return storage.fetch(**wanted)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {storage.cache_folder() / wanted["sha256"]}
    assert len(slow_store.reads) == 1


def fetch_here(uri: str, sha256: str, size: int) -> str:
    """In a child process: what is in the cache afterwards."""
    path = storage.fetch(uri, sha256=sha256, size=size)
    assert path is not None
    return storage.sha256_file(str(path))


def test_processes_share_the_cache(s3_root: str, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    storage.write_once(f"{s3_root}/x", data)
    sha256 = storage.sha256_bytes(data)
    surroundings = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "SEGPIPE_"))}
    surroundings["SEGPIPE_CACHE"] = str(tmp_path / "cache")
    children = [start_child(fetch_here, f"{s3_root}/x", sha256, len(data), environment=surroundings) for _ in range(3)]
    assert [finish_child(child) for child in children] == [(0, sha256)] * 3
    assert names(tmp_path / "cache") == {sha256}
    storage.delete(f"{s3_root}/x")
    again = start_child(fetch_here, f"{s3_root}/x", sha256, len(data), environment=surroundings)
    assert finish_child(again) == (0, sha256), "from the disk: the store has lost it"


def test_a_lock_that_is_never_given_back_delays_and_does_not_hang(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_SECONDS", 0.05)
    wanted = put(slow_store, "x", b"1")
    path = storage.cache_folder() / wanted["sha256"]
    path.parent.mkdir()
    with turns.turn(path, path.parent / "locks"):
        assert storage.fetch(**wanted) == path
