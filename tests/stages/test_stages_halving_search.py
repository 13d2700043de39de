"""A search within a budget by its records: what is begun, goes on after a kill, and stops; nothing is trained."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segpipe import reports, storage
from segpipe.config import Recipe
from segpipe.errors import CorruptError, InputError, NonFiniteError, SegpipeError, UnreachableError
from segpipe.stages import mirror, preflight
from segpipe.stages.halving import search as halving
from segpipe.stages.halving.ladder import Rung
from segpipe.stages.halving.plan import planned
from segpipe.stages.halving.report import rung_rows, summed_up
from segpipe.stages.halving.search import Outcome, Search
from segpipe.stages.ingest import IngestResult
from segpipe.stages.opening import open_night
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from segpipe.types import TrainPause
from tests.stages import toy_night

LABELS = ("a", "b", "c", "d")
ENTRIES: list[dict[str, Any]] = [{"arch": "unet", "label": label, "options": {"width": n + 1}} for n, label in
                                 enumerate(LABELS)]  # fmt: skip
ENTRIES += [{"label": "both", "ensemble": ["a", "d"]}, {"arch": "kmeans"}]
SCORES = {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}


def recipe(*overrides: str, entries: list[dict[str, Any]] = ENTRIES) -> Recipe:
    document = {**toy_night.SCENES, "architectures": entries, "rehearsal": {"seconds": 1.0}, "budget": {"hours": 27.0}}
    return toy_night.recipe("resources.cpus_per_worker=2", *overrides, document=document)


def tried(**faults: str) -> RehearsedNight:
    """Each training takes 100 steps and 6 hours of two CPUs."""
    each = [
        Rehearsed(label=label, steps=100, training_hours=6.0, faults=(faults[label],) if label in faults else ())
        for label in LABELS
    ]
    aside = (Rehearsed(label="both", aside="made of a, d"), Rehearsed(label="kmeans", aside="learns by counting"))
    return RehearsedNight(architectures=(*each, *aside), hours=24.0, core_hours=48.0)


class Trainings:
    """Stands for the trainings: each step takes `seconds`, and each pause is scored in no time. Some have `reached` a
    step without the search."""

    def __init__(self, seconds: float = 216.0, **outcomes: Exception) -> None:
        self.seconds, self.outcomes = seconds, outcomes
        self.reached: dict[str, int] = {}
        self.rungs: list[dict[str, int]] = []

    def __call__(self, search: Search, rung: Rung) -> Mapping[str, Outcome]:
        self.rungs.append({climb.label: climb.until for climb in rung.waiting})
        return {climb.label: self.outcomes.get(climb.label) or self.paused(climb) for climb in rung.waiting}

    def paused(self, climb: Any) -> TrainPause:
        step = max(climb.until, self.reached.get(climb.label, 0))
        return TrainPause(
            label=climb.label,
            step=step,
            total_steps=climb.steps,
            primary="miou",
            score=SCORES[climb.label],
            train_seconds=self.seconds * step,
            scoring_seconds=0.0,
        )


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path))


def opened(*overrides: str, entries: list[dict[str, Any]] = ENTRIES) -> Search:
    found = recipe(*overrides, entries=entries)
    search = halving.opened(found, tuple(found.run_configs()), "v1")
    assert search is not None
    return search


def begun(*overrides: str, night: RehearsedNight | None = None) -> Search:
    search = halving.begun(opened(*overrides), night or tried())
    assert search is not None
    return search


def fates(search: Search) -> list[dict[str, str]]:
    return [{climb.label: climb.fate for climb in rung.climbs} for rung in search.rungs]


def test_four_become_two_and_one_and_the_report_tells_what_that_saved() -> None:
    trainings = Trainings()
    search = halving.climbed(begun(), trainings)
    assert search.is_decided
    assert [sorted(rung) for rung in trainings.rungs] == [["a", "b", "c", "d"], ["b", "c"]]
    assert fates(search) == [
        {"a": "dropped", "b": "goes on", "c": "goes on", "d": "dropped"},
        {"b": "goes on", "c": "dropped"},
        {"b": ""},
    ]
    assert search.left_out == {
        "a": "dropped after rung 1, as number 4 of 4, with 0.1000",
        "c": "dropped after rung 2, as number 2 of 2, with 0.3000",
        "d": "dropped after rung 1, as number 3 of 4, with 0.2000",
        "both": "made of a, d, which were dropped",
    }
    assert search.failed == {}
    last = search.rungs[-1].climbs[0]
    first, second = (rung[label] for rung, label in zip(trainings.rungs, "ab", strict=False))
    assert (last.start, last.until) == (second, 100)
    assert search.spent == pytest.approx(0.12 * (4 * first + 2 * (second - first)))
    told = halving.report(search)
    assert told.full_grid == pytest.approx(48)
    assert told.saved == pytest.approx(1 - search.spent / 48)
    assert "of 27 CPU-hours spent; all trainings to their ends would have taken 48" in summed_up(told)
    assert [row["model"] for row in rung_rows(told)] == ["b", "c", "d", "a", "b", "c", "b"]
    assert rung_rows(told)[-1]["then"] == "not finished"
    assert search.spent + last.planned <= 27


def test_where_the_last_one_diverges_it_is_told_who_came_next_and_how_that_goes_on() -> None:
    search = halving.climbed(begun(), Trainings())
    step = search.rungs[1].climbs[0].until
    assert search.instead_of("b") == (
        f"; c came next, with 0.3000, and is paused at step {step} of 100: it goes on from there without a budget, or "
        "with b taken out of the recipe"
    )
    assert (search.instead_of("c"), opened().instead_of("a")) == ("", "")


def standing(**reached: int) -> RehearsedNight:
    """As `tried`, where an earlier night brought some to a step, of 216 s each."""
    each = [
        dataclasses.replace(found, reached=step, train_seconds=216.0 * step)
        if (step := reached.get(found.label, 0))
        else found
        for found in tried().architectures
    ]
    return dataclasses.replace(tried(), architectures=tuple(each))


def test_what_an_earlier_search_trained_is_not_charged() -> None:
    plain = halving.climbed(begun(), Trainings())
    storage.delete_tree(plain.folder)
    search = halving.climbed(begun(night=standing(a=5)), Trainings())
    a, *others = search.rungs[0].climbs
    assert (a.start, a.until) == (5, others[0].until)
    assert a.hours == pytest.approx(others[0].hours - 5 * 0.12)
    assert halving.report(search).full_grid == pytest.approx(48 - 5 * 0.12), "what it was trained before is not saved"
    assert fates(search) == fates(plain)


def test_one_that_stands_further_waits_uncharged_for_the_rung_that_goes_as_far() -> None:
    """Its score at step 60 says nothing beside those of others at their first steps."""
    trainings = Trainings()
    search = halving.climbed(begun(night=standing(a=60)), trainings)
    first, *later = search.rungs
    assert fates(search)[0] == {"a": "ahead", "b": "goes on", "c": "dropped", "d": "dropped"}
    assert (first.climbs[0].until, first.climbs[0].hours, first.climbs[0].score) == (60, 0.0, None)
    assert "a" not in trainings.rungs[0]
    met = next(rung for rung in later if rung.climbs[0].fate != "ahead")
    assert met.share >= 0.6
    assert (met.climbs[0].label, met.climbs[0].start, met.climbs[0].fate) == ("a", 60, "dropped")
    assert {climb.until for climb in met.climbs} == {round(met.share * 100)}, "it is ranked where both stand alike"
    assert search.left_out["a"] == f"dropped after rung {met.number}, as number 2 of 2, with 0.1000"
    assert [climb.label for climb in search.rungs[-1].climbs] == ["b"]
    assert rung_rows(halving.report(search))[3]["then"] == "ahead"
    assert halving.climbed(opened(), trainings) == search


def test_what_a_night_without_a_budget_trained_meanwhile_is_neither_ranked_nor_charged() -> None:
    trainings = Trainings()
    trainings.reached = {"a": 60}
    search = halving.climbed(begun(), trainings)
    a = search.rungs[0].climbs[0]
    assert (a.fate, a.until, a.score, a.hours) == ("ahead", 60, None, 0.0)
    assert fates(search)[0] == {"a": "ahead", "b": "goes on", "c": "dropped", "d": "dropped"}
    assert search.rungs[1].climbs[0].start == 60


def test_where_all_stand_somewhere_the_first_rung_begins_at_the_least_of_them() -> None:
    search = begun(night=standing(a=60, b=50, c=70, d=60))
    assert search.rungs[0].share >= 0.5
    assert [climb.fate for climb in search.rungs[0].climbs].count("ahead") < len(LABELS)
    assert halving.climbed(search, Trainings()).is_decided


def test_a_newcomer_that_fails_leaves_the_night_to_those_ahead() -> None:
    night = begun("budget.hours=14", night=standing(a=60, b=60, c=60))
    search = halving.climbed(night, Trainings(d=NonFiniteError("met a NaN")))
    assert fates(search)[0] == {"a": "ahead", "b": "ahead", "c": "ahead", "d": "failed"}
    assert [climb.label for climb in search.rungs[-1].climbs] == ["b"]


def test_one_ahead_that_the_budget_has_no_room_for_is_told() -> None:
    """Steps take half as much again as the trial said."""
    search = halving.climbed(begun("budget.hours=22", night=standing(a=60, b=70)), Trainings(seconds=324.0))
    assert [climb.label for climb in search.rungs[-1].climbs] == ["b"], "it costs least to its end"
    assert search.left_out["a"].startswith("dropped after rung 1, for want of room, ahead of it at step 60 of 100")


@pytest.mark.parametrize("records", [1, 2, 3, 4])
def test_a_night_that_was_killed_goes_on_with_the_rung_that_it_was_in(records: int, tmp_path: Path) -> None:
    whole = halving.climbed(begun(), Trainings())
    kept = {path: path.read_bytes() for path in sorted(Path(whole.folder).iterdir())}
    assert len(kept) == 5, "the last rung is open"
    for path in list(kept)[records:]:
        path.unlink()
    trainings = Trainings()
    again = halving.climbed(opened(), trainings)
    assert again == whole
    assert len(trainings.rungs) == 2 - records // 2
    assert {path: path.read_bytes() for path in sorted(Path(whole.folder).iterdir())} == kept


def test_a_budget_that_is_too_little_is_an_error_with_figures_before_anything_is_trained() -> None:
    with pytest.raises(InputError) as caught:
        begun("budget.hours=2")
    text = str(caught.value)
    assert text.startswith("budget.hours 2: too little for 4 trainings: the whole grid takes 48 CPU-hours. A first ")
    assert "rung of 10% of each takes 4.8," in text
    assert not Path(opened("budget.hours=2").folder).exists()
    enough = text.partition("Raise it to ")[2].partition(",")[0]
    assert begun(f"budget.hours={enough}").rungs[0].share == pytest.approx(0.1, abs=0.02)


def test_a_rung_that_does_not_fit_is_not_begun_and_more_hours_go_on_there() -> None:
    """Steps take thrice what the trial said."""
    slow = Trainings(seconds=648.0)
    search = halving.climbed(begun(), slow)
    assert len(slow.rungs) == 1
    assert not search.is_decided
    assert search.spent > 27, "a rung that was begun is ended"
    assert set(search.failed) == {"b", "c"}
    said = search.failed["b"]
    assert f"of budget.hours 27 {search.spent:.3g} CPU-hours are spent, and it takes" in said
    enough = said.partition("Raise it to ")[2].partition(" ")[0]
    assert halving.climbed(opened(f"budget.hours={enough}"), slow).rungs[-1].climbs[0].label == "b"
    with pytest.raises(SegpipeError, match="paused at step"):
        search.without("b")
    more = opened("budget.hours=100")
    assert more.is_decided, "who goes on is on record by now"
    assert more.rungs[0] == search.rungs[0]
    assert [set(rung) for rung in slow.rungs] == [set(LABELS)]


@pytest.mark.parametrize("error", [UnreachableError("lost the cluster"), CorruptError("0003.parquet: damaged")])
def test_a_failure_drops_an_architecture_and_lost_surroundings_do_not(error: SegpipeError) -> None:
    lost = Trainings(a=error, b=NonFiniteError("met a NaN"))
    with pytest.raises(type(error), match=str(error)):
        halving.climbed(begun(), lost)
    assert fates(opened()) == [dict.fromkeys(LABELS, "")], "the rung is open"
    search = halving.climbed(opened(), Trainings(b=NonFiniteError("met a NaN")))
    assert search.failed == {"b": "met a NaN"}
    assert fates(search)[0] == {"a": "dropped", "b": "failed", "c": "goes on", "d": "goes on"}
    assert halving.climbed(opened(), Trainings()) == search, "it is not tried again"


def test_one_that_takes_the_weights_of_a_failed_training_fails_with_it() -> None:
    """Else its evaluation would train these weights to their end, outside the budget and every night anew."""
    twin = {**ENTRIES[1], "label": "b_crf", "train": {"inference": {"crf": {"iterations": 1}}}}
    open_search = halving.begun(opened(entries=[*ENTRIES, twin]), tried())
    assert open_search is not None
    search = halving.climbed(open_search, Trainings(b=NonFiniteError("met a NaN")))
    assert search.failed == dict.fromkeys(("b", "b_crf"), "met a NaN")
    with pytest.raises(SegpipeError, match="met a NaN"):
        search.without("b_crf")


def test_a_failure_of_which_nobody_knows_whose_it_is_says_how_it_is_tried_again() -> None:
    search = halving.climbed(begun(), Trainings(b=RuntimeError("CUDA out of memory")))
    said = search.failed["b"]
    assert said.startswith("RuntimeError: CUDA out of memory")
    assert said.endswith(f"; remembered in {search.folder}: remove that folder, and the search begins anew from the "
                         "checkpoints")  # fmt: skip
    storage.delete_tree(search.folder)
    assert halving.climbed(begun(), Trainings()).failed == {}


def test_when_all_of_a_rung_fail_it_is_open_and_the_same_again_goes_on() -> None:
    failing = Trainings(**{label: SegpipeError(f"no {label}") for label in LABELS})
    with pytest.raises(SegpipeError, match=r"^rung 1 of .* not one training came to its score: a: no a; b: no b; c: "):
        halving.climbed(begun(), failing)
    assert fates(opened()) == [dict.fromkeys(LABELS, "")]
    assert halving.climbed(opened(), Trainings()).is_decided


def test_a_fault_of_the_trial_is_told_again_by_every_later_night() -> None:
    search = halving.climbed(begun(night=tried(a="its loss does not fall")), Trainings())
    assert fates(search)[0] == {"a": "failed", "b": "goes on", "c": "dropped", "d": "dropped"}
    assert search.failed["a"].startswith(
        "not trained, since it was tried for some seconds first: its loss does not fall"
    )
    assert opened().failed == search.failed
    assert halving.begun(opened("budget.keep=0.6"), tried(**dict.fromkeys(LABELS, "x"))) is None


def unmeasured(*labels: str) -> RehearsedNight:
    each = [
        Rehearsed(label=found.label, failed="MemoryError") if found.label in labels else found
        for found in tried().architectures
    ]
    return dataclasses.replace(tried(), architectures=tuple(each))


def test_a_trial_that_came_to_an_end_of_its_own_does_not_take_the_night() -> None:
    search = begun(night=unmeasured("a"))
    assert fates(search) == [{"a": "failed", "b": "", "c": "", "d": ""}]
    said = opened().failed["a"]
    assert said.startswith(
        "could not be tried, and within a budget each training must be measured first: MemoryError; "
    )
    assert f"has begun without it; remembered in {search.folder}: remove that folder" in said
    assert halving.climbed(search, Trainings()).is_decided


def test_when_all_trials_came_to_an_end_of_their_own_there_is_nothing_to_lay_out() -> None:
    with pytest.raises(
        SegpipeError, match=r"measured first: a: MemoryError; b: .*; d: MemoryError\. Mend that, or run"
    ):
        begun(night=unmeasured(*LABELS))
    assert opened().rungs == ()


def test_a_plan_says_its_counts_and_when_trainings_were_tried_its_hours() -> None:
    assert planned(toy_night.recipe()) is None
    sketch = planned(recipe("resources.gpus_per_worker=1"))
    assert sketch is not None
    assert (sketch.counts, sketch.device, sketch.steps) == ((4, 2, 1), "GPU", ())
    plan = planned(recipe(), tried())
    assert plan is not None
    assert (plan.full_grid, plan.device, [step.count for step in plan.steps]) == (48, "CPU", [4, 2, 1])
    assert sum(step.hours for step in plan.steps) == pytest.approx(0.9 * 27)
    done = dataclasses.replace(tried().architectures[0], aside="is trained already")
    less = planned(recipe(), dataclasses.replace(tried(), architectures=(done, *tried().architectures[1:])))
    assert less is not None
    assert less.counts == (3, 1), "as in the first rung"


def test_a_night_whose_search_is_damaged_opens_no_run_in_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = IngestResult(
        name="toy", uri="", version="v1", status="unchanged", splits={}, quarantined=(), warnings=(), seconds=0.0
    )

    def damaged(*_: Any) -> None:
        raise CorruptError("000002.json: damaged")

    monkeypatch.setattr(preflight, "check_splits", lambda *_: None)
    monkeypatch.setattr(halving, "opened", damaged)
    monkeypatch.setattr(mirror, "open_parent", lambda *_, **__: pytest.fail("nobody would end it"))
    with pytest.raises(CorruptError, match=r"000002\.json"):
        open_night(recipe(), dataset)


def test_a_record_of_another_shape_is_told() -> None:
    search = begun()
    (number, document), *_ = storage.records(search.folder)
    assert reports.from_plain(Rung, document, origin="here") == search.rungs[0]
    storage.append_record(search.folder, {"number": 2}, after=number)
    with pytest.raises(SegpipeError, match=r"000002\.json: .*every field of Rung"):
        opened()


def test_other_questions_are_other_searches() -> None:
    search = opened()
    assert opened("budget.hours=9").folder == search.folder, "with more hours it goes on"
    others = [opened(change) for change in ("budget.keep=0.25", "budget.first_rung=0.2", "train.seed=5")]
    others.append(dataclasses.replace(search, version="v2"))
    assert len({search.folder, *(other.folder for other in others)}) == 5


def test_what_trains_nothing_is_no_other_search() -> None:
    """Another CRF, an ensemble more and one less, another baseline: the trainings are the same."""
    search = opened()
    crf = opened("train.inference.crf={}")
    assert crf.runs[0].digest != search.runs[0].digest
    assert crf.folder == search.folder
    more = {"label": "more", "ensemble": ["b", "c"]}
    assert opened(entries=[*ENTRIES[:4], more]).folder == search.folder
    assert opened(entries=ENTRIES[:3]).folder != search.folder, "a training less"
