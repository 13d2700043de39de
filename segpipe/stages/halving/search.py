"""The search of one night within its budget: what its records say, what comes next, what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from segpipe import checkpoint, reports, storage, tracking
from segpipe.config import BudgetConfig, Recipe, RunConfig
from segpipe.errors import (
    ConflictError,
    CorruptError,
    InputError,
    NonFiniteError,
    SegpipeError,
    StorageFullError,
    UnreachableError,
)
from segpipe.stages import layout
from segpipe.stages.attempts import message_of
from segpipe.stages.halving import ladder
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.halving.plan import (
    RESERVE,
    device_of,
    devices,
    entrants,
    is_halved,
    planned,
    rounded_up,
    whole_hours,
)
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.rehearsal import TRIED_FIRST, Rehearsed, RehearsedNight
from segpipe.stages.train import Around, finished, run_location, train_until
from segpipe.train.runtime import OnProgress
from segpipe.types import TrainPause, TrainResult
from segpipe.version import code_version

# What is no fault of an architecture: the rung is not decided without it, and goes on when the night is run again.
SURROUNDINGS = (UnreachableError, ConflictError, StorageFullError, CorruptError)
ITS_OWN = (NonFiniteError, InputError)  # of another failure nobody knows: memory that others held, workers that died
UNMEASURED = "could not be tried, and within a budget each training must be measured first"
Outcome = TrainResult | TrainPause | Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Where the search of a recipe stands, of resolved `runs` on a dataset version; `stopped` says of each training
    for which the budget has no room left why it goes no further. `rungs` are on record, all but the last are ended."""

    recipe: Recipe
    budget: BudgetConfig
    runs: tuple[RunConfig, ...]
    version: str
    rungs: tuple[Rung, ...] = ()
    stopped: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where its records lie. Not by the hours: with more of them it goes on. Nor by what trains nothing, such as
        another CRF or a new ensemble: that spends no second budget."""
        asked = (f"{self.budget.keep!r}", f"{self.budget.first_rung!r}", device_of(self.recipe))
        digests = [run.training.digest for run in self.runs if is_halved(run)]
        name = layout.key("halving", self.version, code_version(), *asked, *digests)
        return storage.join(layout.halvings_uri(self.recipe.name), name)

    @property
    def is_decided(self) -> bool:
        """Whether it is known who is trained to the end."""
        if not self.rungs:
            return False
        last = self.rungs[-1]
        return last.is_last or (last.is_ended and not last.onward)

    @property
    def spent(self) -> float:
        """Device-hours of all rungs that have ended."""
        return sum(climb.hours for rung in self.rungs for climb in rung.climbs)

    @property
    def newest(self) -> dict[str, Climb]:
        """By label, each training's part of the last rung that it was in."""
        return {climb.label: climb for rung in self.rungs for climb in rung.climbs}

    @property
    def failed(self) -> dict[str, str]:
        """Why an architecture is not trained to the end though nobody was better: its own fault, or the budget's; the
        same of one that takes the weights of such a training."""
        faults = {label: climb.said for label, climb in self.newest.items() if climb.fate == "failed"}
        faults.update(self.stopped)
        taken = {run.label: run.trained_as.label for run in self.runs if run.trained_as is not None}
        return faults | {label: faults[other] for label, other in taken.items() if other in faults}

    @property
    def left_out(self) -> dict[str, str]:
        """Why an architecture is not among the night's models, without a fault: it was dropped, or is made of one."""
        gone: dict[str, str] = {}
        for number, rung in enumerate(self.rungs, 1):
            order = [climb.label for climb in ladder.ranked(rung)]
            later = {climb.label for later in self.rungs[number:] for climb in later.climbs}
            overtaken = [climb for climb in rung.onward if later and climb.label not in later]
            for climb in (*overtaken, *(climb for climb in rung.climbs if climb.fate == "dropped")):
                if climb.label in order:
                    place = f"{order.index(climb.label) + 1} of {len(order)}"
                    why = f"as number {place}, with {climb.score:.4f}"
                else:
                    why = f"for want of room, ahead of it at step {climb.until:,} of {climb.steps:,}"
                gone[climb.label] = f"dropped after rung {number}, {why}"
        for run in self.runs:
            lacking = [label for label in run.awaits if label in gone]
            if lacking:
                was = "were" if len(lacking) > 1 else "was"
                gone[run.label] = f"made of {', '.join(lacking)}, which {was} dropped"
        return gone

    @property
    def dropped(self) -> tuple[RunConfig, ...]:
        """The runs whose trainings are paused for good."""
        gone, newest = self.left_out, self.newest
        return tuple(run for run in self.runs if run.label in gone and run.label in newest)

    def instead_of(self, label: str) -> str:
        """Who would go on, and how, where the only one that is left cannot be trained to its end; "" of any other."""
        if len(self.rungs) < 2 or not self.rungs[-1].is_last or [c.label for c in self.rungs[-1].climbs] != [label]:
            return ""
        others = [climb for climb in ladder.ranked(self.rungs[-2]) if climb.label != label]
        if not others or any(climb.fate == "trained" for climb in others):
            return ""
        return (
            f"; {others[0].label} came next, with {others[0].score:.4f}, and is paused at step {others[0].until:,} of "
            f"{others[0].steps:,}: it goes on from there without a budget, or with {label} taken out of the recipe"
        )

    def without(self, label: str) -> None:
        """Raises SegpipeError where the architecture cannot be trained to the end."""
        if label in self.failed:
            raise SegpipeError(self.failed[label])


TrainRung = Callable[[Search, Rung], Mapping[str, Outcome]]


def opened(recipe: Recipe, runs: tuple[RunConfig, ...], version: str) -> Search | None:
    """The search of a night as its records say; None without a budget, and where nothing is left to be searched."""
    if recipe.budget is None:
        return None
    search = Search(recipe=recipe, budget=recipe.budget, runs=runs, version=version)
    found: dict[int, Rung] = {}  # a rung is recorded when it begins, and once more when it has ended
    for number, document in storage.records(search.folder):
        rung = reports.from_plain(Rung, document, origin=storage.record_uri(search.folder, number))
        found[rung.number] = rung
    if not found and all(_finished(search, run) for run in runs if is_halved(run)):
        return None
    return replace(search, rungs=tuple(found.values()))


def begun(search: Search, tried: RehearsedNight) -> Search | None:
    """The search with its first rung on record; None where no training could be begun.

    A training whose trial came to an end of its own is not measured and cannot be laid out: it is left out, as one with
    a fault. Raises InputError, with figures, where the budget does not hold the least; SegpipeError where that left
    none, and nothing is on record.
    """
    standing = entrants(tried)
    plan = planned(search.recipe, tried)
    if plan is None or not plan.steps:
        if failed := [f"{each.label}: {each.failed}" for each in standing if each.failed]:
            raise SegpipeError(f"{UNMEASURED}: {'; '.join(failed)}. Mend that, or run the same again")
        return None
    first = plan.steps[0]
    climbs = tuple(
        Climb(label=each.label, start=0, until=0, steps=each.steps or 0, planned=0.0, fate="failed", said=said)
        if (said := _fault(search, each))
        else replace(
            _climb(each.label, each.reached, each.steps or 0, first.share, whole_hours(search.recipe, each)),
            train_seconds=each.train_seconds,  # which an earlier search or night has paid for
        )
        for each in standing
    )
    return _recorded(search, Rung(number=1, share=first.share, climbs=climbs))


def climbed(search: Search, train_rung: TrainRung) -> Search:
    """Rung after rung until it is known who is trained to the end, or the budget has no room for the next one.

    `train_rung` brings those of a rung that wait to their steps and gives what came of each. The last rung is left to
    who trains to the end. Raises what is no fault of an architecture: the same again goes on with that rung.
    """
    while not search.is_decided:
        rung = search.rungs[-1]
        if rung.is_ended:
            following = _following(search)
            if following is None:
                return replace(search, stopped=_stopped(search))
            search = _recorded(search, following)
        else:
            search = _recorded(search, _ended(search, rung, train_rung(search, rung)))
    return search


def closed(search: Search) -> Search:
    """The search with what its last rung came to, which is on record once all of its trainings have ended."""
    rung = search.rungs[-1] if search.rungs else None
    if rung is None or rung.is_ended or not rung.is_last:
        return search
    runs = {run.label: run for run in search.runs}
    results = {climb.label: _finished(search, runs[climb.label]) for climb in rung.waiting}
    there = {label: result for label, result in results.items() if result is not None}
    ended = replace(rung, climbs=tuple(_came_to(search, climb, there.get(climb.label)) for climb in rung.climbs))
    return _recorded(search, ended) if ended.is_ended else replace(search, rungs=(*search.rungs[:-1], ended))


def report(search: Search) -> BudgetReport:
    """What the search came to, as it stands."""
    whole, first = _whole_by_label(search), search.rungs[0].climbs if search.rungs else ()
    full_grid = sum(whole[climb.label] * (1 - climb.start / climb.steps) for climb in first if climb.steps)
    return BudgetReport(
        hours=search.budget.hours,
        device=device_of(search.recipe),
        spent=search.spent,
        full_grid=full_grid,
        saved=1 - search.spent / full_grid if full_grid else 0.0,
        rungs=search.rungs,
        left_out=search.left_out,
    )


def train_part(
    search: Search,
    climb: Climb,
    *,
    data: str,
    parent: tracking.RunRef | None,
    runtime: Literal["ray", "local"] = "ray",
    on_progress: OnProgress | None = None,
) -> TrainResult | TrainPause:
    """One architecture's part of a rung: trained until its step, and paused there. Idempotent; raises as training."""
    around = Around(
        data=data,
        version=search.version,
        to=layout.runs_uri(search.recipe.name),
        resources=search.recipe.resources,
        parent=parent,
        runtime=runtime,
        on_progress=on_progress,
    )
    return train_until(next(run for run in search.runs if run.label == climb.label), climb.until, around)


def _run_uri(search: Search, run: RunConfig) -> str:
    return run_location(run.training, version=search.version, to=layout.runs_uri(search.recipe.name))


def _finished(search: Search, run: RunConfig) -> TrainResult | None:
    return finished(_run_uri(search, run))


def _seconds(search: Search, label: str) -> float:
    """In the training loop since its first step, as its newest checkpoint says."""
    run = next(run for run in search.runs if run.label == label)
    state = checkpoint.newest_state(_run_uri(search, run))
    return float(state["train_seconds"]) if state else 0.0


def _hours(search: Search, seconds: float) -> float:
    return devices(search.recipe) * seconds / 3600


def _fault(search: Search, tried: Rehearsed) -> str:
    """Why a training does not stand in the first rung; "" where it does."""
    begun = "; the search within the budget has begun without it"
    if tried.failed:
        return f"{UNMEASURED}: {tried.failed}{begun}{_remembered(search)}"
    return f"{TRIED_FIRST}: {'; '.join(tried.faults)}{begun}" if tried.faults else ""


def _remembered(search: Search) -> str:
    """The way out where what was no fault of an architecture is on record as its failure."""
    return f"; remembered in {search.folder}: remove that folder, and the search begins anew from the checkpoints"


def _climb(label: str, start: int, steps: int, share: float, whole: float) -> Climb:
    until = max(1, round(share * steps))
    if start > until:
        return Climb(label=label, start=start, until=start, steps=steps, planned=0.0, fate="ahead")
    return Climb(label=label, start=start, until=until, steps=steps, planned=whole * (until - start) / steps)


def _recorded(search: Search, rung: Rung) -> Search:
    before = tuple(each for each in search.rungs if each.number < rung.number)
    number = 2 * len(before) + (1 if rung.is_ended else 0)
    storage.append_record(search.folder, reports.to_plain(rung), after=number)
    storage.failpoint("halving.recorded")
    return replace(search, rungs=(*before, rung))


def _following(search: Search) -> Rung | None:
    """The next rung; None where the budget has no room for one."""
    last, whole = search.rungs[-1], _whole_by_label(search)
    rest = search.budget.hours - search.spent
    found = ladder.next_steps(last, whole, search.budget.keep, spendable=(1 - RESERVE) * rest, rest=rest)
    if found is None:
        return None
    on, steps = found
    chosen = {climb.label for climb in on}
    climbs = tuple(
        _climb(each.label, each.until, each.steps, steps[0].share, whole[each.label])
        for each in last.climbs
        if each.label in chosen
    )
    return Rung(number=last.number + 1, share=steps[0].share, climbs=climbs)


def _whole_by_label(search: Search) -> dict[str, float]:
    """The device-hours of each whole training by what it took so far; by what was planned where it took nothing."""
    found = {}
    for label, climb in search.newest.items():
        found[label] = climb.planned / (climb.until - climb.start) * climb.steps if climb.until > climb.start else 0.0
        for part in _parts(search, label):
            step = part.until if part.fate else part.start
            if step and part.train_seconds and part.fate != "failed":
                hours = _hours(search, part.train_seconds)
                found[label] = hours if part.fate == "trained" else hours / step * part.steps
    return found


def _parts(search: Search, label: str) -> list[Climb]:
    return [climb for rung in search.rungs for climb in rung.climbs if climb.label == label]


def _stopped(search: Search) -> dict[str, str]:
    whole, device = _whole_by_label(search), device_of(search.recipe)
    said = {}
    for climb in search.rungs[-1].onward:
        more = whole[climb.label] * (1 - climb.until / climb.steps)
        said[climb.label] = (
            f"paused at step {climb.until:,} of {climb.steps:,}: of budget.hours {search.budget.hours:g} "
            f"{search.spent:.3g} {device}-hours are spent, and it takes {more:.3g} more to its end. Raise it to "
            f"{rounded_up(search.spent + more):g} or more, and the same again goes on from here"
        )
    return said


def _ended(search: Search, rung: Rung, outcomes: Mapping[str, Outcome]) -> Rung:
    errors = {label: outcome for label, outcome in outcomes.items() if isinstance(outcome, Exception)}
    for error in errors.values():
        if isinstance(error, SURROUNDINGS):
            raise error
    climbs = tuple(_came_to(search, climb, outcomes.get(climb.label)) for climb in rung.climbs)
    if errors and not any(climb.score is not None or climb.fate == "ahead" for climb in climbs):
        # What takes all of them is seldom an architecture's fault, and nobody would be left to go on.
        told = "; ".join(f"{label}: {message_of(error)}" for label, error in errors.items())
        raise SegpipeError(
            f"rung {rung.number} of the search within the budget: not one training came to its score: {told}. "
            "Mend that, or run the same again: the rung is open, and goes on from the checkpoints"
        ) from next(iter(errors.values()))
    return ladder.decided(replace(rung, climbs=climbs), search.budget.keep)


def _came_to(search: Search, climb: Climb, outcome: Outcome | None) -> Climb:
    """A training's part of a rung with what it took; as it is without an outcome."""
    if outcome is None:
        return climb
    before = max((each.train_seconds for each in _parts(search, climb.label)), default=0.0)
    if isinstance(outcome, Exception):
        seconds = _seconds(search, climb.label)  # of its last steps nobody knows what they took
        took = _hours(search, max(0.0, seconds - before))
        said = message_of(outcome) + ("" if isinstance(outcome, ITS_OWN) else _remembered(search))
        return replace(climb, fate="failed", said=said, hours=took, train_seconds=seconds)
    if isinstance(outcome, TrainPause) and outcome.step > climb.until:  # a night without a budget came between
        return replace(climb, fate="ahead", until=outcome.step, train_seconds=outcome.train_seconds)
    if isinstance(outcome, TrainResult):
        took = _hours(search, outcome.train_seconds - before)
        found = replace(climb, fate="trained", score=outcome.best_value, until=outcome.steps)
    else:
        took = _hours(search, outcome.train_seconds - before + outcome.scoring_seconds)
        found = replace(climb, score=outcome.score, until=outcome.step)
    return replace(found, hours=took, train_seconds=outcome.train_seconds)
