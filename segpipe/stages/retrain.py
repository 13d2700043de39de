"""The whole night as one stage: ingest, train every architecture, evaluate, promote, and write down what came of it.

`flows/retrain.py` says the same with Prefect's tasks; the pieces that both need (`check`, `conclude`) are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from segpipe import models, reports, storage, tracking
from segpipe.config import Recipe, expand_root
from segpipe.errors import InputError, SegpipeError
from segpipe.leaderboard import BoardRow, rank
from segpipe.promotion import Verdict
from segpipe.sources import open_source
from segpipe.stages import layout, mirror
from segpipe.stages.evaluate import evaluate, load_pictures, load_report, location
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.stages.promote import champion_scorer, promote
from segpipe.stages.train import finished, run_location, train
from segpipe.types import EvalReport, TrainResult

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainResult:
    """What one night came to. `failures` has a message per architecture that did not make it; `did_nothing` is true
    when every result was there already."""

    experiment: str
    dataset: IngestResult
    runs: tuple[TrainResult, ...]
    board: tuple[BoardRow, ...]
    verdict: Verdict | None
    failures: Mapping[str, str]
    did_nothing: bool
    home: str
    mlflow_uri: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One record of `<home>/nights/<experiment>`: enough to show the board again without looking for it."""

    dataset_uri: str
    dataset_version: str
    evaluations: tuple[str, ...]
    champion: str | None
    outcome: str
    reason: str
    failures: Mapping[str, str]


def check(recipe: Recipe) -> None:
    """Everything that can be refused before any work: architectures and their options, source, splits, resources.

    Raises InputError with every fault found, each with its path in the recipe.
    """
    faults = []
    for index in range(len(recipe.architectures)):
        run = recipe.run_config(index)
        try:
            models.check(run.arch, run.options)
        except InputError as error:
            faults.append(f"architectures.{index}: {error}")
        workers = recipe.resources.workers
        if run.train.batch_size % workers:
            faults.append(
                f"architectures.{index}: batch_size {run.train.batch_size} does not divide over resources.workers "
                f"{workers}; choose a multiple"
            )
    try:
        open_source(recipe.dataset.format, expand_root(recipe.dataset.root), recipe.dataset.options)
    except InputError as error:
        faults.append(f"dataset: {error}")
    if faults:
        raise InputError(f"recipe {recipe.name!r}:\n  " + "\n  ".join(faults))


def retrain(
    recipe: Recipe, *, runtime: Literal["ray", "local"] = "ray", on_step: Progress = lambda _: None
) -> RetrainResult:
    """Ingests, trains all architectures (as many at once as the cluster has room for), evaluates, promotes.

    An architecture that fails is reported and the others go on. Raises SegpipeError when none is left, or when ingest
    refuses the data.
    """
    started = time.perf_counter()
    check(recipe)
    on_step(f"reconciling the champion of {recipe.name}")
    mirror.reconcile(recipe.name)
    on_step(f"ingesting {recipe.dataset.name}")
    dataset = ingest(recipe.dataset)
    nothing_to_do = is_done(recipe, dataset)
    parent = mirror.open_parent(recipe, data=dataset.uri, version=dataset.version)
    failures: dict[str, str] = {}

    def one(index: int) -> tuple[TrainResult, EvalReport] | None:
        run = recipe.run_config(index)
        try:
            on_step(f"training {run.label}")
            result = train(
                run,
                data=dataset.uri,
                version=dataset.version,
                to=layout.runs_uri(recipe.name),
                resources=recipe.resources,
                parent=parent,
                runtime=runtime,
            )
            on_step(f"evaluating {run.label}")
            return result, evaluate_run(recipe, index, result, dataset, parent=parent, runtime=runtime)
        except SegpipeError as error:
            failures[run.label] = str(error)
            mirror.show_failure(run, parent=parent, version=dataset.version)
            return None

    with ThreadPoolExecutor(len(recipe.architectures)) as pool:
        pairs = [pair for pair in pool.map(one, range(len(recipe.architectures))) if pair is not None]
    if not pairs:
        raise SegpipeError(f"{recipe.name}: no architecture could be trained: {failures}")
    on_step("choosing the champion")
    candidates = [report for _, report in pairs]
    scorer = champion_scorer(recipe.name, data=dataset.uri, version=dataset.version, config=recipe.evaluate)
    verdict = promote(recipe.name, candidates, config=recipe.promote, champion_report_of=scorer, parent=parent)
    return conclude(
        recipe,
        dataset,
        [result for result, _ in pairs],
        candidates,
        verdict,
        failures,
        did_nothing=nothing_to_do,
        seconds=time.perf_counter() - started,
    )


def evaluate_run(
    recipe: Recipe,
    index: int,
    result: TrainResult,
    dataset: IngestResult,
    *,
    parent: tracking.RunRef | None,
    runtime: Literal["ray", "local"] = "ray",
) -> EvalReport:
    """Evaluates one trained architecture under the recipe's protocol and shows it in MLflow."""
    report = evaluate(
        result.model_uri,
        data=dataset.uri,
        version=dataset.version,
        to=layout.evaluations_uri(recipe.name),
        config=recipe.evaluate,
        experiment=recipe.name,
        label=result.label,
        runtime=runtime,
    )
    pictures = load_pictures(evaluation_uri(recipe, report))
    mirror.show_run(recipe, recipe.run_config(index), result, report, pictures, parent=parent, data=dataset.uri)
    return report


def evaluation_uri(recipe: Recipe, report: EvalReport) -> str:
    """The folder of a report that `evaluate_run` made."""
    return location(
        report.weights_sha256,
        label=report.label,
        version=report.dataset_version,
        config=recipe.evaluate,
        to=layout.evaluations_uri(recipe.name),
    )


def is_done(recipe: Recipe, dataset: IngestResult) -> bool:
    """Whether every architecture of the recipe was trained and evaluated on this version by this code."""
    for index in range(len(recipe.architectures)):
        run = recipe.run_config(index)
        result = finished(run_location(run, version=dataset.version, to=layout.runs_uri(recipe.name)))
        if result is None:
            return False
        folder = location(
            result.weights_sha256,
            label=result.label,
            version=dataset.version,
            config=recipe.evaluate,
            to=layout.evaluations_uri(recipe.name),
        )
        if not storage.exists(storage.join(folder, "report.json")):
            return False
    return True


def conclude(
    recipe: Recipe,
    dataset: IngestResult,
    runs: Sequence[TrainResult],
    candidates: Sequence[EvalReport],
    verdict: Verdict,
    failures: Mapping[str, str],
    *,
    did_nothing: bool,
    seconds: float,
) -> RetrainResult:
    """Writes the night's record, unless nothing was done, and gathers what a person wants to see."""
    if not did_nothing:
        nights = layout.nights_uri(recipe.name)
        night = Night(
            dataset_uri=dataset.uri,
            dataset_version=dataset.version,
            evaluations=tuple(evaluation_uri(recipe, report) for report in candidates),
            champion=verdict.champion.weights_sha256 if verdict.champion else None,
            outcome=verdict.outcome,
            reason=verdict.reason,
            failures=dict(failures),
        )
        storage.append_record(nights, reports.to_plain(night), after=len(storage.records(nights)))
    return RetrainResult(
        experiment=recipe.name,
        dataset=dataset,
        runs=tuple(runs),
        board=tuple(rank(candidates)),
        verdict=verdict,
        failures=dict(failures),
        did_nothing=did_nothing,
        home=layout.home(),
        mlflow_uri=mirror.uri(),
        seconds=seconds,
    )


def board(experiment: str) -> list[BoardRow]:
    """The leaderboard of the last night of an experiment. Raises InputError when there was none."""
    nights = storage.records(layout.nights_uri(experiment))
    if not nights:
        raise InputError(
            f"{layout.nights_uri(experiment)}: no retrain of {experiment!r} has finished here; run `segpipe retrain` "
            "with its recipe, or set SEGPIPE_HOME to where it ran"
        )
    last = reports.from_plain(Night, nights[-1][1], origin=layout.nights_uri(experiment))
    return rank([load_report(folder) for folder in last.evaluations])


def experiments() -> list[str]:
    """Every experiment that has finished a retrain in this home."""
    folder = storage.join(layout.home(), "nights")
    return sorted({path.split("/")[0] for path in storage.list_tree(folder, suffix=".json")})
