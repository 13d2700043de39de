"""A real MLflow server: everything through HTTP, and then the server is killed in the middle of a training."""

import re
import time
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

import mlflow
import pytest

from segpipe import tracking
from segpipe.errors import UnreachableError
from segpipe.tracking import MetricLogger, live
from tests.fixtures.example_reports import eval_report
from tests.fixtures.mlflow_store import FORM, free_port, make_bundle, mlflow_process, stop


def test_a_server_is_used_and_its_death_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.05)
    port = free_port()
    uri, home = f"http://127.0.0.1:{port}", tmp_path / "server"
    home.mkdir()
    stores = ("--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", f"{home}/artifacts")
    with mlflow_process("server", "--workers", "1", *stores, port=port, folder=home, tracking_uri=uri) as server:
        tracking.reachable(uri)
        parent = tracking.open_parent(uri, experiment="e", key="p", name="p", description="d", tags={})
        run = tracking.open_child(parent, key="c", name="c", params={"epochs": 1}, tags={}, description="d")
        assert tracking.open_child(parent, key="c", name="c", params={}, tags={}, description="d") == run
        tracking.record_dataset(run, name="toy", version="ab" * 32, uri="/d", split="test", context="evaluation")
        tracking.record_evaluation(
            run, report=eval_report(), report_json=b"{}", recipe_text="x", pictures=[("a/b c", b"PNG")]
        )
        bundle, _ = make_bundle(tmp_path / "run")
        for _ in range(2):
            noted = {"tags": {}, "description": "d", "form": FORM, "requires": ()}
            assert tracking.register(run, name="m", bundle_uri=bundle, **noted) == 1
        tracking.set_alias(uri, "m", "champion", 1)
        assert tracking.alias_version(uri, "m", "champion") == 1
        assert tracking.alias_version(uri, "m", "challenger") is None
        assert tracking.alias_version(uri, "unknown", "champion") is None
        client = mlflow.MlflowClient(uri)
        assert client.download_artifacts(run.run_id, "evaluation/report.json", str(tmp_path))
        page = (tracking.run_url(run) or "").partition("#")[0]
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert b"MLflow" in answer.read()
        note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
        (picture,) = re.findall(r"!\[a/b c\]\((.*)\)", note)
        with urllib.request.urlopen(urljoin(page, picture), timeout=30) as answer:
            assert answer.read() == b"PNG"
        logger = MetricLogger(run)
        logger({"train/loss": 1.0}, 1)
        _wait_for_value(client, run.run_id)
        stop(server)
        start = time.monotonic()
        for step in range(2, 1002):
            logger({"train/loss": 1.0 / step}, step)
        assert time.monotonic() - start < 5
        assert logger.close(5) == 1000
        with pytest.raises(UnreachableError, match=r"mlflow server"):
            tracking.reachable(uri)
        with pytest.raises(UnreachableError, match=r"cannot be used"):
            tracking.mirror_history(run, [{"step": 1, "epoch": 0, "metrics": {"train/loss": 1.0}}])


def _wait_for_value(client: mlflow.MlflowClient, run_id: str) -> None:
    for _ in range(300):
        if "train/loss" in client.get_run(run_id).data.metrics:
            return
        time.sleep(0.1)
    raise AssertionError("the first value never arrived at the server")
