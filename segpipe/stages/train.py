"""Stage 2: a dataset version and a run's config -> a trained model bundle. Between `shards/` and `evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from segpipe import checkpoint, models, reports, storage, tracking
from segpipe.config import ResourceConfig, RunConfig
from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.stages import at_work, datasets, layout, mirror
from segpipe.stages.ensemble import combine
from segpipe.stages.identity import resolve
from segpipe.train import counting
from segpipe.train.loop import fit, fit_until
from segpipe.train.outcome import inference_of
from segpipe.train.runtime import LocalRuntime, MetricSink, OnProgress, Runtime
from segpipe.train.session import TrainJob, lost_best
from segpipe.types import TrainPause, TrainResult
from segpipe.user import current_user
from segpipe.version import code_version

_log = logging.getLogger(__name__)
Live = AbstractContextManager[MetricSink | None]
T = TypeVar("T")
CONFIG, RESULT = layout.RUN_CONFIG, layout.RUN_RESULT
DATA, DRIVERS = "data.json", "drivers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What the runs of one call share: the dataset's URI and version, the folder of runs, and where they run."""

    data: str
    version: str
    to: str
    resources: ResourceConfig
    parent: tracking.RunRef | None
    runtime: Literal["ray", "local"]
    on_progress: OnProgress | None


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

    An ensemble is made there of members that lie in `to`; without them it is an InputError. A run that says more than
    its training (`RunConfig.training`) takes the weights of that, which lie in a folder of their own in `to`, or are
    trained into it.
    An attempt that was killed is continued from its newest valid checkpoint; what is found damaged is made again.
    `parent` is the MLflow run under which live metrics appear; without one, or when MLflow does not answer, training
    goes on all the same. `on_progress` is called in this process, from another thread, as training goes. Raises before
    any work as `_write_config`, InputError where it begins and a training that it starts from is not finished, and
    ConflictError when another process works on this run; then what training raises.
    """
    around = Around(
        data=datasets.found(data),
        version=version,
        to=to,
        resources=resources,
        parent=parent,
        runtime=runtime,
        on_progress=on_progress,
    )
    return _once(resolve(run), around, _made)


def train_until(run: RunConfig, until: int, around: Around) -> TrainResult | TrainPause:
    """Brings the training of a run (`RunConfig.training`) to optimiser step `until` and pauses it there; `train`, or a
    later step, goes on from there as if it had never paused.

    A paused training has a checkpoint and no result: to whoever asks it is one that is not finished. One that ends
    before `until`, or has ended, gives its result. Not for an ensemble, nor what starts from another's weights.
    Otherwise as `train`.
    """
    run = resolve(run)

    def paused(job: TrainJob, around: Around, sink: MetricSink | None) -> TrainResult | TrainPause:
        return _launched(partial(fit_until, job, until=until), job, around, sink)

    return _once(run.training, around, paused, mirror.live_metrics(around.parent, run, version=around.version))


def _once(
    run: RunConfig,
    around: Around,
    make: Callable[[TrainJob, Around, MetricSink | None], T],
    live: Live | None = None,
) -> TrainResult | T:
    """The result of a resolved run: what is there and valid, or what `make` makes now. Its values go to `live` where
    another run, which needs it, has that open; else it has a run of its own in MLflow."""
    data, version, to = around.data, around.version, around.to
    run_uri = run_location(run, version=version, to=to)
    if (done := finished(run_uri)) is not None:
        return done
    _write_config(run_uri, run, version)
    with storage.lease(storage.join(run_uri, DRIVERS), what=run_uri, who=current_user()):
        # Another driver may have finished it since we looked, and what it left must not be taken for damage.
        if (done := finished(run_uri)) is not None:
            return done
        _remove_damage(run_uri)
        job = TrainJob(run=run, data=data, version=version, run_uri=run_uri, code_version=code_version())
        live = live or mirror.live_metrics(around.parent, run, version=version)
        with at_work.reading(data, version), live as sink:
            made = make(job, around, sink)
        if not isinstance(made, TrainResult):
            return made
        result: TrainResult = made
        try:
            storage.write_json_once(storage.join(run_uri, RESULT), reports.to_plain(result))
        except ConflictError:
            # One that took this driver for dead finished the same run; one result stands, and it is theirs.
            result = finished(run_uri) or result
    return result


def _made(job: TrainJob, around: Around, sink: MetricSink | None) -> TrainResult:
    """What has to be done for a run: little for one whose training is there, or whose members are."""
    run = job.run
    if run.training != run:
        return _used(job, _once(run.training, around, _made, nullcontext(sink)))
    if run.members:
        members = _trained(run, around.version, around.to)
        return combine(job, members, cpus=around.resources.cpus_per_worker, runtime=around.runtime)
    if run.start_from is not None:
        job = replace(job, start_uri=_start_uri(job, run.start_from, around))
    way = fit if models.spec(job.run.arch).learns_by == "descent" else counting.fit
    return _launched(partial(way, job), job, around, sink)


def _used(job: TrainJob, training: TrainResult) -> TrainResult:
    """The bundle of a training's weights that look at images as the run says. Idempotent: the same give the same."""
    run = job.run
    _log.info("%s takes the weights of %s: it differs after training alone", run.label, training.run_uri)
    model, bundle = checkpoint.load_model(training.model_uri)
    use = replace(bundle, inference=inference_of(run.train.inference), config_digest=run.digest, weights_sha256="")
    written = checkpoint.save_model(job.run_uri, model.state_dict(), use)
    return replace(
        training,
        label=run.label,
        run_uri=job.run_uri,
        model_uri=checkpoint.model_uri(job.run_uri),
        weights_sha256=written.weights_sha256,
        config_digest=run.digest,
    )


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


def _start_uri(job: TrainJob, parent: RunConfig, around: Around) -> str | None:
    """The model that another training of the same dataset version left; None where it is gone and an attempt has got so
    far that nobody needs it. Raises InputError where one does."""
    run_uri = run_location(parent, version=around.version, to=around.to)
    if (result := finished(run_uri)) is not None:
        _log.info("%s starts from the weights of %s", job.run.label, run_uri)
        return result.model_uri
    if checkpoint.newest_state(job.run_uri) is not None:
        _log.info("%s goes on from its own checkpoint: %s is gone", job.run.label, run_uri)
        return None
    raise InputError(
        f"start_from: {run_uri} holds no finished training of {parent.label} on this dataset version: it has "
        "failed, or was not trained yet; mend it, or train it first by its own label"
    )


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


def _launched(work: Callable[[Runtime], T], job: TrainJob, around: Around, sink: MetricSink | None) -> T:
    """What `work` gives where trainings run: in this process, or on Ray."""
    if around.runtime == "local":
        return work(LocalRuntime(sink=sink, on_progress=around.on_progress))
    from segpipe.train import on_ray  # ray costs seconds to import, and a local run does not need it

    on_ray.connect()
    result: T = on_ray.launch(
        work,
        name=f"{job.run.experiment}-{job.run.label}",
        resources=around.resources,
        sink=sink,
        on_progress=around.on_progress,
    )
    return result


def run_location(run: RunConfig, *, version: str, to: str) -> str:
    """The folder that this run, a resolved one, has or will have."""
    return storage.join(layout.absolute(to), layout.run_name(run.label, run.digest, version, code_version()))


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
