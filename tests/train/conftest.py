"""A small training job, for the tests of the loop."""

from pathlib import Path

import pytest

from segpipe.train.session import TrainJob
from tests.fixtures.small import publish_small, small_run
from tests.fixtures.train_worker import moved


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """The job of a plain run over a dataset that all tests of a file share."""
    folder = tmp_path_factory.mktemp("shared")
    version = publish_small(f"{folder}/data")
    return TrainJob(
        run=small_run(), data=f"{folder}/data", version=version, run_uri=f"{folder}/plain", code_version="test"
    )


@pytest.fixture
def job(small: TrainJob, tmp_path: Path) -> TrainJob:
    return moved(small, str(tmp_path / "run"))
