"""The local commit: what a kill, a full disk, a bad destination and strange files do."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import ConflictError, InputError, SegpipeError, StorageFullError, UnreachableError
from segpipe.storage import local
from segpipe.storage.process import host_tag
from segpipe.storage.uris import temporary_owner
from tests.fixtures.check_dataset import leftovers

DEAD_PID = 2**22 + 1  # beyond Linux's largest process id


def temporary(host: str, pid: int) -> str:
    return f".segpipe-tmp.{host}.{pid}.0123456789abcdef"


@pytest.mark.parametrize(
    ("point", "there"), [("commit.staged", False), ("commit.created", True), ("commit.done", True)]
)
def test_a_kill_leaves_nothing_or_everything_and_the_sweep_finds_the_rest(
    tmp_path: Path, point: str, there: bool
) -> None:
    code = f"from segpipe import storage; storage.write_once({str(tmp_path / 'x')!r}, b'data')"
    environment = {**os.environ, "SEGPIPE_FAILPOINT": f"{point}:1", "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 137
    assert (tmp_path / "x").exists() is there
    found = leftovers(tmp_path)
    assert len(found) == (point != "commit.done")
    assert storage.sweep(str(tmp_path)) == found
    assert storage.write_once(str(tmp_path / "x"), b"data") is not there
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_sweep_spares_the_living_and_the_young_of_other_hosts(tmp_path: Path) -> None:
    mine, dead = temporary(host_tag(), os.getpid()), temporary(host_tag(), DEAD_PID)
    other, other_folder = temporary("0" * 8, DEAD_PID), temporary("1" * 8, DEAD_PID)
    for name in (mine, dead, other, "precious"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / other_folder).mkdir()
    (tmp_path / other_folder / "part").write_bytes(b"1")
    assert storage.sweep(str(tmp_path)) == [dead]
    later = time.time() + local.LEFTOVER_SECONDS + 60
    os.utime(tmp_path / other_folder / "part", (later, later))
    assert local.sweep(tmp_path, now=later) == [other], "the file inside the folder is still being written"
    assert local.sweep(tmp_path, now=2 * later) == [other_folder]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine, "precious"])
    assert storage.sweep(str(tmp_path / "absent")) == []


def test_sweep_passes_over_what_another_sweeps_or_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, foreign, dead = (temporary(host_tag(), DEAD_PID + at) for at in range(3))
    for name in (gone, foreign):
        (tmp_path / name).mkdir()
    (tmp_path / dead).write_bytes(b"1")
    remove = shutil.rmtree

    def rmtree(path: Path) -> None:
        if path.name == gone:
            remove(path)  # another process has just done it
            remove(path)
        raise PermissionError(errno.EACCES, "not ours", str(path))

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert storage.sweep(str(tmp_path)) == [dead]
    assert [path.name for path in tmp_path.iterdir()] == [foreign]


def test_a_folder_that_may_not_be_read_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all of them, so the answer is made up."""

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be read: Permission denied"):
        storage.sweep(str(tmp_path))
    with pytest.raises(InputError, match="cannot be read"), storage.claim(str(tmp_path), kind="", about="", who=""):
        pytest.fail("nobody could see it")


def test_temporary_names_tell_their_owner(tmp_path: Path) -> None:
    with storage.scratch(near=str(tmp_path)) as folder:
        assert temporary_owner(folder.name) == (host_tag(), os.getpid())
    assert temporary_owner("weights.safetensors") is None
    with storage.scratch() as folder:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_how_much_is_needed_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    storage.write_once(str(tmp_path / "earlier"), b"earlier")
    source = tmp_path / "source"
    source.write_bytes(b"y" * 4321)

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFullError, match=r"new: no room .*: 1,234 bytes are needed, [0-9,]+ are free in "):
        storage.write_once(str(tmp_path / "new"), b"x" * 1234)
    with pytest.raises(StorageFullError, match=r"4,321 bytes are needed"):
        storage.commit_file(source, str(tmp_path / "new"))
    with storage.scratch(near=str(tmp_path)) as folder:
        (folder / "part").write_bytes(b"z" * 999)
        with pytest.raises(StorageFullError, match=r"new: no room .* 999 bytes are needed"):
            storage.commit_file(folder / "part", str(tmp_path / "new"))
    with pytest.raises(StorageFullError, match=r"below/new: no room "):
        storage.write_once(str(tmp_path / "below" / "new"), b"x")
    (tmp_path / "below").rmdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["earlier", "source"]


def test_a_disk_that_fails_as_a_name_is_made_durable_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    with pytest.raises(SegpipeError, match="new: writing failed: Input/output error; check the disk"):
        storage.write_once(str(tmp_path / "new"), b"x")
    monkeypatch.undo()
    assert storage.write_once(str(tmp_path / "new"), b"x") is False, "the next run finds it whole"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("folder", ["{file}", "{file}/below", "/proc/segpipe"])
def test_an_unwritable_destination_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_bytes(b"1")
    uri = folder.format(file=tmp_path / "file") + "/x"
    with pytest.raises(InputError, match=rf"^{uri}: cannot be written: .*choose a folder in which user id \d+ may"):
        storage.write_once(uri, b"1")
    with pytest.raises(InputError, match="cannot be written"), storage.scratch(near=uri):
        pass


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EACCES, InputError), (errno.ESTALE, UnreachableError), (errno.EIO, SegpipeError)]
)
def test_each_kind_of_fault_has_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[SegpipeError]
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(kind, match=r"x: .*; ") as raised:
        storage.read_bytes(str(tmp_path / "x"))
    assert type(raised.value) is kind
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(kind, match=r"x: .*; "):
        storage.write_once(str(tmp_path / "x"), b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(InputError, match=r"refuses hard links .* choose a folder on a local disk or on NFS"):
        storage.write_once(str(tmp_path / "x"), b"1")


def test_a_link_whose_reply_was_lost_counts_as_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    assert storage.write_once(str(tmp_path / "x"), b"1") is True


def test_a_rival_between_the_look_and_the_link_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def rival_first(source: Path, target: Path) -> None:
        target.write_bytes(b"rival")
        link(source, target)

    monkeypatch.setattr(os, "link", rival_first)
    assert storage.write_once(str(tmp_path / "x"), b"rival") is False
    with pytest.raises(ConflictError):
        storage.write_once(str(tmp_path / "y"), b"ours")
    assert (tmp_path / "y").read_bytes() == b"rival"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match=rf"{name}: is not a regular file"):
            storage.read_bytes(str(tmp_path / name))
    assert storage.list_names(str(tmp_path)) == []
    with pytest.raises(InputError, match="no such file or folder"):
        storage.list_names(str(tmp_path / "pipe" / "below"))


def test_a_fingerprint_is_size_and_times_of_change_to_the_nanosecond(tmp_path: Path) -> None:
    path, uri = tmp_path / "image.png", str(tmp_path / "image.png")
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    first = storage.fingerprint(uri)
    assert storage.fingerprint(f"file://{uri}") == first
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    assert storage.fingerprint(uri) != first, "as long as before, and changed a nanosecond later"
    third = storage.fingerprint(uri)
    path.read_bytes()
    assert storage.fingerprint(uri) == third, "the bytes are not read, and when it was last read does not count"
    time.sleep(0.02)  # a tick of the clock of a file system
    path.chmod(0o600)
    assert storage.fingerprint(uri) != third, "what could not be read before may be readable now"
    path.write_bytes(b"three")
    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    assert storage.fingerprint(uri) != first, "of another length"
    (tmp_path / "link.png").symlink_to(path)
    assert storage.fingerprint(str(tmp_path / "link.png")) == storage.fingerprint(uri), "a link is what it leads to"


def test_a_fingerprint_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for uri in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=uri.name):
            storage.fingerprint(str(uri))


def test_the_root_is_not_deleted() -> None:
    with pytest.raises(InputError, match="root of a file system"):
        storage.delete_tree("/")


def test_the_file_scheme_is_local(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/x"
    assert storage.write_once(uri, b"1") is True
    assert storage.local_path(uri) == tmp_path / "x"
    assert storage.read_bytes(str(tmp_path / "x")) == b"1"


@pytest.mark.parametrize("value", ["publish", "publish:", "publish:x"])
def test_a_malformed_failpoint_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SEGPIPE_FAILPOINT", value)
    with pytest.raises(InputError, match="expected NAME:N"):
        storage.failpoint("publish")
