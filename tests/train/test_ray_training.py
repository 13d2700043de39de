"""Real training on a real, embedded Ray: bit-equal to a plain process, also after its worker was killed."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from segpipe.config import ResourceConfig
from segpipe.train import on_ray
from segpipe.train.loop import fit
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult
from tests.fixtures.small import small_run
from tests.fixtures.train_worker import Watch, job_at, moved, same, train

pytestmark = [
    pytest.mark.xdist_group("ray"),
    # Ray Data sets options of its own that it deprecates, whenever a trainer is made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # workers import `tests.fixtures`
        ray.shutdown()  # of whoever had one in this process before: its workers know no such path
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


def launch(job: TrainJob, sink: Watch) -> TrainResult:
    result: TrainResult = on_ray.launch(partial(fit, job), name="shapes", resources=ResourceConfig(), sink=sink)
    return result


def test_one_worker_computes_what_a_plain_process_computes(
    shared: TrainJob, undisturbed: TrainResult, tmp_path: Path
) -> None:
    watch = Watch(tmp_path)
    result = launch(moved(shared, str(tmp_path / "run")), watch)
    assert same(result) == same(undisturbed)
    assert [step for _, step in watch.seen()] == list(range(1, 9))
    assert os.getpid() not in {pid for pid, _ in watch.seen()}


def test_a_killed_worker_goes_on_from_its_newest_checkpoint(
    shared: TrainJob, undisturbed: TrainResult, tmp_path: Path
) -> None:
    watch = Watch(tmp_path, kills=(6,))
    result = launch(moved(shared, str(tmp_path / "run")), watch)
    assert same(result) == same(undisturbed)
    assert [step for _, step in watch.seen()] == [1, 2, 3, 4, 5, 6, *(5, 6, 7, 8)], (
        "step 4 ended an epoch and was saved"
    )
    assert len({pid for pid, _ in watch.seen()}) == 2
