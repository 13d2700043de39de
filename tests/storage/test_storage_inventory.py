"""What lies below a folder: names and inventory agree, whatever else lies there and whatever happens meanwhile."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import InputError, SegpipeError


def test_an_inventory_has_sizes_and_times(root: str) -> None:
    assert storage.inventory(root) == []
    before = time.time()
    for name, data in (("b/c.bin", b"123"), ("a.bin", b""), ("b/a.bin", b"1")):
        storage.write_once(storage.join(root, name), data)
    found = storage.inventory(root)
    assert [(each.path, each.bytes) for each in found] == [("a.bin", 0), ("b/a.bin", 1), ("b/c.bin", 3)]
    assert all(before - 2 <= each.changed <= time.time() + 2 for each in found)


def test_only_regular_files_and_links_to_them_are_named_and_counted(tmp_path: Path) -> None:
    """A pipe would hang its reader; a link that leads nowhere has no size; a linked folder may be a circle."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside / "a" / ".segpipe-tmp.0123abcd.1.0123456789abcdef"):
        folder.mkdir(parents=True)
        (folder / "secret").write_bytes(b"1")
    (inside / "a" / "b").write_bytes(b"123")
    (inside / "a.b").write_bytes(b"")
    (inside / "to_a_file").symlink_to(inside / "a" / "b")
    (inside / "to_a_folder").symlink_to(outside)
    (inside / "to_nothing").symlink_to(tmp_path / "nothing")
    (inside / "to_below_a_file").symlink_to(inside / "a" / "b" / "c")
    os.mkfifo(inside / "pipe")
    for root in (str(inside), f"{inside}/", f"file://{inside}"):
        assert storage.list_tree(root) == ["a.b", "a/b", "to_a_file"]
        assert [(each.path, each.bytes) for each in storage.inventory(root)] == [
            ("a.b", 0),
            ("a/b", 3),
            ("to_a_file", 3),
        ]


def test_a_folder_counts_when_it_holds_a_file_and_may_be_a_link(tmp_path: Path) -> None:
    """As in a store, where a folder is nothing but the files in it. A link may lead to a larger disk."""
    for name in ("home/empty/in/side", "home/unfinished/.segpipe-tmp.0123abcd.1.0123456789abcdef", "home/full/in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "full" / "in" / "file").write_bytes(b"1")
    (tmp_path / "home" / "file").write_bytes(b"1")
    (tmp_path / "home" / "linked").symlink_to(tmp_path / "home" / "full")
    (tmp_path / "home" / "to_nothing").symlink_to(tmp_path / "nothing")
    (tmp_path / "home" / "circle").symlink_to("circle")
    assert storage.list_folders(str(tmp_path / "home")) == ["full", "linked"]
    assert storage.list_names(str(tmp_path / "home")) == ["file"]


def test_a_link_that_cannot_be_followed_is_no_file_and_cannot_be_counted(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_bytes(b"")
    assert storage.list_tree(str(tmp_path)) == ["file"]
    with pytest.raises(SegpipeError, match="circle: reading failed: Too many levels"):
        storage.inventory(str(tmp_path))


@pytest.mark.parametrize("verb", [storage.list_tree, storage.inventory])
def test_what_goes_away_meanwhile_is_left_out(
    verb: Callable[[str], list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(b"1")
    scandir = os.scandir

    def one_goes(path: str) -> object:
        if path.endswith(("/a", "/b")):
            (Path(path) / "file").unlink()
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", one_goes)
    assert verb(str(tmp_path)) == []


@pytest.mark.parametrize("verb", [storage.list_names, storage.list_folders, storage.list_tree, storage.inventory])
def test_a_file_is_no_folder(verb: Callable[[str], list[object]], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(InputError, match="file: no such file or folder"):
        verb(str(tmp_path / "file"))
