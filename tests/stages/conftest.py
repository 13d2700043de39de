"""What the tests of the stages share: one core for ingest, S3, and homes whose MLflow store is made once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe import tracking
from tests.fixtures.object_store import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

# MLflow 3.17 on SQLAlchemy 2.1, and on its own registry.
THIRD_PARTY_WARNINGS = ("The ``noload`` loader strategy is deprecated",)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest works in this process: starting others costs more than these tiny datasets."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


@pytest.fixture(scope="session")
def mlflow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store in SQLite; its tables take seconds to make."""
    path: Path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.open_parent(f"sqlite:///{path}", experiment="none", key="none", name="none", description="", tags={})
    return path


@pytest.fixture(scope="session")
def new_home(mlflow_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes homes with a store of their own."""

    def make() -> Path:
        home: Path = tmp_path_factory.mktemp("night")
        shutil.copy(mlflow_file, home / "mlflow.db")
        return home

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of MLflow's own code, which nobody here can mend, are no errors in the tests of this room."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for message in THIRD_PARTY_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
