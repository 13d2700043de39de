"""One training on a Ray Train worker group. Called by `stages.train`; below it `train/loop.py` sees a `Runtime`.

What the training function raises is an answer: it travels back as data, is raised in the driver and never retried.
What Ray retries is a worker that died; the function then starts again and continues from our own checkpoints.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import traceback
import uuid
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.backend import BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from segpipe import errors
from segpipe.config import ResourceConfig
from segpipe.errors import InputError, SegpipeError, UnreachableError
from segpipe.train.on_ray import cluster, news
from segpipe.train.runtime import MetricSink, OnProgress, Ranks, Runtime
from segpipe.types import TrainProgress

_log = logging.getLogger(__name__)


def launch(
    function: Callable[[Runtime], Any],
    *,
    name: str,
    resources: ResourceConfig,
    sink: MetricSink | None = None,
    on_progress: OnProgress | None = None,
) -> Any:
    """Runs `function(runtime)` on every worker of a new worker group and returns what rank 0 returned.

    `sink` is called in the worker with every value, `on_progress` here, every few seconds, with the newest. Waits as
    long as it takes until the cluster has room. A dead worker is replaced `resources.max_failures` times. May be called
    from several threads at once. Raises what the function raised, if that is one of our errors; a RuntimeError with the
    worker's traceback if it is not; InputError when Ray can never have room.
    """
    _check_room(resources)
    launch_id = uuid.uuid4().hex
    key, progress_key = f"segpipe/refusal/{launch_id}", f"segpipe/progress/{launch_id}"

    def work() -> Any:
        return _answer(function, resources, sink, key, progress_key)

    trainer = _Trainer(
        work,
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_bundle(resources),
        ),
        run_config=_run_config(name, resources),
        backend_config=_process_group(resources),
    )
    try:
        with news.passed_on(progress_key, on_progress):
            answer = trainer.fit().return_value  # type: ignore[attr-defined]
    except TrainingFailedError as error:
        raise SegpipeError(f"{name}: its workers failed more than {resources.max_failures} times: {error}") from error
    except RayError as error:
        raise UnreachableError(
            f"{name}: lost the Ray cluster while training; it resumes when run again: {error}"
        ) from error
    finally:
        news.forget(key)
    if isinstance(answer, _Refusal):
        answer.reraise(name)
    return answer


class RayRuntime(Ranks):
    """The `Runtime` of a Ray Train worker. With several workers Ray has initialised torch.distributed already."""

    def __init__(self, device: torch.device, sink: MetricSink | None, progress_key: str) -> None:
        context = get_context()
        super().__init__(rank=context.get_world_rank(), world_size=context.get_world_size(), device=device)
        self._sink, self._progress_key = sink, progress_key

    def report(self, progress: TrainProgress) -> None:
        if self._sink is not None:
            self._sink(progress.metrics, progress.step)
        news.leave(self._progress_key, progress)


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

    def reraise(self, name: str) -> NoReturn:
        if self.kind in _KINDS:
            raise _KINDS[self.kind](self.message)
        raise RuntimeError(f"{name}: {self.kind}: {self.message}\nIn the training worker:\n{self.trace}")


# Those that are made of a message alone. A BadSampleError is raised again as the InputError that it is.
_KINDS: dict[str, type[SegpipeError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SegpipeError) and kind is not errors.BadSampleError
}


def _answer(
    function: Callable[[Runtime], Any],
    resources: ResourceConfig,
    sink: MetricSink | None,
    key: str,
    progress_key: str,
) -> Any:
    """What a worker does: the function's value, or its exception as a `_Refusal`.

    With several workers the others may hang in a collective that this one will never join. Then the refusal is left
    under `key` for the next attempt, which returns it at once, and raising makes Ray end the whole group. An exception
    that is not ours may be the echo of a peer's death (gloo and NCCL raise plain RuntimeErrors): Ray retries that one.
    """
    if (left := internal_kv._internal_kv_get(key)) is not None:
        return _Refusal(*json.loads(left))
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    try:
        return function(RayRuntime(_device(resources), sink, progress_key))
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
    """Ray's trainer without what only costs at every start, and without its way with Ctrl-C.

    `ray.train.torch.TorchTrainer` is this very class with a process group, which makes the controller import torch.
    Starts compete with training for the cores: CPU seconds for three empty trainings at once, measured on two cores:
    51 so, 84 as Ray has it (1 to 2.6 for torch in the controller, 3.8 and 4.2 for the two actors below, each time).
    """

    def _create_default_callbacks(self) -> list[Any]:
        # DatasetManager: serves Ray Data, which we do not use. Placement group cleaner: asks Ray's dashboard whether
        # the controller lives, and a Ray of our own has no dashboard (and may ask that of another Ray on the host).
        spared = (DatasetsCallback,) if cluster.joined() else (DatasetsCallback, PlacementGroupCleanerCallback)
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


def _run_config(name: str, resources: ResourceConfig) -> RunConfig:
    return RunConfig(
        name=name,
        # Ray only puts an empty marker file there: checkpoints are ours, and lie where the function writes them.
        storage_path=str(Path(tempfile.gettempdir()) / f"segpipe-ray-train-{os.getuid()}"),
        failure_config=FailureConfig(max_failures=resources.max_failures),
    )


def _bundle(resources: ResourceConfig) -> dict[str, float]:
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in bundle.items() if amount}


def _check_room(resources: ResourceConfig) -> None:
    """Refuses what would wait for ever. A cluster that we joined may still grow, so there it is only said."""
    there = cluster.resources()
    if there.get("GPU") and not resources.gpus_per_worker:
        _log.warning("%g GPU(s) stay idle: this training asks for none (resources.gpus_per_worker)", there["GPU"])
    asked = {name: amount * resources.workers for name, amount in _bundle(resources).items()}
    short = [f"{n:g} {name}, has {there.get(name, 0):g}" for name, n in asked.items() if there.get(name, 0) < n]
    if short and cluster.joined():
        _log.warning("waiting for the Ray cluster to grow: this training needs %s", "; ".join(short))
    elif short:
        raise InputError(
            f"resources: {resources.workers} worker(s) ask for more than Ray on this machine has: {'; '.join(short)}. "
            "Lower resources.workers, cpus_per_worker or gpus_per_worker, or set RAY_ADDRESS to a larger cluster"
        )
