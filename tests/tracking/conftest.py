"""One SQLite store for the whole session (making it costs seconds), a fresh experiment for each test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe import tracking
from segpipe.tracking import RunRef

OpenRun = Callable[[str], RunRef]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    home: Path = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{home}/mlflow.db"


@pytest.fixture
def open_run(store: str, request: pytest.FixtureRequest) -> OpenRun:
    """Opens a run by its key in an experiment named after the test."""

    def opened(key: str) -> RunRef:
        experiment = request.node.name.translate(str.maketrans("[]/", "___"))
        return tracking.open_parent(store, experiment=experiment, key=key, name=key, description="", tags={})

    return opened
