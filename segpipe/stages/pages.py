"""Where a person looks after a night: the pages of MLflow and Prefect, or the commands that open them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from segpipe.stages import layout, mirror
from segpipe.tracking.connect import sqlite_path, without_password


def mlflow_store() -> str:
    """Where MLflow is, as it may be printed: without the password that its address may hold."""
    return without_password(mirror.uri())


def pages() -> dict[str, str]:
    """Where MLflow's and Prefect's pages are, or the commands that open the embedded ones, from any folder.

    Of an MLflow store that is neither a server nor a SQLite file only the place is given: a command that opens it
    would have to hold its password.
    """
    mlflow, prefect = mlflow_store(), os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    if sqlite_path(mirror.uri()):
        mlflow = f"{_program('mlflow')} server --backend-store-uri {shlex.quote(mlflow)} --port 5000"
    if not prefect:
        home = os.path.abspath(os.environ.get("PREFECT_HOME") or f"{layout.local_home()}/prefect")
        prefect = f"PREFECT_HOME={shlex.quote(home)} {_program('prefect')} server start"
    return {"MLflow": mlflow, "Prefect": prefect}


def _program(name: str) -> str:
    """The one beside this Python, quoted for a shell: its folder need not be on PATH, and another one may be."""
    return shlex.quote(str(Path(sys.executable).parent / name))
