"""Training and tasks on a real, embedded Ray with two CPUs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from torch import nn

from segpipe.config import ResourceConfig
from segpipe.errors import BadSampleError, InputError, NonFiniteError, UnreachableError
from segpipe.train import on_ray
from segpipe.train.on_ray import cluster, news
from segpipe.train.runtime import LocalRuntime, Runtime
from segpipe.types import TrainProgress

pytestmark = [
    # One pytest worker for all tests on Ray: the module's Ray is started once, and two never share the cores.
    pytest.mark.xdist_group("ray"),
    # Ray Data sets options of its own that it deprecates, whenever a trainer is made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

ONE, TWO = ResourceConfig(), ResourceConfig(workers=2)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import the functions of this file
        ray.shutdown()  # of whoever had one in this process before: its workers know no such path
        on_ray.connect(num_cpus=2)
        yield
        ray.shutdown()


def attempt(folder: Path) -> int:
    """Which attempt this is, 1 at first: counted in files, as the process may be a new one."""
    number = len(list(folder.iterdir())) + 1
    (folder / f"attempt-{number}").touch()
    return number


def gradient_of_rank(runtime: Runtime) -> dict[str, Any]:
    """One backward pass of `rank + 1` through a wrapped layer, and what the ranks' sum is."""
    layer = nn.Linear(1, 1, bias=False)
    model = runtime.wrap(layer)
    model(torch.full((1, 1), float(runtime.rank + 1))).sum().backward()
    runtime.barrier()
    assert layer.weight.grad is not None
    return {
        "gradient": layer.weight.grad.item(),
        "sum": runtime.sum(torch.tensor([runtime.rank + 1, 10])).tolist(),
        "world_size": runtime.world_size,
        "device": str(runtime.device),
    }


Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What came of three trainings launched at once from three threads, on two CPUs: one has to wait for room."""
    folder = tmp_path_factory.mktemp("side-by-side")
    progress: list[tuple[TrainProgress, int]] = []
    outcome: Outcome = {"folder": folder, "progress": progress}

    def value(runtime: Runtime) -> dict[str, Any]:
        runtime.report(TrainProgress({"loss": 0.5}, step=7, total_steps=20))
        group = torch.distributed.is_initialized()
        return {**gradient_of_rank(runtime), "threads": torch.get_num_threads(), "group": group}

    def refused(runtime: Runtime) -> None:
        attempt(folder / "refused")
        raise NonFiniteError("loss nan at step 3")

    def bug(runtime: Runtime) -> None:
        attempt(folder / "bug")
        raise KeyError("no_such_thing")

    def sink(metrics: Any, step: int) -> None:
        (folder / "metrics").write_text(f"{dict(metrics)} at {step} in {os.getpid()}")

    def one(function: Callable[[Runtime], Any]) -> None:
        (folder / function.__name__).mkdir()
        try:
            outcome[function.__name__] = on_ray.launch(
                function,
                name=function.__name__,
                resources=ONE,
                sink=sink,
                on_progress=lambda news: progress.append((news, os.getpid())),
            )
        except Exception as error:
            outcome[function.__name__] = error

    threads = [threading.Thread(target=one, args=(function,)) for function in (value, refused, bug)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def test_one_worker_returns_its_value_and_is_the_local_runtime(side_by_side: Outcome) -> None:
    remote = dict(side_by_side["value"])
    assert remote.pop("threads") == 1
    assert remote.pop("group") is False
    assert remote == gradient_of_rank(LocalRuntime(torch.device("cpu")))


def test_metrics_go_to_the_sink_from_the_worker(side_by_side: Outcome) -> None:
    told, _, pid = (side_by_side["folder"] / "metrics").read_text().rpartition(" in ")
    assert told == "{'loss': 0.5} at 7"
    assert int(pid) != os.getpid()


def test_the_driver_is_told_how_far_a_training_is(side_by_side: Outcome) -> None:
    assert side_by_side["progress"] == [(TrainProgress({"loss": 0.5}, step=7, total_steps=20), os.getpid())]


def test_an_error_of_ours_arrives_as_itself_and_is_not_retried(side_by_side: Outcome) -> None:
    assert isinstance(side_by_side["refused"], NonFiniteError)
    assert str(side_by_side["refused"]) == "loss nan at step 3"
    assert len(list((side_by_side["folder"] / "refused").iterdir())) == 1


def test_a_bug_arrives_with_the_worker_s_traceback_and_is_not_retried(side_by_side: Outcome) -> None:
    assert type(side_by_side["bug"]) is RuntimeError
    assert str(side_by_side["bug"]).startswith("bug: KeyError: 'no_such_thing'\nIn the training worker:\nTraceback")
    assert "test_on_ray.py" in str(side_by_side["bug"])
    assert len(list((side_by_side["folder"] / "bug").iterdir())) == 1


def test_two_workers_agree_on_the_gradient_and_the_sum() -> None:
    found = on_ray.launch(gradient_of_rank, name="two", resources=TWO)
    assert found == {"gradient": 1.5, "sum": [3, 20], "world_size": 2, "device": "cpu"}


def test_a_refusal_by_one_of_two_workers_ends_both_and_is_not_retried(tmp_path: Path) -> None:
    def function(runtime: Runtime) -> None:
        if runtime.rank == 1:
            attempt(tmp_path)
            raise InputError("shard 3 is not mine")
        runtime.barrier()  # rank 0 waits for one that will never come

    with pytest.raises(InputError, match=r"^shard 3 is not mine$"):
        on_ray.launch(function, name="one-of-two", resources=TWO)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_training_that_can_never_have_room_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="3 CPU, has 2") as caught:
        on_ray.launch(lambda runtime: None, name="large", resources=ResourceConfig(workers=3))
    assert "resources.workers" in str(caught.value)


@pytest.fixture
def square() -> Callable[[int], int]:
    """A function without a place to import it from: it travels to the workers whole, and they load no torch for it."""

    def square(number: int) -> int:
        if number < 0:
            raise BadSampleError("truncated", "a.jpg", f"{number} bytes", item="7")
        return number * number

    return square


def test_tasks_come_back_in_order_and_say_how_far_they_are(square: Callable[[int], int]) -> None:
    done: list[int] = []
    assert on_ray.fan_out(square, [3, 1, 2], on_done=done.append) == [9, 1, 4]
    assert done == [1, 2, 3]
    assert on_ray.fan_out(square, []) == []
    assert on_ray.fan_out(partial(pow, 2), [3]) == [8], "whatever can be called"


def test_an_error_of_a_task_arrives_as_itself(square: Callable[[int], int]) -> None:
    with pytest.raises(BadSampleError, match="truncated") as caught:
        on_ray.fan_out(square, [1, -5, 2])
    assert (caught.value.file, caught.value.item) == ("a.jpg", "7")


def test_there_are_no_gpus_to_share_here() -> None:
    expected = 1.0 if torch.cuda.is_available() else 0.0
    assert on_ray.gpu_share() == expected


def test_a_cluster_that_is_lost_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait a minute for it, and then end this process."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as if this Ray were one that others started
    assert cluster.answers()
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    assert not cluster.answers()
    monkeypatch.setattr(news.internal_kv, "_internal_kv_del", lambda _: pytest.fail("it was asked"))
    news.forget("key")


def test_connecting_again_is_free() -> None:
    before = ray.get_runtime_context().get_node_id()
    on_ray.connect()
    assert ray.get_runtime_context().get_node_id() == before


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets `connect` believe that this process has no Ray yet and that RAY_ADDRESS is what the test says."""

    def point(address: str) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setenv("RAY_ADDRESS", address)

    return point


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:notaport", "no.such.host.invalid:6379"])
def test_an_address_where_nobody_answers_is_named_with_the_remedy(
    elsewhere: Callable[[str], None], address: str
) -> None:
    elsewhere(address)
    with pytest.raises(UnreachableError, match=f"RAY_ADDRESS={address}: no Ray cluster answers") as caught:
        on_ray.connect()
    assert "unset RAY_ADDRESS" in str(caught.value)


def test_ray_client_is_refused(elsewhere: Callable[[str], None]) -> None:
    elsewhere("ray://127.0.0.1:10001")
    with pytest.raises(InputError, match="Ray Client"):
        on_ray.connect()
