"""Training and parallel work on Ray: the only file that imports ray. Below `stages/`, beside `runtime.py`.

`launch` runs one training on a Ray Train worker group, `fan_out` plain functions over the cluster. What a function
raises is an answer: it travels back as data, is raised in the driver and never retried. What Ray retries is a worker
that died; the function then starts again and continues from our own checkpoints (Ray keeps none).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import tempfile
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.experimental import internal_kv
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.backend import BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from torch import Tensor, nn
from torch import distributed as dist

import segpipe
from segpipe import errors
from segpipe.config import ResourceConfig
from segpipe.errors import InputError, SegpipeError, UnreachableError
from segpipe.train.runtime import MetricSink, Runtime, all_reduce_sum, wrap

T, R = TypeVar("T"), TypeVar("R")
_log = logging.getLogger(__name__)
_connecting = threading.Lock()

# What Ray reads from the environment. A value that the user has set stays.
_SETTINGS = {
    # A training whose CPUs are taken waits in the cluster's queue. After Ray's 60 s it would lose its place in it.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a recipe mean the same in a worker
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
}
_EMBEDDED_SETTINGS = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # nobody takes a node away from a local Ray
_OBJECT_STORE_BYTES = 128 * 1024**2  # only tasks' arguments and results pass through it
_LONGEST_TEMP_DIR = 40  # a Unix socket's path has at most 107 bytes, and Ray adds about 65


def connect(*, num_cpus: int | None = None) -> None:
    """Connects this process to the cluster at `$RAY_ADDRESS`, or starts a Ray of its own. Doing it again is free.

    A Ray of our own has all CPUs (at least two logical ones, so that one training can start while another trains) and
    ends with this process. Raises UnreachableError when nobody answers at `$RAY_ADDRESS`.
    """
    with _connecting:
        if ray.is_initialized():
            return
        address = os.environ.get("RAY_ADDRESS", "local")
        settings = _SETTINGS if _remote() else _SETTINGS | _EMBEDDED_SETTINGS
        for name, value in settings.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray").setLevel(logging.ERROR)
        options = _cluster_options(address) if _remote() else _embedded_options(num_cpus)
        try:
            _init(options)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise UnreachableError(_no_ray(address, error)) from error


def launch(
    function: Callable[[Runtime], Any], *, name: str, resources: ResourceConfig, sink: MetricSink | None = None
) -> Any:
    """Runs `function(runtime)` on every worker of a new worker group and returns what rank 0 returned.

    Waits as long as it takes until the cluster has room. A dead worker is replaced `resources.max_failures` times. May
    be called from several threads at once. Raises what the function raised, if that is one of our errors; a
    RuntimeError with the worker's traceback if it is not; InputError when the cluster can never have room.
    """
    _check_room(resources)
    key = f"segpipe/refusal/{uuid.uuid4().hex}"

    def work() -> Any:
        return _answer(function, resources, sink, key)

    trainer = _Trainer(
        work,
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_bundle(resources),
        ),
        run_config=RunConfig(
            name=name,
            # Ray only puts an empty marker file there: checkpoints are ours, and lie where the function writes them.
            storage_path=str(Path(tempfile.gettempdir()) / "segpipe-ray-train"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
        backend_config=_process_group(resources),
    )
    try:
        answer = trainer.fit().return_value
    except TrainingFailedError as error:
        raise SegpipeError(f"{name}: its workers failed more than {resources.max_failures} times: {error}") from error
    finally:
        internal_kv._internal_kv_del(key)
    if isinstance(answer, _Refusal):
        answer.reraise(name)
    return answer


def fan_out(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    on_done: Callable[[int], None] | None = None,
) -> list[R]:
    """`[function(item) for item in items]` as tasks over the cluster's nodes; results in the order of `items`.

    `on_done(n)` is told when n items are done. The first error that the function raises is raised here, and what has
    not begun is cancelled. A task whose worker or node died is run again.
    """
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(function)
    results = [task.remote(item) for item in items]
    waiting = list(results)
    try:
        while waiting:
            ready, waiting = ray.wait(waiting)
            ray.get(ready)
            if on_done is not None:
                on_done(len(results) - len(waiting))
        return list(ray.get(results))
    except RayTaskError as error:
        raise error.cause from error
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished)


def gpu_share() -> float:
    """What one evaluation task asks of the cluster's GPUs: one where there are any, else none."""
    return 1.0 if ray.cluster_resources().get("GPU") else 0.0


class RayRuntime:
    """The `Runtime` of a Ray Train worker. With several workers Ray has initialised torch.distributed already."""

    def __init__(self, device: torch.device, sink: MetricSink | None) -> None:
        context = get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = device
        self._sink = sink

    def wrap(self, model: nn.Module) -> nn.Module:
        return wrap(model, self.device, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        return all_reduce_sum(values, self.world_size)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        if self._sink is not None:
            self._sink(metrics, step)


@dataclass(frozen=True)
class _Refusal:
    """An exception as plain data: not every exception survives pickling, and Ray would retry a raised one."""

    kind: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Refusal:
        kind = next((c.__name__ for c in type(error).__mro__ if c in _KINDS.values()), type(error).__name__)
        return cls(kind, str(error), "".join(traceback.format_exception(error)))

    def reraise(self, name: str) -> None:
        if self.kind in _KINDS:
            raise _KINDS[self.kind](self.message)
        raise RuntimeError(f"{name}: {self.kind}: {self.message}\nIn the training worker:\n{self.trace}")


_KINDS: dict[str, type[SegpipeError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SegpipeError) and kind is not errors.BadSampleError
}


def _answer(function: Callable[[Runtime], Any], resources: ResourceConfig, sink: MetricSink | None, key: str) -> Any:
    """What a worker does: the function's value, or its exception as a `_Refusal`.

    With several workers the others may hang in a collective that this one will never join. Then the refusal is left
    under `key` for the next attempt, which returns it at once, and raising makes Ray end the whole group. An exception
    that is not ours may be the echo of a peer's death (gloo and NCCL raise plain RuntimeErrors): Ray retries that one.
    """
    if (left := internal_kv._internal_kv_get(key)) is not None:
        return _Refusal(*json.loads(left))
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    try:
        return function(RayRuntime(_device(resources), sink))
    except Exception as error:
        if resources.workers == 1:
            return _Refusal.of(error)
        if isinstance(error, SegpipeError):
            internal_kv._internal_kv_put(key, json.dumps(astuple(_Refusal.of(error))))
        raise


def _device(resources: ResourceConfig) -> torch.device:
    if not resources.gpus_per_worker:
        return torch.device("cpu")
    from ray.train.torch import get_device

    device: torch.device = get_device()
    return device


class _Trainer(DataParallelTrainer):
    """Ray's trainer without what only costs a process at every start, and without its way with Ctrl-C.

    `ray.train.torch.TorchTrainer` is this class with a process group, which makes the controller import torch.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # DatasetManager: serves Ray Data, which we do not use. Placement group cleaner: asks Ray's dashboard whether
        # the controller lives, and a Ray of our own has no dashboard (and may ask that of another Ray on the host).
        spared = (DatasetsCallback,) if _remote() else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]

    def _register_sigint_handler(self, controller: Any) -> None:
        # Ray's handler ends the process with status 0 and stays installed. KeyboardInterrupt ends it with 130.
        pass


def _process_group(resources: ResourceConfig) -> BackendConfig:
    """torch.distributed for several workers; for one worker nothing."""
    if resources.workers == 1:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo")


def _bundle(resources: ResourceConfig) -> dict[str, float]:
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in bundle.items() if amount}


def _check_room(resources: ResourceConfig) -> None:
    """Refuses what would wait for ever. A cluster that we joined may still grow, so there it is only said."""
    there = ray.cluster_resources()
    asked = {name: amount * resources.workers for name, amount in _bundle(resources).items()}
    short = [f"{amount:g} {name}, has {there.get(name, 0):g}" for name, amount in asked.items() if there.get(name, 0) < amount]
    if short and _remote():
        _log.warning("waiting for the Ray cluster to grow: this training needs %s", "; ".join(short))
    elif short:
        raise InputError(
            f"resources: {resources.workers} worker(s) ask for more than Ray on this machine has: {'; '.join(short)}. "
            "Lower resources.workers, cpus_per_worker or gpus_per_worker, or set RAY_ADDRESS to a larger cluster"
        )


def _remote() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") != "local"


def _embedded_options(num_cpus: int | None) -> dict[str, Any]:
    temp_dir = tempfile.gettempdir()
    return {
        "address": "local",  # never another Ray on this host, such as one left by a driver that was killed
        "num_cpus": num_cpus or max(2, len(os.sched_getaffinity(0))),
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": f"{temp_dir}/ray" if len(temp_dir) <= _LONGEST_TEMP_DIR else "/tmp/ray",
    }


def _cluster_options(address: str) -> dict[str, Any]:
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS={address}: Ray Train does not run through Ray Client; give HOST:PORT of the head node's GCS "
            "(6379 unless chosen otherwise) and run on a machine of the cluster, or use `ray job submit`"
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise UnreachableError(_no_ray(address, error)) from error
    # The workers run this very code, whatever version their image carries.
    return {
        "address": address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"py_modules": [str(Path(segpipe.__file__).parent)]},
    }


def _no_ray(address: str, error: Exception) -> str:
    if address == "local":
        return f"Ray did not start on this machine: {error}. `segpipe doctor` looks at memory, disk and shared memory"
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there: {error}. Start it (`ray start --head`), mend the "
        "address, or unset RAY_ADDRESS to use this machine. A cluster with token authentication also needs "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) here"
    )


def _init(options: dict[str, Any]) -> None:
    """`ray.init` in a thread that stays for as long as the process.

    Linux ends Ray's daemons together with the thread that started them, and a caller may be a worker thread of Prefect.
    Outside the main thread Ray also leaves the process's SIGTERM handler alone.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def stay() -> None:
        try:
            ray.init(**options)
        except Exception as error:
            outcome.put(error)
            return
        outcome.put(None)
        threading.Event().wait()

    threading.Thread(target=stay, name="segpipe-ray", daemon=True).start()
    if (error := outcome.get()) is not None:
        raise error
