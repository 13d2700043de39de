"""Stage 2: a dataset version and a run's config -> a trained model bundle. Between `shards/` and `evaluate`."""

from __future__ import annotations

import logging
from functools import partial
from typing import Literal

from segpipe import checkpoint, reports, storage, tracking
from segpipe.config import ResourceConfig, RunConfig
from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.stages import layout, mirror
from segpipe.stages.identity import resolve
from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime, MetricSink
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult
from segpipe.version import code_version

_log = logging.getLogger(__name__)
RESULT = "train.json"


def train(
    run: RunConfig,
    *,
    data: str,
    version: str,
    to: str,
    resources: ResourceConfig,
    parent: tracking.RunRef | None = None,
    runtime: Literal["ray", "local"] = "ray",
) -> TrainResult:
    """Trains one architecture into `<to>/<label>-<run key>`, or returns at once what is there and valid.

    An attempt that was killed is continued from its newest valid checkpoint. `parent` is the MLflow run under which
    live metrics appear; without one, or when MLflow does not answer, training goes on all the same.
    """
    run = resolve(run)
    run_uri = run_location(run, version=version, to=to)
    if (done := finished(run_uri)) is not None:
        return done
    if storage.exists(storage.join(run_uri, RESULT)):
        _log.warning("%s: is damaged and is made again from the run's checkpoints", run_uri)
        storage.delete(storage.join(run_uri, RESULT))
        storage.delete_tree(checkpoint.model_uri(run_uri))
    storage.write_json_once(storage.join(run_uri, "run.json"), run.identity)
    job = TrainJob(run=run, data=data, version=version, run_uri=run_uri, code_version=code_version())
    child = mirror.open_child(parent, run, version=version) if parent else None
    sink = tracking.MetricLogger(child) if child else None
    result = _fit(job, resources, sink, runtime)
    try:
        storage.write_json_once(storage.join(run_uri, RESULT), reports.to_plain(result))
    except ConflictError:
        # Another driver finished the same run in this moment; one result stands, and it is theirs.
        result = finished(run_uri) or result
    return result


def _fit(
    job: TrainJob, resources: ResourceConfig, sink: MetricSink | None, runtime: Literal["ray", "local"]
) -> TrainResult:
    if runtime == "local":
        return fit(job, LocalRuntime(sink=sink))
    from segpipe.train import on_ray  # ray costs seconds to import, and a local run does not need it

    on_ray.connect()
    result: TrainResult = on_ray.launch(
        partial(fit, job), name=f"{job.run.experiment}-{job.run.label}", resources=resources, sink=sink
    )
    return result


def run_location(run: RunConfig, *, version: str, to: str) -> str:
    """The folder that this run, a resolved one, has or will have."""
    return storage.join(to, f"{run.label}-{layout.run_key(run.digest, version, code_version())}")


def finished(run_uri: str) -> TrainResult | None:
    """The result of a finished run whose model is there to the last byte; None when there is (still) work to do."""
    path = storage.join(run_uri, RESULT)
    if not storage.exists(path):
        return None
    try:
        result = reports.from_plain(TrainResult, storage.read_json(path), origin=path)
        bundle = checkpoint.load_bundle(result.model_uri)
        found = storage.sha256_file(storage.join(result.model_uri, checkpoint.WEIGHTS))
    except (CorruptError, InputError) as error:
        _log.warning("a finished run cannot be used: %s", error)
        return None
    return result if bundle.weights_sha256 == result.weights_sha256 == found else None
