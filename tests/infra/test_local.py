"""infra/local: `make ui` opens both pages over the results, and Ctrl-C ends what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.fixtures.mlflow_store import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(200)
def test_make_ui_opens_two_pages_and_ctrl_c_ends_both(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    ports = {"MLFLOW_PORT": str(free_port()), "PREFECT_PORT": str(free_port())}
    with subprocess.Popen(
        ["make", "ui"],
        cwd=ROOT,
        env=kept | ports | {"SEGPIPE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "Ctrl-C ends both" in line:
                    break
            pages = [f"http://127.0.0.1:{port}" for port in ports.values()]
            for url, title in zip(pages, ("MLflow", "Prefect"), strict=True):
                assert any(url in line for line in said), said
                with urllib.request.urlopen(url, timeout=30) as answer:
                    assert title in answer.read().decode()
        finally:
            os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) != 0
    for url in pages:
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)
