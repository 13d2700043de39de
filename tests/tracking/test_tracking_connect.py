"""Which store is used, and that every way of not getting through is one UnreachableError that says what to do."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest

from segpipe import tracking
from segpipe.errors import UnreachableError
from segpipe.tracking import RefusedError
from segpipe.tracking.connect import metric_name, page, without_password
from tests.fixtures.mlflow_store import free_port, speaking


def test_importing_the_room_does_not_import_mlflow() -> None:
    code = "import sys, segpipe.tracking; print('mlflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_default_uri_is_a_file_in_the_home_unless_the_environment_names_a_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tracking.default_uri("/data/home") == "sqlite:////data/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking.default_uri("/data/home") == "http://mlflow:5000"


def test_an_embedded_store_that_does_not_exist_yet_is_reachable(tmp_path: Path) -> None:
    tracking.reachable(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert (tmp_path / "new").is_dir()


def test_an_embedded_store_in_an_impossible_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match=r"file/sub/mlflow\.db cannot be used.*make its folder writable"):
        tracking.reachable(f"sqlite:///{tmp_path}/file/sub/mlflow.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(UnreachableError, match="not a database"):
        tracking.reachable(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(UnreachableError, match=r"no answer.*mlflow server --host") as caught:
        tracking.reachable(f"http://127.0.0.1:{free_port()}")
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("address", ["http://localhost:50O0", "http://[::1", "http://"])
def test_an_address_with_a_slip_of_the_pen(address: str) -> None:
    with pytest.raises(UnreachableError, match="cannot be used"):
        tracking.reachable(address)


def test_a_port_that_speaks_another_language() -> None:
    with (
        speaking(b"SSH-2.0-OpenSSH_9.6\r\n") as uri,
        pytest.raises(UnreachableError, match="not the address of an HTTP"),
    ):
        tracking.reachable(uri)


def test_a_page_that_says_yes_to_everything_is_not_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    page = b"<html>Welcome</html>"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    with speaking(answer) as uri, pytest.raises(UnreachableError, match="not in a valid JSON format"):
        tracking.set_alias(uri, "model", "champion", 1)


def test_a_server_that_accepts_and_hangs_is_given_up_quickly() -> None:
    with speaking(None) as uri:
        start = time.monotonic()
        with pytest.raises(UnreachableError, match="timed out"):
            tracking.reachable(uri)
        assert time.monotonic() - start < 10


def test_calls_to_a_dead_server_are_unreachable_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=r"user:\*\*\*@") as caught:
        tracking.set_alias(uri, "model", "champion", 1)
    assert "secret" not in str(caught.value)


def test_an_experiment_of_a_server_is_not_continued_without_it(tmp_path: Path) -> None:
    """Its files are the server's: an embedded store would be refused every one of them, in words that help nobody."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.MlflowClient(uri).create_experiment("camvid", artifact_location="mlflow-artifacts:/1")
    with pytest.raises(RefusedError, match=r"a server made the experiment 'camvid'.*set MLFLOW_TRACKING_URI"):
        tracking.open_parent(uri, experiment="camvid", key="k", name="n", description="", tags={})


def test_a_store_that_refuses_is_told_from_one_that_is_down(open_run, store: str) -> None:
    run = open_run("a")
    gone = replace(run, run_id="0" * 32)
    with pytest.raises(RefusedError, match=r"refused what it was shown: Run with id=0+ not found .*RESOURCE_DOES_NOT"):
        tracking.finish(gone)
    with pytest.raises(RefusedError, match="Registered Model with name=model not found"):
        tracking.set_alias(store, "model", "champion", 1)


@pytest.mark.parametrize(("status", "expected"), [(404, "HTTP 404"), (502, "HTTP 502"), (401, None)])
def test_something_else_behind_the_address(status: int, expected: str | None) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not into the test's output."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        uri = f"http://127.0.0.1:{server.server_port}"
        try:
            if expected is None:  # a proxy that wants the login which MLflow's client will give
                assert tracking.reachable(uri) is None
            else:
                with pytest.raises(UnreachableError, match=expected):
                    tracking.reachable(uri)
        finally:
            server.shutdown()
            thread.join()


def test_a_server_too_old_for_a_question_is_one_that_refuses() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Not into the test's output."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            with pytest.raises(RefusedError, match=r"404.*its release is not older than"):
                tracking.set_alias(f"http://127.0.0.1:{server.server_port}", "model", "champion", 1)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train/loss", "train/loss"),
        ("val/iou/car (left)", "val/iou/car _left_"),
        ("a//b/../c", "a/b/c"),
        ("", "_"),
    ],
)
def test_metric_names_become_what_mlflow_takes(text: str, name: str) -> None:
    assert metric_name(text) == name


def test_pages_exist_on_servers_only_and_carry_no_login() -> None:
    assert page("sqlite:////x/mlflow.db", "models", "m") is None
    url = page("https://user:pw@host/prefix/", "models", "a b")
    assert url == "https://host/prefix/#/models/a%20b?workflowType=machine_learning"


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://me:pw@db:5432/mlflow") == "postgresql://me:***@db:5432/mlflow"
    assert without_password("http://host:5000") == "http://host:5000"
