"""Stage 2: a dataset version and a run's config -> a trained model bundle. Between `shards/` and `evaluate`."""

from __future__ import annotations

import logging
from functools import partial
from typing import Literal

from segpipe import checkpoint, models, reports, storage, tracking
from segpipe.config import ResourceConfig, RunConfig
from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.stages import at_work, datasets, layout, mirror
from segpipe.stages.ensemble import combine
from segpipe.stages.identity import resolve
from segpipe.train import counting
from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime, MetricSink, OnProgress
from segpipe.train.session import TrainJob, lost_best
from segpipe.types import TrainResult
from segpipe.user import current_user
from segpipe.version import code_version

_log = logging.getLogger(__name__)
CONFIG, DATA, RESULT, DRIVERS = "run.json", "data.json", "train.json", "drivers"


def train(
    run: RunConfig,
    *,
    data: str,
    version: str,
    to: str,
    resources: ResourceConfig,
    parent: tracking.RunRef | None = None,
    runtime: Literal["ray", "local"] = "ray",
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Trains one architecture into `<to>/<label>-<run key>`, or returns at once what is there and valid.

    An ensemble is made there of members that lie in `to`; without them it is an InputError.
    An attempt that was killed is continued from its newest valid checkpoint; what is found damaged is made again.
    `parent` is the MLflow run under which live metrics appear; without one, or when MLflow does not answer, training
    goes on all the same. `on_progress` is called in this process, from another thread, as training goes. Raises before
    any work as `_write_config`, InputError where a training that it starts from is not finished, and ConflictError when
    another process works on this run; then what training raises.
    """
    run, data = resolve(run), datasets.found(data)
    run_uri = run_location(run, version=version, to=to)
    if (done := finished(run_uri)) is not None:
        return done
    _write_config(run_uri, run, version)
    with storage.lease(storage.join(run_uri, DRIVERS), what=run_uri, who=current_user()):
        # Another driver may have finished it since we looked, and what it left must not be taken for damage.
        if (done := finished(run_uri)) is not None:
            return done
        _remove_damage(run_uri)
        start_uri = None if run.start_from is None else _started_from(run.start_from, version=version, to=to)
        job = TrainJob(
            run=run, data=data, version=version, run_uri=run_uri, code_version=code_version(), start_uri=start_uri
        )
        with at_work.reading(data, version), mirror.live_metrics(parent, run, version=version) as sink:
            if run.members:
                result = combine(job, _trained(run, version, to), cpus=resources.cpus_per_worker, runtime=runtime)
            else:
                result = _fit(job, resources, sink, runtime, on_progress)
        try:
            storage.write_json_once(storage.join(run_uri, RESULT), reports.to_plain(result))
        except ConflictError:
            # One that took this driver for dead finished the same run; one result stands, and it is theirs.
            result = finished(run_uri) or result
    return result


def _trained(run: RunConfig, version: str, to: str) -> list[TrainResult]:
    """The results of an ensemble's members. Raises InputError where one has none."""
    results = [finished(run_location(member, version=version, to=to)) for member in run.members]
    missing = [member.label for member, result in zip(run.members, results, strict=True) if result is None]
    if missing:
        raise InputError(
            f"{run.label}: its member{'s' * (len(missing) > 1)} {', '.join(missing)} did not come out of a training on "
            f"dataset version {version[:12]}: they have failed, or were not trained yet; mend them, or train them first"
        )
    return [result for result in results if result is not None]


def _write_config(run_uri: str, run: RunConfig, version: str) -> None:
    """Writes what the folder is for, or sees that it is there; safe beside a driver that works in it.

    `data.json` names the dataset version before there is a result that does: while it is there, so is the version.
    Raises InputError and StorageFullError as storage does, CorruptError where one of the two is not this run's.
    """
    for name, document in ((DATA, {"dataset_version": version}), (CONFIG, run.identity)):
        file = storage.join(run_uri, name)
        try:
            storage.write_json_once(file, document)
        except ConflictError as error:
            raise CorruptError(
                f"{file}: does not hold what its folder is named for; it was changed or damaged. Delete this file and "
                "run the same command again: it is written anew, and training goes on from its checkpoints"
            ) from error


def _started_from(parent: RunConfig, *, version: str, to: str) -> str:
    """The model that another training of the same dataset version left. Raises InputError when it is not there."""
    run_uri = run_location(parent, version=version, to=to)
    result = finished(run_uri)
    if result is None:
        raise InputError(
            f"start_from: {run_uri} holds no finished training of {parent.label} on this dataset version: it has "
            "failed, or was not trained yet; mend it, or train it first by its own label"
        )
    return result.model_uri


def _remove_damage(run_uri: str) -> None:
    """Takes away what the coming attempt would stumble over. Its checkpoints stay, unless no model can come of them."""
    result, model = storage.join(run_uri, RESULT), checkpoint.model_uri(run_uri)
    if storage.exists(result):
        _log.warning("%s: is damaged and is made again from the run's checkpoints", run_uri)
        storage.delete(result)
        storage.delete_tree(model)
    try:
        checkpoint.verify_bundle(model)
    except (CorruptError, InputError):
        storage.delete_tree(model)  # half of one, or damaged before its run was over
    if (step := lost_best(run_uri)) is not None:
        _log.warning(
            "%s: training had ended, but the checkpoint of its best step, %d, is damaged or gone, and the model can be "
            "made of no other; training starts over",
            run_uri,
            step,
        )
        checkpoint.start_over(run_uri)


def _fit(
    job: TrainJob,
    resources: ResourceConfig,
    sink: MetricSink | None,
    runtime: Literal["ray", "local"],
    on_progress: OnProgress | None,
) -> TrainResult:
    way = fit if models.spec(job.run.arch).learns_by == "descent" else counting.fit
    if runtime == "local":
        return way(job, LocalRuntime(sink=sink, on_progress=on_progress))
    from segpipe.train import on_ray  # ray costs seconds to import, and a local run does not need it

    on_ray.connect()
    result: TrainResult = on_ray.launch(
        partial(way, job),
        name=f"{job.run.experiment}-{job.run.label}",
        resources=resources,
        sink=sink,
        on_progress=on_progress,
    )
    return result


def run_location(run: RunConfig, *, version: str, to: str) -> str:
    """The folder that this run, a resolved one, has or will have."""
    return storage.join(layout.absolute(to), f"{run.label}-{layout.run_key(run.digest, version, code_version())}")


def finished(run_uri: str) -> TrainResult | None:
    """The result of a finished run whose model is there to the last byte; None when there is (still) work to do."""
    path = storage.join(run_uri, RESULT)
    if not storage.exists(path):
        return None
    try:
        result = reports.from_plain(TrainResult, storage.read_json(path), origin=path)
        bundle = checkpoint.verify_bundle(result.model_uri)
        if bundle.weights_sha256 != result.weights_sha256:
            raise CorruptError(f"{path}: names other weights than {result.model_uri}/{checkpoint.BUNDLE}")
    except (CorruptError, InputError) as error:
        _log.warning("a finished run cannot be used: %s", error)
        return None
    return result
