"""Where to look after a night: the printed commands work, and no password is printed."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segpipe.stages.pages import mlflow_store, pages


def test_the_printed_commands_work_from_any_folder_and_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "my home; $(touch oops)"
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    monkeypatch.delenv("PREFECT_HOME")
    programs = Path(sys.executable).parent
    found = pages()
    store = f"sqlite:///{home}/mlflow.db"
    mlflow = [f"{programs}/mlflow", "server", "--backend-store-uri", store, "--port", "5000"]
    assert shlex.split(found["MLflow"]) == mlflow
    assert shlex.split(found["Prefect"]) == [f"PREFECT_HOME={home}/prefect", f"{programs}/prefect", "server", "start"]
    for command in found.values():
        shell = ["/bin/sh", "-c", f"{command} --help"]
        done = subprocess.run(shell, cwd=tmp_path, env={"PATH": "/nowhere"}, capture_output=True, text=True)
        assert (done.returncode, "--port" in done.stdout) == (0, True), done.stderr
    assert list(tmp_path.glob("oops")) == []


def test_a_program_s_folder_is_quoted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python"))
    assert shlex.split(pages()["MLflow"])[0] == str(tmp_path / "my env" / "bin" / "mlflow")


def test_servers_and_a_chosen_prefect_home_are_named_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/somewhere/else")
    assert pages()["Prefect"].startswith("PREFECT_HOME=/somewhere/else /")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    assert pages() == {"MLflow": "https://mlflow.example", "Prefect": "https://prefect.example"}


@pytest.mark.parametrize("scheme", ["https", "postgresql", "mysql+pymysql"])
def test_no_password_is_shown_and_no_command_that_needs_one(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@host:5000/mlflow")
    shown = f"{scheme}://me:***@host:5000/mlflow"
    assert (mlflow_store(), pages()["MLflow"]) == (shown, shown)
