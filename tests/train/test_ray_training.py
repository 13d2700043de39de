"""Real training on a real, embedded Ray: bit-equal to a plain process, also after its worker was killed."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import ray

from segpipe.config import ResourceConfig
from segpipe.errors import InputError
from segpipe.train import on_ray
from segpipe.train.loop import fit
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult
from tests.fixtures.small import small_run
from tests.fixtures.train_worker import job_at, moved, same, train

pytestmark = [
    pytest.mark.xdist_group("ray"),
    # Ray Data sets options of its own that it deprecates, whenever a trainer is made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # workers import the sinks of this file's fixtures
        on_ray.connect(num_cpus=2)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return job_at(str(tmp_path_factory.mktemp("ray")), small_run(checkpoint_every=3))


@pytest.fixture(scope="module")
def undisturbed(shared: TrainJob) -> TrainResult:
    """The same run in this process."""
    return train(moved(shared, f"{shared.run_uri}-local"))


@dataclass(frozen=True)
class Watch:
    """A sink that writes down every report, and kills its own process at each of `kills` the first time."""

    folder: Path
    kills: tuple[int, ...] = ()

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        with open(self.folder / "seen", "a") as file:
            print(os.getpid(), step, *sorted(metrics), file=file)
        mark = self.folder / f"killed-at-{step}"
        if step in self.kills and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def seen(self) -> list[tuple[int, int]]:
        """(process, step) of every training step that was reported."""
        lines = [line.split() for line in (self.folder / "seen").read_text().splitlines()]
        return [(int(pid), int(step)) for pid, step, *names in lines if "train/loss" in names]


def launch(job: TrainJob, sink: Watch, **resources: int) -> TrainResult:
    result: TrainResult = on_ray.launch(
        partial(fit, job), name="shapes", resources=ResourceConfig(**resources), sink=sink
    )
    return result


def test_one_worker_computes_what_a_plain_process_computes(
    shared: TrainJob, undisturbed: TrainResult, tmp_path: Path
) -> None:
    watch = Watch(tmp_path)
    result = launch(moved(shared, str(tmp_path / "run")), watch)
    assert same(result) == same(undisturbed)
    assert [step for _, step in watch.seen()] == list(range(1, 9))
    assert os.getpid() not in {pid for pid, _ in watch.seen()}


def test_a_worker_killed_twice_goes_on_from_its_newest_checkpoint(
    shared: TrainJob, undisturbed: TrainResult, tmp_path: Path
) -> None:
    watch = Watch(tmp_path, kills=(5, 8))
    result = launch(moved(shared, str(tmp_path / "run")), watch, max_failures=2)
    assert same(result) == same(undisturbed)
    assert [step for _, step in watch.seen()] == [1, 2, 3, 4, 5, *(5, 6, 7, 8), *(7, 8)], "saved after 3, 4 and 6"
    assert len({pid for pid, _ in watch.seen()}) == 3


def test_what_the_recipe_has_wrong_arrives_as_itself_and_at_once(shared: TrainJob, tmp_path: Path) -> None:
    job = replace(moved(shared, str(tmp_path / "run")), run=small_run(train_split="trian"))
    with pytest.raises(InputError, match="split 'trian' is missing or empty"):
        launch(job, Watch(tmp_path))
