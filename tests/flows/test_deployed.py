"""The README's nightly, for real: a Prefect server, `deploy --all`, a worker, and a run of a deployment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.mlflow_store import free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
RECIPE = """
name: tiny
task: semantic
dataset: {name: tiny, format: scenes, options: {train: 8, val: 2, test: 2, height: 32, width: 40}}
architectures: [{arch: fcn_resnet18, options: {output_stride: 16}}]
train: {epochs: 1, batch_size: 4, augment: {crop: [32, 32]}}
evaluate: {pictures: 1}
"""


class Place:
    """A folder, a port and an environment in which the programs of the README are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        away = ("PREFECT_", "MLFLOW_", "RAY_", "SEGPIPE_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(away)} | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",  # of 10 that a run waits for on a day without hurry
            "SEGPIPE_HOME": str(folder / "home"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def run(self, program: str, *arguments: str) -> str:
        command = [str(PROGRAMS / program), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    @contextmanager
    def running(self, name: str, program: str, *arguments: str) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [str(PROGRAMS / program), *arguments]
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def ask(self, path: str, query: dict[str, Any] | None = None) -> Any:
        data = None if query is None else json.dumps(query).encode()
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait_for_server(self) -> None:
        for _ in range(240):
            try:
                return self.ask("/health") and None
            except (OSError, urllib.error.URLError):
                time.sleep(0.5)
        pytest.fail(f"no Prefect server: {self.logs()}")

    def logs(self) -> str:
        return "".join(f"\n{path.name}:\n{path.read_text()[-4000:]}" for path in sorted(self.folder.glob("*.log")))


def test_a_deployed_retrain_ends_with_a_champion_and_its_artifacts(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    place = Place(tmp_path)
    with place.running("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(place.port)):
        place.wait_for_server()
        place.run("prefect", "work-pool", "create", "segpipe-process", "--type", "process")
        place.run("prefect", "--no-prompt", "deploy", "--all")
        with place.running("worker", "prefect", "worker", "start", "--pool", "segpipe-process"):
            recipe = f"recipe={tmp_path}/tiny.yaml"
            shown = place.run(
                "prefect", "deployment", "run", "retrain/adhoc", "--param", recipe, "--watch", "--watch-interval", "1"
            )
            assert "Completed" in shown, place.logs()
        artifacts = place.ask("/artifacts/filter", {})
    assert {artifact["key"] for artifact in artifacts} >= {"dataset-tiny", "night-tiny"}, artifacts
    (row,) = json.loads(place.run("segpipe", "board", "tiny", "--json"))
    (record,) = json.loads(place.run("segpipe", "history", "tiny", "--json"))
    assert (record["kind"], record["champion"]["weights_sha256"]) == ("promoted", row["weights_sha256"])
    assert "first champion" in place.run("segpipe", "history", "tiny")
