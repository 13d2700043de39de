"""S3 on a bad night: errors that pass, errors that do not, replies that get lost."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import ConflictError, InputError, UnreachableError
from segpipe.storage import object_store
from tests.fixtures.flaky_store import FlakyStore, flaky_store
from tests.fixtures.object_store import use_endpoint


@pytest.fixture
def flaky(s3_server: str, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    with flaky_store(s3_server) as proxy:
        use_endpoint(monkeypatch, proxy.endpoint)
        monkeypatch.setattr(object_store, "FIRST_PAUSE_SECONDS", 0.005)
        yield proxy


@pytest.mark.parametrize("fault", ["503", "500", "reset"])
def test_passing_faults_are_waited_out(flaky: FlakyStore, s3_root: str, fault: str) -> None:
    uri = storage.join(s3_root, "x")
    flaky.faults = [("PUT", fault)] * 3
    assert storage.write_once(uri, b"data") is True
    flaky.faults = [("GET", fault)] * 3
    assert storage.read_bytes(uri) == b"data"
    assert flaky.faults == []


def test_a_put_whose_reply_was_lost_is_found_by_reading_back(flaky: FlakyStore, s3_root: str, tmp_path: Path) -> None:
    uri = storage.join(s3_root, "x")
    flaky.faults = [("PUT", "500-after")]
    assert storage.write_once(uri, b"data") is False
    assert storage.read_bytes(uri) == b"data"
    source = tmp_path / "source"
    source.write_bytes(b"file")
    flaky.faults = [("PUT", "500-after")]
    assert storage.commit_file(source, uri + ".file") is False
    assert storage.read_bytes(uri + ".file") == b"file"
    assert flaky.faults == []


def test_a_lost_reply_does_not_hide_a_rival(flaky: FlakyStore, s3_root: str) -> None:
    uri = storage.join(s3_root, "x")
    storage.write_once(uri, b"rival")
    flaky.faults = [("PUT", "500-after"), ("GET", "503")]
    with pytest.raises(ConflictError):
        storage.write_once(uri, b"ours")
    assert storage.read_bytes(uri) == b"rival"


def test_a_short_body_is_read_again(flaky: FlakyStore, s3_root: str) -> None:
    data = bytes(range(256)) * 4000
    uri = storage.join(s3_root, "x")
    storage.write_once(uri, data)
    flaky.faults = [("GET", "short")] * 2
    assert storage.read_bytes(uri) == data
    flaky.faults = [("GET", "short")] * 2
    assert storage.sha256_file(uri) == storage.sha256_bytes(data)
    assert flaky.faults == []


def test_a_read_that_stalls_is_tried_again(flaky: FlakyStore, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "STALL_SECONDS", 0.3)
    object_store._open_filesystem.cache_clear()
    data = bytes(range(256)) * 400
    uri = storage.join(s3_root, "x")
    storage.write_once(uri, data)
    flaky.faults = [("GET", "hang")] * 2
    assert storage.sha256_file(uri) == storage.sha256_bytes(data)
    assert flaky.faults == []
    object_store._open_filesystem.cache_clear()


def test_a_fingerprint_tells_objects_of_equal_length_apart(flaky: FlakyStore, s3_root: str) -> None:
    """Written within a second, so that size and time of change, which S3 gives in seconds, could be the same."""
    prints = []
    for name, data in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        storage.write_once(storage.join(s3_root, name), data)
        flaky.faults = [("HEAD", "503")]
        prints.append(storage.fingerprint(storage.join(s3_root, name)))
    assert prints[0] != prints[1]
    assert prints[0] == prints[2], "the place does not count"
    assert flaky.faults == []


def test_fingerprints_of_many_objects_are_one_listing(flaky: FlakyStore, s3_root: str) -> None:
    files = [f"{number}.png" for number in range(20)]
    for file in files:
        storage.write_once(storage.join(s3_root, file), file.encode())
    asked: list[str] = []
    flaky.plan = lambda method: asked.append(method) or ""  # type: ignore[func-returns-value]
    assert list(storage.fingerprints(s3_root, files)) == files
    assert asked == ["GET"]
    asked.clear()
    assert list(storage.fingerprints(s3_root, files[:1])) == files[:1]
    assert asked == ["HEAD"], "its neighbours may be a million"


def test_a_document_comes_in_one_request(flaky: FlakyStore, s3_root: str) -> None:
    """A night reads hundreds of them, one after the other, each tens of milliseconds away."""
    uri = storage.join(s3_root, "x.json")
    storage.write_json_once(uri, {"a": 1})
    asked: list[str] = []
    flaky.plan = lambda method: asked.append(method) or ""  # type: ignore[func-returns-value]
    assert storage.read_json(uri) == {"a": 1}
    assert asked == ["GET"]


def test_a_store_that_stays_down_is_unreachable(
    flaky: FlakyStore, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)
    flaky.faults = [(method, "503") for method in ("PUT", "GET", "HEAD") for _ in range(10_000)]
    for verb in (lambda uri: storage.write_once(uri, b"1"), storage.read_bytes, storage.exists, storage.list_names):
        with pytest.raises(UnreachableError, match=rf"x: {flaky.endpoint} did not answer in \d+ tries"):
            verb(storage.join(s3_root, "x"))


def test_nobody_there_is_unreachable(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)
    use_endpoint(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port} did not answer .* AWS_ENDPOINT_URL") as raised:
        storage.read_bytes("s3://bucket/x")
    assert raised.value.exit_status == 3


def test_a_password_in_the_endpoint_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, "http://user:secret@127.0.0.1:9")
    with pytest.raises(InputError, match="put them into AWS_ACCESS_KEY_ID") as raised:
        storage.read_bytes("s3://bucket/x")
    assert "secret" not in str(raised.value).lower().replace("aws_secret_access_key", "")


def test_large_files_go_in_parts_and_are_created_once(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)
    source, other = tmp_path / "large", tmp_path / "other"
    source.write_bytes(bytes(11 << 20))
    other.write_bytes(b"\1" * (11 << 20))
    uri = storage.join(s3_root, "large")
    assert storage.commit_file(source, uri) is True
    etag = object_store.attempt(uri, lambda filesystem, path: filesystem.info(path)["ETag"])
    assert etag.endswith('-3"'), "three parts"
    assert storage.commit_file(source, uri) is False
    assert object_store.create_from_file(uri, other) is False, "the condition must hold for multipart uploads too"
    with pytest.raises(ConflictError):
        storage.commit_file(other, uri)


def test_a_missing_bucket_is_named(s3_root: str) -> None:
    with pytest.raises(InputError, match=r"s3://no-such-bucket/x: no such object or bucket"):
        storage.write_once("s3://no-such-bucket/x", b"1")


def test_a_deletion_is_one_request_each_and_tells_what_went_before_it_failed(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [f"{s3_root}/{number}" for number in range(3)]
    for uri in uris:
        storage.write_once(uri, b"1")
    filesystem = object_store.filesystem_of(s3_root)
    remove = filesystem.rm_file
    asked: list[str] = []

    def refuse_the_second(path: str) -> None:
        asked.append(path[-1])
        if path.endswith("/1"):
            raise PermissionError("told to")
        remove(path)

    monkeypatch.setattr(filesystem, "exists", lambda path: pytest.fail("looked first"))
    monkeypatch.setattr(filesystem, "rm_file", refuse_the_second)
    going = storage.delete_each(uris)
    assert [next(going), next(going)] == [uris[0], uris[2]]
    with pytest.raises(InputError, match=r"/1: .* refuses access"):
        next(going)
    assert sorted(asked) == ["0", "1", "2"]


def test_a_whole_bucket_is_not_deleted(s3_root: str) -> None:
    with pytest.raises(InputError, match="is a whole bucket"):
        storage.delete_tree("s3://segpipe-test")


def test_missing_credentials_are_named(s3_root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    object_store._open_filesystem.cache_clear()
    with pytest.raises(InputError, match=r"no credentials .* set AWS_ACCESS_KEY_ID"):
        storage.read_bytes(storage.join(s3_root, "x"))
    object_store._open_filesystem.cache_clear()


def test_only_stores_with_a_conditional_put_are_written() -> None:
    with pytest.raises(InputError, match="create-if-absent"):
        storage.write_once("memory://folder/x", b"1")
    with pytest.raises(InputError, match="not a known kind of storage"):
        storage.read_bytes("nonsense://folder/x")
    assert storage.local_path("s3://bucket/x") is None
    assert storage.sweep("s3://bucket/x") == []
