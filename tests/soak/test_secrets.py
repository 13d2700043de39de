"""Rule 11, counted as row E2 (the goal sheet has none): no secret in logs, messages, tracebacks or what is stored."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from segpipe import storage, tracking
from segpipe.errors import SegpipeError
from segpipe.stages.ingest import ingest
from segpipe.storage import object_store
from tests.fixtures.command_line import segpipe
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.object_store import BUCKET
from tests.fixtures.trials import Trials

SECRET = "cAnArY0f4secret"
WITH_PASSWORD = f"s3://AKIDEXAMPLE:{SECRET}@bucket/prefix"


@pytest.mark.usefixtures("one_core")
def test_no_secret_is_told(
    trials: Trials, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a working night, and in each way to get an address or a key wrong; our own log at its most talkative."""
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")

    def open_mlflow(uri: str) -> object:
        return tracking.open_parent(uri, experiment="e", key="k", name="n", description="", tags={})

    def with_endpoint(endpoint: str) -> object:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        return ingest(streets(source), to="s3://bucket/prefix")

    tries: list[Callable[[], object]] = [
        lambda: ingest(streets(source), to=s3_root),
        lambda: storage.read_bytes(WITH_PASSWORD),
        lambda: storage.write_once(WITH_PASSWORD, b"1"),
        lambda: storage.list_tree(WITH_PASSWORD),
        lambda: ingest(streets(source), to=WITH_PASSWORD),
        lambda: ingest(streets(WITH_PASSWORD), to=str(tmp_path / "to")),
        lambda: segpipe("ingest", "folder", str(source), "--to", WITH_PASSWORD, "--name", "x").output,
        lambda: segpipe("data", "inspect", WITH_PASSWORD).output,
        lambda: ingest(streets(source), to="s3://no-such-bucket/prefix"),
        lambda: open_mlflow(f"http://user:{SECRET}@127.0.0.1:9"),
        lambda: with_endpoint(f"http://user:{SECRET}@127.0.0.1:9"),
        lambda: with_endpoint("http://127.0.0.1:9"),
    ]

    def trial(number: int) -> None:
        told = ""
        with caplog.at_level(logging.DEBUG, logger="segpipe"):
            try:
                told = str(tries[number]())
            except SegpipeError:
                told = traceback.format_exc()
        assert told
        assert SECRET not in told, told
        assert SECRET not in caplog.text
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path

    chosen = range(len(tries))
    trials.run("E2", chosen, trial)
    monkeypatch.undo()


@pytest.mark.usefixtures("one_core")
def test_no_secret_is_stored(trials: Trials, s3_server: str, s3_root: str, tmp_path: Path) -> None:
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    client = boto3.client("s3", endpoint_url=s3_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        ingest(streets(source), to=s3_root)
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]

    def trial(number: int) -> None:
        assert SECRET.encode() not in client.get_object(Bucket=BUCKET, Key=keys[number])["Body"].read(), keys[number]

    trials.run("E2", range(len(keys)), trial)
