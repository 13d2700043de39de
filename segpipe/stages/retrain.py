"""The whole night as one stage: ingest, train every architecture, evaluate, promote, and write down what came of it.

`flows/retrain.py` says the same with Prefect's tasks, out of the same pieces.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from segpipe import tracking
from segpipe.config import Recipe
from segpipe.errors import ConflictError, NonFiniteError, SegpipeError
from segpipe.leaderboard import BoardRow, rank
from segpipe.promotion import Verdict
from segpipe.stages import gallery, layout, mirror, nights, preflight, rehearsal
from segpipe.stages.attempts import attempt_all, message_of
from segpipe.stages.evaluate import evaluate, evaluation_uri
from segpipe.stages.evaluations import load_pictures
from segpipe.stages.halving import search as halving
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.stages.opening import OpenNight, open_night, rehearsed, within_budget
from segpipe.stages.pages import mlflow_store, pages
from segpipe.stages.parts import Progress
from segpipe.stages.promote import promote_best
from segpipe.stages.train import train
from segpipe.train.runtime import OnProgress
from segpipe.types import EvalReport, TrainPause, TrainProgress, TrainResult

_log = logging.getLogger(__name__)

T = TypeVar("T")
OnStep = Callable[[str], None]
OnTraining = Callable[[str, TrainProgress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainResult:
    """What one night came to. `failures` has a message per architecture that did not make it; `did_nothing` is true
    when every result was there already. `card` is the challenger's model card, and `side_by_side` the page of all
    models, where they could be made. `budget` tells the rungs of a night within one."""

    experiment: str
    dataset: IngestResult
    board: tuple[BoardRow, ...]
    verdict: Verdict
    failures: Mapping[str, str]
    did_nothing: bool
    home: str
    mlflow_uri: str
    mlflow_url: str | None
    pages: Mapping[str, str]
    seconds: float
    card: str | None = None
    side_by_side: str | None = None
    budget: BudgetReport | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nobody need look at it: no architecture failed, and the challenger was not refused."""
        return not self.failures and self.verdict.outcome != "refused"

    @property
    def refused_since(self) -> str | None:
        """When this refusal was first said, where nothing has changed since; None for any other night."""
        return self.verdict.at if self.did_nothing and self.verdict.outcome == "refused" else None


def retrain(
    recipe: Recipe,
    *,
    runtime: Literal["ray", "local"] = "ray",
    on_step: OnStep = lambda _: None,
    on_ingest: Progress | None = None,
    on_progress: OnTraining = lambda _label, _progress: None,
) -> RetrainResult:
    """Ingests, trains all architectures (as many at once as the cluster has room for), evaluates, promotes.

    An architecture that fails is reported and the others go on. Raises SegpipeError when none is left, or when ingest
    refuses the data.
    """
    started = time.perf_counter()
    preflight.check(recipe, runtime=runtime)
    if runtime == "ray":
        warm_up()
    on_step(f"ingesting {recipe.dataset.name}")
    dataset = ingest(recipe.dataset, on_progress=on_ingest)
    night = open_night(recipe, dataset)
    parent = night.parent
    if not night.is_tried and recipe.rehearsal.seconds:
        on_step("trying each training for some seconds")
    night, tried = rehearsed(recipe, night, runtime=runtime)
    for line in (*tried.told, tried.cost) if tried else ():
        on_step(line)

    def train_rung(search: halving.Search, rung: Rung) -> Mapping[str, halving.Outcome]:
        def part(climb: Climb) -> TrainResult | TrainPause:
            on_step(f"rung {rung.number}: training {climb.label} to step {climb.until} of {climb.steps}")
            told = partial(on_progress, climb.label)
            return halving.train_part(search, climb, data=dataset.uri, parent=parent, runtime=runtime, on_progress=told)

        parts = {climb.label: partial(part, climb) for climb in rung.waiting}
        return attempt_all(parts, side_by_side=runtime != "local")

    night = within_budget(recipe, night, train_rung)

    def attempt(index: int, label: str) -> EvalReport:
        on_step(f"{'combining' if recipe.architectures[index].ensemble else 'training'} {label}")
        return train_and_evaluate(recipe, index, night, runtime=runtime, on_progress=partial(on_progress, label))

    attempts = {run.label: partial(attempt, index, run.label) for index, run in night.contenders.items()}
    awaited = {run.label: run.awaits for run in night.runs}
    # Locally one after the other: they share this process's cores and torch's one random generator.
    outcomes = attempt_all(attempts, side_by_side=runtime != "local", awaited=awaited)
    candidates, failures = sort_outcomes(outcomes)
    on_step("choosing the champion")
    verdict = choose(recipe, night, candidates, failures, runtime=runtime)
    return conclude(recipe, night, candidates, verdict, failures, seconds=time.perf_counter() - started)


def warm_up() -> None:
    """Starts Ray in the background while the data is read: both take seconds, and neither needs the other."""
    from segpipe.train import on_ray  # ray costs seconds to import, and a local retrain does not need it

    def connect() -> None:
        try:
            on_ray.connect()
        except SegpipeError as error:
            _log.info("Ray did not start yet, training will say so: %s", error)

    threading.Thread(target=connect, name="segpipe-warm-up", daemon=True).start()


def train_and_evaluate(
    recipe: Recipe,
    index: int,
    night: OpenNight,
    *,
    runtime: Literal["ray", "local"] = "ray",
    on_progress: OnProgress | None = None,
) -> EvalReport:
    """One architecture of the night, from its config to its report, shown in MLflow as it goes.

    Idempotent: what a killed attempt had finished is kept. Raises what training or evaluation raises, after marking
    the architecture's run as failed; a ConflictError when another process works on it, whose run that is.
    """
    run, dataset = night.runs[index], night.dataset
    try:
        rehearsal.without(night.faults, run)
        if night.search:
            night.search.without(run.label)
        result = train(
            run,
            data=dataset.uri,
            version=dataset.version,
            to=layout.runs_uri(recipe.name),
            resources=recipe.resources,
            parent=night.parent,
            runtime=runtime,
            on_progress=on_progress,
        )
        report = evaluate(
            result.model_uri,
            data=dataset.uri,
            version=dataset.version,
            to=layout.evaluations_uri(recipe.name),
            config=recipe.evaluate,
            experiment=recipe.name,
            label=result.label,
            cpus=min(1.0, recipe.resources.cpus_per_worker),
            runtime=runtime,
        )
    except ConflictError:
        raise
    except Exception as error:
        mirror.show_failure(run, parent=night.parent, version=dataset.version)
        if night.search and isinstance(error, NonFiniteError):
            raise NonFiniteError(f"{error}{night.search.instead_of(run.label)}") from error
        raise
    pictures = load_pictures(evaluation_uri(recipe, report))
    mirror.show_run(recipe, run, result, report, pictures, parent=night.parent, data=dataset.uri)
    return report


def sort_outcomes(outcomes: Mapping[str, EvalReport | Exception]) -> tuple[list[EvalReport], dict[str, str]]:
    """What concurrent attempts came to: the reports, and a message for each label that failed."""
    candidates = [outcome for outcome in outcomes.values() if isinstance(outcome, EvalReport)]
    failures = {label: message_of(outcome) for label, outcome in outcomes.items() if isinstance(outcome, Exception)}
    return candidates, failures


def choose(
    recipe: Recipe,
    night: OpenNight,
    candidates: Sequence[EvalReport],
    failures: Mapping[str, str],
    *,
    runtime: Literal["ray", "local"] = "ray",
) -> Verdict:
    """Puts the best candidate against the champion.

    Raises SegpipeError when every architecture failed, and leaves a record of that night. A night that fails in the
    very same words as the last one on record (a retry of a flow's task, or nobody mended it) leaves none of its own.
    """
    dataset = night.dataset
    try:
        if not candidates:
            raise nights.failed(
                recipe.name,
                dataset_uri=dataset.uri,
                dataset_version=dataset.version,
                failures=failures,
                budget=night.budget,
            )
        return promote_best(
            recipe, candidates, data=dataset.uri, version=dataset.version, runtime=runtime, parent=night.parent
        )
    except Exception:
        mirror.close_failed(recipe.name, parent=night.parent)
        raise


def conclude(
    recipe: Recipe,
    night: OpenNight,
    candidates: Sequence[EvalReport],
    verdict: Verdict,
    failures: Mapping[str, str],
    *,
    seconds: float,
) -> RetrainResult:
    """Writes the night's record, unless the last one says the same, and gathers what a person wants to see."""
    if night.search:
        night = replace(night, search=halving.closed(night.search))
    budget = night.budget
    # A night that was killed after its evaluations, or one with another margin, had a verdict to find all the same.
    evaluations = {evaluation_uri(recipe, report): report for report in candidates}
    is_news = nights.judged(
        recipe.name,
        verdict,
        dataset_uri=night.dataset.uri,
        dataset_version=night.dataset.version,
        evaluations=list(evaluations),
        failures=failures,
        budget=budget,
    )
    shown = gallery.show(
        recipe.name,
        verdict,
        evaluations,
        config=recipe.evaluate,
        data=night.dataset.uri,
        failures=failures,
        parent=night.parent,
    )
    return RetrainResult(
        experiment=recipe.name,
        dataset=night.dataset,
        board=tuple(rank(candidates)),
        verdict=verdict,
        failures=dict(failures),
        did_nothing=night.nothing_to_do and not is_news,
        home=layout.home(),
        mlflow_uri=mlflow_store(),
        mlflow_url=tracking.run_url(night.parent) if night.parent else None,
        pages=pages(),
        seconds=seconds,
        card=shown.card,
        side_by_side=shown.side_by_side,
        budget=budget,
    )


def best_picture(recipe: Recipe, candidates: Sequence[EvalReport]) -> bytes | None:
    """One picture of the best candidate's predictions, where the recipe asks for pictures."""
    best = rank(candidates)[0]
    report = next(report for report in candidates if report.weights_sha256 == best.weights_sha256)
    return next((data for _, data in load_pictures(evaluation_uri(recipe, report), at_most=1)), None)
