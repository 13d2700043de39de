"""What the tests of the stages share: one core for ingest, S3, a trained model, homes with an MLflow store."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segpipe import tracking
from segpipe.config import ResourceConfig, RunConfig
from segpipe.stages.identity import resolve
from segpipe.stages.train import train
from segpipe.types import TrainResult
from tests.fixtures.object_store import s3_root, s3_server
from tests.fixtures.small import publish_small, small_run

__all__ = ["s3_root", "s3_server"]


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """A small dataset with one model trained on it; read-only, `copy_run` gives a run to damage."""

    data: str
    version: str
    runs: Path
    run: RunConfig
    result: TrainResult

    def train(self, runs: Path | None = None, run: RunConfig | None = None) -> TrainResult:
        return train(
            run or self.run,
            data=self.data,
            version=self.version,
            to=str(runs or self.runs),
            resources=ResourceConfig(),
            runtime="local",
        )

    def copy_run(self, to: Path) -> Path:
        """The run as if it had been made below `to`. Its files are links: replace them, do not write into them."""
        here = self.result.run_uri
        copy = Path(shutil.copytree(here, to / Path(here).name, copy_function=os.link))
        result = (copy / "train.json").read_text().replace(here, str(copy))
        (copy / "train.json").unlink()
        (copy / "train.json").write_text(result)
        return copy


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    folder: Path = tmp_path_factory.mktemp("shapes")
    data, runs, run = str(folder / "data"), folder / "runs", resolve(small_run(optimizer="sgd", learning_rate=0.05))
    version = publish_small(data)
    result = train(run, data=data, version=version, to=str(runs), resources=ResourceConfig(), runtime="local")
    return Shapes(data=data, version=version, runs=runs, run=run, result=result)


@pytest.fixture
def mlflow_down(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an MLflow that does not answer, set for this test."""
    address = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes homes with an MLflow store of their own: copies of one, because its tables take seconds to make."""
    store: Path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.open_parent(f"sqlite:///{store}", experiment="none", key="none", name="none", description="", tags={})

    def make() -> Path:
        home: Path = tmp_path_factory.mktemp("night")
        shutil.copy(store, home / "mlflow.db")
        return home

    return make


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """A home for all tests of a file."""
    return new_home()
