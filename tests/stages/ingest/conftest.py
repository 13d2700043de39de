"""What the tests of ingest share: small photographs of streets, and the version that they must give everywhere."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.stages.ingest import ingest
from tests.fixtures.ingest_worker import streets, write_streets


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_streets(tmp_path_factory.mktemp("source") / "streets")


@pytest.fixture(scope="session")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version that `source` must give everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        return ingest(streets(source), to=str(tmp_path_factory.mktemp("expected"))).version


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)
