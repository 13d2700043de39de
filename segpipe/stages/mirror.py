"""What MLflow is shown of our files, and that it gives way. Between the stages and `display.py`, `registration.py`.

MLflow is a mirror and never memory. Everything here is made from files that lie in the home already, is keyed so that
doing it twice changes nothing, and gives way: when MLflow is down or refuses, the night goes on, the fault is logged, a
record of what is missing is left in `<home>/pending`, and `reconcile` at the start of the next night catches up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from segpipe import promotion, storage, tracking
from segpipe.config import Recipe, RunConfig, validate
from segpipe.errors import CorruptError, InputError, SegpipeError, UnreachableError
from segpipe.leaderboard import BoardRow
from segpipe.promotion.gate import contender
from segpipe.stages import display, layout, pending, registration
from segpipe.stages.evaluate import evaluation_uri
from segpipe.stages.evaluations import load_card, load_pictures, load_report
from segpipe.types import EvalReport, TrainResult
from segpipe.version import code_version

_log = logging.getLogger(__name__)
CLOSING_SECONDS = 2.0


@contextmanager
def giving_way(what: str, *, later: Callable[[], bool] | None = None) -> Iterator[None]:
    """Logs what MLflow could not be shown, and goes on. `later` leaves a record of it, and says whether it could."""
    try:
        yield
    except SegpipeError as error:
        # Of a damaged file of ours, too: the stage that needs it says so, and showing it decides nothing.
        if later is not None and later():
            _log.warning("%s is not in MLflow yet and will be caught up by the next run: %s", what, error)
        else:
            _log.warning("%s is not in MLflow: %s", what, error)


def uri() -> str:
    """Where MLflow is: `$MLFLOW_TRACKING_URI`, or the embedded SQLite file of the home."""
    return tracking.default_uri(layout.local_home())


def open_parent(recipe: Recipe, runs: Sequence[RunConfig], *, data: str, version: str) -> tracking.RunRef:
    """The run under which a retrain's architectures appear, whose resolved `runs` these are: one a recipe, dataset
    version and code.

    One that does not exist (`RunRef.exists`) while MLflow is down: then all that is shown below it is left for later.
    """
    # Not of `evaluate`: another split asks the same trainings something else, and their runs stand below one parent.
    digests = [run.digest for run in runs]
    key, code = layout.key("retrain", version, code_version(), *digests), code_version()
    night = tracking.RunRef(tracking_uri=uri(), experiment_id="", run_id="", key=key)
    with giving_way(f"the run of {recipe.name}"):
        tracking.reachable(uri())
        night = display.open_night(uri(), recipe, key=key, data=data, version=version, code=code)
        display.show_question(night, recipe, data=data, version=version)
    return night


def _open_child(parent: tracking.RunRef, run: RunConfig, *, version: str) -> tracking.RunRef | None:
    """The run of one architecture below `parent`, with its parameters. `run` is a resolved one, here and below."""
    if parent.exists:
        with giving_way(f"the run of {run.label}"):
            key = layout.run_key(run.digest, version, code_version())
            return display.open_architecture(parent, run, key=key, version=version, code=code_version())
    return None


@contextmanager
def live_metrics(
    parent: tracking.RunRef | None, run: RunConfig, *, version: str
) -> Iterator[tracking.MetricLogger | None]:
    """Where a training's values may be sent while it goes on; None without a run. What is not sent when it ends is
    filled in by `show_run`."""
    child = _open_child(parent, run, version=version) if parent else None
    logger = tracking.MetricLogger(child) if child else None
    try:
        yield logger
    finally:
        if logger is not None:
            logger.close(CLOSING_SECONDS)


def show_run(
    recipe: Recipe,
    run: RunConfig,
    result: TrainResult,
    report: EvalReport,
    pictures: list[tuple[str, bytes]],
    *,
    parent: tracking.RunRef | None,
    data: str,
) -> None:
    """Everything about one trained and evaluated architecture; what live logging missed is filled in."""
    if parent is None:
        return
    record = pending.PendingRun(
        recipe=recipe.model_dump(mode="json"),
        run=run.model_dump(mode="json"),
        result=result,
        evaluation_uri=evaluation_uri(recipe, report),
        data=data,
        parent_key=parent.key,
    )
    later = partial(pending.leave, recipe.name, record)
    if not parent.exists:
        later()
        return
    with giving_way(f"the evaluation of {run.label}", later=later):
        card = load_card(evaluation_uri(recipe, report))
        display.show_architecture(recipe, run, result, report, pictures, night=parent, data=data, card=card)


def show_failure(run: RunConfig, *, parent: tracking.RunRef | None, version: str) -> None:
    """Marks an architecture's run as failed."""
    child = _open_child(parent, run, version=version) if parent else None
    _close(child, "FAILED", what=f"the failure of {run.label}")


def show_dropped(run: RunConfig, *, parent: tracking.RunRef | None, version: str) -> None:
    """Ends the run of an architecture whose training was paused and does not go on this night."""
    child = _open_child(parent, run, version=version) if parent else None
    _close(child, "KILLED", what=f"the pause of {run.label}")


def close_failed(experiment: str, *, parent: tracking.RunRef | None) -> None:
    """Marks a night that ended without a verdict as failed."""
    _close(parent, "FAILED", what=f"the failed night of {experiment}")


def close_finished(experiment: str, *, parent: tracking.RunRef | None) -> None:
    """Ends the run of work that nobody judges, such as the training of a single architecture."""
    _close(parent, "FINISHED", what=f"the end of the run of {experiment}")


def show_verdict(
    experiment: str, verdict: promotion.Verdict, board: Sequence[BoardRow], *, parent: tracking.RunRef | None
) -> None:
    """Registers challenger and champion, points the aliases at them, and ends the night's run with the board. The
    ledger has decided already."""
    record = pending.PendingVerdict(verdict=verdict, board=tuple(board), parent_key=parent.key if parent else None)
    later = partial(pending.leave, experiment, record)
    with giving_way(f"the verdict on {verdict.challenger.label}", later=later):
        tracking.reachable(uri())
        versions = _show_registry(experiment, verdict)
        if parent is not None and parent.exists:
            display.show_board(parent, verdict, board, versions)
        elif parent is not None:
            later()


@contextmanager
def registered_bundle(experiment: str, report: EvalReport) -> Iterator[tuple[Path, Literal["registry", "run"]]]:
    """The bundle of a scored model in a folder on this machine: as the registry holds it, where it is registered now if
    it was not, or as its run left it while MLflow is down or refuses; and which of the two."""
    with storage.scratch() as folder:
        registered: Path | None = None
        with giving_way(f"the version of {report.label}"):
            tracking.reachable(uri())
            registered = registration.fetch(uri(), experiment, contender(report), folder)
        if registered is not None:
            yield registered, "registry"
            return
        with registration.local_bundle(report.checkpoint) as bundle:
            yield bundle, "run"


def show_pages(
    experiment: str,
    report: EvalReport,
    *,
    card: str | None,
    side_by_side: str | None,
    parent: tracking.RunRef | None,
) -> None:
    """The card of the challenger that a `report` is of, as the verdict has it, beside the run of its version, and the
    page of all models beside the night's. Both are places of files."""
    record = pending.PendingPages(
        weights_sha256=report.weights_sha256,
        dataset_version=report.dataset_version,
        card=card,
        side_by_side=side_by_side,
        parent_key=parent.key if parent else None,
    )
    later = partial(pending.leave, experiment, record)
    if parent is not None and not parent.exists:  # opened by what was left before this, which describes it
        later()
        return
    with giving_way(f"the pages of {experiment}", later=later):
        tracking.reachable(uri())
        _show_pages(experiment, record)


def reconcile(experiment: str) -> None:
    """Shows what earlier nights could not, and makes the `champion` alias say what the ledger says, whatever happened.

    Returns at once when there is nothing to do, and after one fault of the connection.
    """
    standing = promotion.champion(layout.ledger_uri(experiment))
    with giving_way(f"the champion of {experiment}"):
        if standing is None and not pending.files(experiment):
            return
        tracking.reachable(uri())
        _catch_up(experiment)
        if standing is not None and not registration.is_shown(uri(), experiment, standing):
            registration.show_champion(uri(), experiment, standing)


def _close(shown: tracking.RunRef | None, ending: tracking.Ending, *, what: str) -> None:
    if shown is not None and shown.exists:
        with giving_way(what):
            tracking.finish(shown, ending)


def _show_registry(experiment: str, verdict: promotion.Verdict) -> dict[str, int]:
    """The versions of a verdict by their alias; the champion is the one that stands in the ledger by now."""
    versions = {registration.CHALLENGER: registration.show_challenger(uri(), experiment, verdict)}
    standing = promotion.champion(layout.ledger_uri(experiment))
    if standing is not None and (champion := registration.show_champion(uri(), experiment, standing)) is not None:
        versions[registration.CHAMPION] = champion
    return versions


def _catch_up(experiment: str) -> None:
    """Drains the pending records. Raises UnreachableError."""
    for where in pending.files(experiment):
        with _draining(where):
            match pending.read(where):
                case pending.PendingRun() as run:
                    _show_pending_run(run)
                case pending.PendingVerdict() as verdict:
                    _show_pending_verdict(experiment, verdict)
                case pending.PendingPages() as pages:
                    _show_pages(experiment, pages)


@contextmanager
def _draining(where: str) -> Iterator[None]:
    """Deletes a record that was shown, and one whose files are damaged or gone; one that another fault keeps from being
    shown (MLflow refuses it, a disk is full) stays."""
    try:
        yield
    except UnreachableError:
        raise
    except (InputError, CorruptError) as error:
        _log.warning("%s cannot be shown in MLflow any more and is removed: %s", where, error)
    except SegpipeError as error:
        _log.warning("%s stays to be shown in MLflow; delete it to give that up: %s", where, error)
        return
    storage.delete(where)


def _show_pending_run(record: pending.PendingRun) -> None:
    recipe = Recipe.parse(dict(record.recipe), origin="recipe")
    run, result = validate(RunConfig, dict(record.run), "run"), record.result
    where = {"data": record.data, "version": result.dataset_version}
    night = display.open_night(uri(), recipe, key=record.parent_key, code=result.code_version, **where)
    display.show_question(night, recipe, **where)
    report, pictures = load_report(record.evaluation_uri), load_pictures(record.evaluation_uri)
    card = load_card(record.evaluation_uri)
    display.show_architecture(recipe, run, result, report, pictures, night=night, data=record.data, card=card)
    tracking.finish(night)


def _show_pending_verdict(experiment: str, record: pending.PendingVerdict) -> None:
    versions = _show_registry(experiment, record.verdict)
    if record.parent_key is not None:
        night = _night(experiment, record.parent_key, record.board[0].dataset_version)
        display.show_board(night, record.verdict, record.board, versions)


def _show_pages(experiment: str, record: pending.PendingPages) -> None:
    """Raises RefusedError while the challenger has no version, InputError for pages that are gone."""
    if record.side_by_side is not None and record.parent_key is not None:
        night = _night(experiment, record.parent_key, record.dataset_version)
        tracking.record_page(night, tracking.SIDE_BY_SIDE, storage.read_bytes(record.side_by_side))
    if record.card is not None:
        version = tracking.registered_version(uri(), experiment, record.weights_sha256)
        run = None if version is None else tracking.version_run(uri(), experiment, version)
        if run is None:
            raise tracking.RefusedError(
                f"weights {record.weights_sha256[:12]} have no version with a run in MLflow yet"
            )
        tracking.record_page(run, tracking.CARD, storage.read_bytes(record.card))


def _night(experiment: str, key: str, dataset_version: str) -> tracking.RunRef:
    """The run of a night, by its key."""
    name = display.night_name(dataset_version)
    return tracking.open_parent(uri(), experiment=experiment, key=key, name=name, description="", tags={})
