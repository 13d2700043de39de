"""The cache where the disk is full, a download takes long, or the files are another user's."""

import errno
import logging
import os
import shutil
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segpipe import storage
from segpipe.storage import cache, ranges, turns
from tests.fixtures.slow_store import SlowStore, slow_store

__all__ = ["slow_store"]
Usage = namedtuple("Usage", "total used free")


def put(store: SlowStore, name: str, data: bytes) -> dict[str, Any]:
    """Puts an object into the store; the arguments of `fetch` for it."""
    store.folder.mkdir(exist_ok=True)
    (store.folder / name).write_bytes(data)
    return {"uri": f"{store.uri}/{name}", "sha256": storage.sha256_bytes(data), "size": len(data)}


def test_a_full_disk_costs_no_request_until_there_is_room(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 90
    looks: list[Path] = []

    def disk_usage(folder: Path) -> Usage:
        looks.append(folder)
        return Usage(1000, 1000 - free, free)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    wanted = [put(slow_store, str(number), bytes([number]) * 100) for number in range(3)]
    with caplog.at_level(logging.WARNING):
        assert [storage.fetch(**each) for each in wanted * 2] == [None] * 6
    assert slow_store.reads == []
    assert len(looks) == 1, "remembered"
    assert len(caplog.messages) == 1, "and said once, whatever the file"
    assert "no room for 100 bytes (No space left on device)" in caplog.text
    assert storage.fetch(**put(slow_store, "small", b"small")) is not None, "there is room for a smaller one"
    free = 1000
    assert storage.fetch(**wanted[0]) is None, "not looked at again within a minute"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + cache.FULL_SECONDS + 1)
    assert storage.fetch(**wanted[0]) is not None
    assert [path for path, *_ in slow_store.reads] == [f"{slow_store.folder}/small", f"{slow_store.folder}/0"]


def test_a_disk_that_fills_up_on_the_way_is_remembered(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota, or others that land at the same time: the look at the disk had promised room."""
    wanted = put(slow_store, "x", bytes(100))
    real = open

    def full(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "w" in mode and ".segpipe-tmp." in str(path):
            file = real(path, mode, *rest, **named)
            file.close()
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return real(path, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", full)
    sizes: list[int] = []
    real_land = cache._land
    monkeypatch.setattr(cache, "_land", lambda *given: (sizes.append(given[3]), real_land(*given)))
    assert [storage.fetch(**wanted) for _ in range(5)] == [None] * 5
    assert sizes == [100], "tried once"


def test_the_others_wait_while_a_long_download_goes_on(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pieces of 0.08 s where nobody waits longer than 0.4 s for one that does nothing."""
    monkeypatch.setattr(ranges, "PIECE_BYTES", 10)
    monkeypatch.setattr(turns, "LONGEST_WAIT_SECONDS", 0.4)

    def slow(data: bytes) -> bytes:
        time.sleep(0.08)
        return data

    wanted = put(slow_store, "x", os.urandom(100))
    slow_store.faults = [slow] * 1000
    start = threading.Barrier(4)

    def fetch(_: int) -> Path | None:
        start.wait()
        return storage.fetch(**wanted)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(4))) == {storage.cache_folder() / wanted["sha256"]}
    assert len(slow_store.reads) == 10, "each piece once"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("readable", [True, False])
def test_a_lock_of_another_user_is_read_or_gone_without(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch, code: int, readable: bool
) -> None:
    wanted = put(slow_store, "x", b"1")
    locks = storage.cache_folder() / "locks"
    real, tried = os.open, list[int]()

    def foreign(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if Path(path).parent == locks and (flags & os.O_RDWR or not readable):
            tried.append(flags)
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", foreign)
    assert storage.fetch(**wanted) == storage.cache_folder() / wanted["sha256"]
    assert len(tried) == (1 if readable else 3)
    assert [path.stat().st_mode & 0o777 for path in locks.iterdir()] == ([0o666] if readable else [])


def test_one_turn_at_a_time_also_where_the_lock_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_SECONDS", 0.05)
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: real(path, flags & ~os.O_RDWR, *rest))
    with turns.turn(tmp_path / "x", tmp_path / "locks"):
        began = time.monotonic()
        with turns.turn(tmp_path / "x", tmp_path / "locks"):
            assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_copy_of_another_user_is_used_and_when_damaged_read_around(
    slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    wanted = put(slow_store, "x", b"whole")
    path = storage.fetch(**wanted)
    assert path is not None

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "utime", refuse)
    assert storage.fetch(**wanted) == storage.find_cached(wanted["sha256"]) == path
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        storage.forget_cached(wanted["sha256"])
    assert path.exists()
    assert storage.fetch(**wanted) is storage.find_cached(wanted["sha256"]) is None, "read from the store instead"


def test_files_that_may_not_be_removed_stay(slow_store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", repr(250 / 2**30))
    wanted = [put(slow_store, str(number), bytes([number]) * 100) for number in range(3)]
    kept = [storage.fetch(**each) for each in wanted[:2]]
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path in kept:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert storage.fetch(**wanted[2]) is not None
    assert storage.cached_bytes() == 300
