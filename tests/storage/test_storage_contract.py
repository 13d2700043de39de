"""What every store must do, run on a local folder and on S3."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError, InputError, TooLargeError
from segpipe.storage import ranges


def test_bytes_come_back_whole_limited_and_in_pieces(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 3000
    uri = storage.join(root, "a/b", "c.bin")
    assert storage.write_once(uri, data) is True
    assert storage.read_bytes(uri) == data
    assert storage.read_bytes(uri, limit=len(data)) == data
    assert storage.size(uri) == len(data)
    assert storage.sha256_file(uri) == storage.sha256_bytes(data)
    with storage.open_read(uri) as file:
        assert file.seekable()
        file.seek(-10, 2)
        assert file.read() == data[-10:]
        file.seek(500_000)
        assert file.read(300_000) == data[500_000:800_000]
        assert file.tell() == len(data)
    with pytest.raises(InputError, match=r"c\.bin: 768,000 bytes; at most 10 "):
        storage.read_bytes(uri, limit=10)
    monkeypatch.setattr(ranges, "PIECE_BYTES", 1000)
    assert storage.read_bytes(uri, limit=len(data)) == data
    assert storage.read_bytes(uri, limit=1 << 40) == data
    with pytest.raises(TooLargeError, match=r"c\.bin: 768,000 bytes; at most 767,999 "):
        storage.read_bytes(uri, limit=len(data) - 1)


def test_the_empty_file_is_a_file(root: str) -> None:
    uri = storage.join(root, "empty")
    assert storage.write_once(uri, b"") is True
    assert storage.write_once(uri, b"") is False
    assert storage.read_bytes(uri) == storage.read_bytes(uri, limit=0) == b""
    with storage.open_read(uri) as file:
        assert file.read() == b""


def test_a_name_is_written_once(root: str, tmp_path: Path) -> None:
    uri = storage.join(root, "one")
    assert storage.write_once(uri, b"first") is True
    assert storage.write_once(uri, b"first") is False
    with pytest.raises(ConflictError, match=r"one: another writer .* Ours \(6 bytes"):
        storage.write_once(uri, b"second")
    with pytest.raises(ConflictError):
        storage.write_once(uri, b"first and more")
    source = tmp_path / "source"
    source.write_bytes(b"first")
    assert storage.commit_file(source, uri) is False
    source.write_bytes(b"third")
    with pytest.raises(ConflictError):
        storage.commit_file(source, uri)
    assert storage.read_bytes(uri) == b"first"


def test_a_committed_file_does_not_change_with_its_source(root: str, tmp_path: Path) -> None:
    source, uri = tmp_path / "source", storage.join(root, "copy")
    source.write_bytes(b"as committed")
    assert storage.commit_file(source, uri) is True
    source.write_bytes(b"edited later")
    assert storage.read_bytes(uri) == b"as committed"


def test_a_scratch_file_is_committed_and_the_scratch_folder_goes(root: str) -> None:
    with storage.scratch(near=root) as folder:
        (folder / "weights").write_bytes(b"w" * 1000)
        assert storage.list_tree(root) == []
        assert storage.commit_file(folder / "weights", storage.join(root, "weights")) is True
    assert not folder.exists()
    assert storage.list_tree(root) == ["weights"]
    assert storage.read_bytes(storage.join(root, "weights")) == b"w" * 1000


@pytest.mark.parametrize("same", [True, False])
def test_of_eight_writers_at_once_one_creates(root: str, same: bool) -> None:
    uri = storage.join(root, "raced")

    def write(number: int) -> object:
        try:
            return storage.write_once(uri, b"x" if same else bytes([number]) * 2000)
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert sorted(map(str, answers)) == sorted(["True", *(["False"] if same else ["conflict"]) * 7])
    assert storage.read_bytes(uri) == (b"x" if same else bytes([answers.index(True)]) * 2000)


def test_listings_are_sorted_filtered_and_hide_what_is_unfinished(root: str) -> None:
    assert storage.list_names(root) == storage.list_folders(root) == storage.list_tree(root) == []
    for name in (
        "b.json",
        "a.json",
        "a.txt",
        "deep/er/z.json",
        "deep/y.json",
        ".segpipe-tmp.0123abcd.1.0123456789abcdef",
    ):
        storage.write_once(storage.join(root, name), b"1")
    assert storage.list_names(root, suffix=".json") == ["a.json", "b.json"]
    assert storage.list_names(root) == ["a.json", "a.txt", "b.json"]
    assert storage.list_folders(root) == storage.list_folders(f"{root}/") == ["deep"]
    assert storage.list_folders(f"{root}/deep") == ["er"]
    assert storage.list_tree(root, suffix=".json") == ["a.json", "b.json", "deep/er/z.json", "deep/y.json"]
    assert storage.list_names(f"{root}/deep/") == ["y.json"]


def test_a_new_file_is_listed_at_once(root: str) -> None:
    for number in range(3):
        storage.write_once(storage.join(root, str(number)), b"1")
        assert len(storage.list_names(root)) == number + 1


def test_exists_and_delete(root: str) -> None:
    uri = storage.join(root, "x/y")
    assert not storage.exists(uri)
    storage.delete(uri)
    storage.delete_tree(root)
    storage.write_once(uri, b"1")
    assert storage.exists(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.write_once(uri, b"2")
    storage.write_once(storage.join(root, "z"), b"3")
    storage.delete_tree(root)
    assert storage.list_tree(root) == []


def test_another_file_is_put_in_the_place_of_one(root: str) -> None:
    uri = storage.join(root, "x/y")
    for data in (b"first", b"second", b"second", b""):
        storage.replace(uri, data)
        assert storage.read_bytes(uri) == data
    assert storage.list_tree(root) == ["x/y"]


def test_many_files_are_deleted_and_told_one_by_one(root: str) -> None:
    uris = [storage.join(root, f"many/{number:02d}") for number in range(40)]
    for number, uri in enumerate(uris):
        if number % 3:
            storage.write_once(uri, b"1")
    storage.write_once(storage.join(root, "many/other"), b"2")
    assert list(storage.delete_each(uris)) == uris, "absent ones too"
    assert storage.list_tree(root) == ["many/other"]
    assert list(storage.delete_each([])) == []


def test_a_fingerprint_stays_until_the_file_is_written_again(root: str) -> None:
    uri, other = storage.join(root, "a", "watched"), storage.join(root, "a", "other")
    storage.write_once(uri, b"first")
    first = storage.fingerprint(uri)
    assert first == storage.fingerprint(uri)
    assert storage.read_bytes(uri) == b"first"
    storage.write_once(other, b"1")
    storage.delete(other)
    assert storage.fingerprint(uri) == first, "neither reading nor a neighbour touches it"
    storage.delete(uri)
    storage.write_once(uri, b"a longer text")
    assert storage.fingerprint(uri) != first


def test_fingerprints_of_many_files_are_those_of_each(root: str) -> None:
    files = ["a/one", "a/two words", "a/\u00e4/three"]
    for file in files:
        storage.write_once(storage.join(root, file), file.encode())
    found = storage.fingerprints(root, [*files, "a/gone"])
    assert found == {file: storage.fingerprint(storage.join(root, file)) for file in files}
    assert storage.fingerprints(root, files[:1]) == {"a/one": found["a/one"]}
    assert storage.fingerprints(root, ["a/gone"]) == storage.fingerprints(root, []) == {}


@pytest.mark.parametrize(
    "verb", [storage.read_bytes, storage.size, storage.sha256_file, storage.open_read, storage.fingerprint]
)
def test_what_is_missing_is_named(root: str, verb: object) -> None:
    with pytest.raises(InputError, match=r"absent\.json: no such "):
        verb(storage.join(root, "absent.json"))  # type: ignore[operator]


def test_json_comes_back_and_is_canonical(root: str) -> None:
    uri = storage.join(root, "d.json")
    assert storage.write_json_once(uri, {"b": [1, 2.5, None], "a": "ä"}) is True
    assert storage.write_json_once(uri, {"a": "ä", "b": [1, 2.5, None]}) is False
    assert storage.read_json(uri) == {"a": "ä", "b": [1, 2.5, None]}
    assert storage.read_bytes(uri).endswith(b"\n}\n")


def test_records_are_numbered_and_a_taken_number_is_a_conflict(root: str) -> None:
    folder = storage.join(root, "log")
    assert storage.records(folder) == []
    assert storage.last_record(folder) is None
    assert storage.append_record(folder, {"who": "a"}, after=0) == 1
    assert storage.append_record(folder, {"who": "a"}, after=0) == 1
    with pytest.raises(ConflictError, match=r"000001\.json: .*record 1 was appended by somebody else"):
        storage.append_record(folder, {"who": "b"}, after=0)
    assert storage.append_record(folder, {"who": "b"}, after=1) == 2
    assert storage.records(folder) == [(1, {"who": "a"}), (2, {"who": "b"})]
    assert storage.last_record(folder) == (2, {"who": "b"})
    with pytest.raises(InputError, match="follows 0"):
        storage.append_record(folder, {}, after=-1)


@pytest.mark.parametrize(("name", "message"), [("000003.json", "record 2 is missing"), ("notes.json", "no numbered")])
def test_a_folder_of_records_with_a_gap_or_a_stranger_is_refused(root: str, name: str, message: str) -> None:
    folder = storage.join(root, "log")
    storage.append_record(folder, {}, after=0)
    storage.write_once(storage.join(folder, name), b"{}")
    with pytest.raises(CorruptError, match=message):
        storage.records(folder)
    with pytest.raises(CorruptError, match=message):
        storage.last_record(folder)


def test_a_record_is_an_object(root: str) -> None:
    storage.write_once(storage.record_uri(root, 1), b"[]")
    with pytest.raises(CorruptError, match=r"000001\.json: a record is an object, found list"):
        storage.records(root)
