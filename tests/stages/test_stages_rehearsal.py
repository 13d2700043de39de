"""What of a training that was tried is a fault, what a caution, what is remembered, and what becomes of the night."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segpipe import checkpoint, storage
from segpipe.errors import InputError, SegpipeError
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout, rehearsal
from segpipe.stages import retrain as night_stage
from segpipe.stages import train as train_stage
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import ingest
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from segpipe.stages.train import run_location
from segpipe.train import rehearsal as trials
from segpipe.train.rehearsal import MOST_STEPS, Rehearsal
from tests.fixtures.small import small_run
from tests.stages import toy_night

SOUND = Rehearsal(
    losses=(1.2, 1.0, 0.9, 0.7),
    losses_lower=(),
    first_entropy=1.2,
    expected=math.log(3),
    batches=4,
    crops=16,
    unlabelled=0,
    one_class=1,
    seen=(0, 1, 2),
    batch_seconds=0.1,
    step_seconds=0.5,
    image_seconds=0.25,
    peak_bytes=2**30,
    device="cpu",
    size=(2, 2),
    images_NHW3=bytes(12),
    labels_NHW=None,
)


def judged(**changes: Any) -> tuple[list[str], list[str]]:
    found = dataclasses.replace(SOUND, **changes)
    return list(rehearsal._faults(found)), list(rehearsal._cautions(small_run(), found))


def test_a_sound_training_has_nothing_to_say() -> None:
    assert judged() == ([], [])


FLAT = (1.0, *(1.0 - at / 10_000 for at in range(1, MOST_STEPS)))  # falls by less than counts, but moves


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"losses": (math.nan,), "losses_lower": (math.nan,)}, "is not finite, before anything was learnt"),
        ({"losses": (1.0,) * MOST_STEPS, "losses_lower": ()}, "the loss stays 1 for 40 steps"),
    ],
)
def test_faults(changes: dict[str, Any], fault: str) -> None:
    faults, cautions = judged(**changes)
    assert len(faults) == 1
    assert fault in faults[0]
    assert cautions == [], "nothing is said twice"


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        (
            {"losses": (1.0, math.nan), "losses_lower": (1.0, 0.5)},
            "at learning_rate 0.01 the loss .* goes from 1 to nan",
        ),
        # A warm-up may save what diverges at a tenth of the rate, too; its absence ends a training in seconds.
        ({"losses": (1.0, math.nan), "losses_lower": (1.0, math.nan)}, "does not fall: from 1 to nan in 2 steps, and"),
        ({"losses": FLAT, "losses_lower": FLAT}, "does not fall: from 1 to 0.996 in 40 steps, and at a tenth"),
        ({"losses": (1.0,) * 5, "losses_lower": (1.0,) * 4}, r"5 steps \(there was no time for more; raise rehearsal"),
        ({"losses": (1.0, *(0.95,) * (MOST_STEPS - 1))}, "falls by little: from 1 to 0.95 in 40 steps"),
        ({"first_entropy": 9.0}, "the first cross entropy is 9, and of a head that knows nothing it is near 1.1"),
        ({"first_entropy": 0.1}, "the first cross entropy is 0.1"),
        ({"unlabelled": 2}, "2 of 16 crops have no label"),
        ({"unlabelled": 16}, "16 of 16 crops have no label"),
    ],
)
def test_cautions(changes: dict[str, Any], caution: str) -> None:
    faults, cautions = judged(**changes)
    assert faults == []
    assert len(cautions) == 1
    assert re.search(caution, cautions[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": (1.0, 0.97, 0.96)},  # by little, in three steps
        {"losses": (90.0, 60.0), "first_entropy": None, "expected": None},  # of queries, or without cross entropy
        {"losses": (2.6, 1.0), "first_entropy": 1.2},  # of several terms
    ],
)
def test_what_is_not_worth_a_word(changes: dict[str, Any]) -> None:
    assert judged(**changes) == ([], [])


def test_a_pretrained_model_may_begin_low() -> None:
    run = small_run().model_copy(update={"pretrained": "DEFAULT"})
    found = dataclasses.replace(SOUND, first_entropy=0.1)
    assert list(rehearsal._cautions(run, found)) == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place: Path = tmp_path_factory.mktemp("home")
    with toy_night.surroundings(place):
        yield place


def test_a_night_is_tried_once_and_tells_its_hours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe()
    dataset = ingest(recipe.dataset)
    runs = [resolve(run) for run in recipe.run_configs()]
    found = rehearsal.rehearse_night(recipe, runs, dataset, runtime="local", seconds=20)
    assert found.faults == {}
    assert [each.label for each in found.architectures] == [run.label for run in runs]
    for each in found.architectures:
        assert not each.remembered
        assert each.hours is not None
        with Image.open(each.sheet) as sheet:
            assert sheet.width > 300
    assert found.hours == pytest.approx(sum(each.hours or 0 for each in found.architectures))
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: pytest.fail("it was tried again"))
    again = rehearsal.rehearse_night(recipe, runs, dataset, runtime="local", seconds=20)
    assert again.architectures == tuple(dataclasses.replace(each, remembered=True) for each in found.architectures)
    # What the night scores is no part of the trial: its hours are those of the recipe as it is now.
    scored = rehearsal.rehearse_night(
        toy_night.recipe("evaluate.split=train"), runs, dataset, runtime="local", seconds=20
    )
    for each, before in zip(scored.architectures, found.architectures, strict=True):
        assert (each.hours or 0) - (before.hours or 0) == pytest.approx((8 - 3) * (before.image_seconds or 0) / 3600)
    # And those of a training that an earlier night began are of the rest: here one of two steps is made.
    monkeypatch.setattr(checkpoint, "newest_state", lambda _: {"step": 1, "train_seconds": 9.0})
    begun = rehearsal.rehearse_night(recipe, runs, dataset, runtime="local", seconds=20)
    for each, before in zip(begun.architectures, found.architectures, strict=True):
        assert (each.reached, each.train_seconds, each.share) == (1, 9.0, 0.5)
        assert (before.hours or 0) - (each.hours or 0) == pytest.approx((before.training_hours or 0) / 2)
        assert each.training_hours == before.training_hours


def test_what_was_tried_elsewhere_is_not_remembered_as_if_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe()
    dataset = open_dataset(ingest(recipe.dataset).uri)
    larger = toy_night.recipe("resources.cpus_per_worker=8")
    places = {
        rehearsal._location(asked, recipe.run_configs()[0], dataset, runtime, seconds)
        for asked in (recipe, larger)
        for runtime in ("ray", "local")
        for seconds in (10, 60)
    }
    assert len(places) == 8


def test_what_comes_after_training_is_no_other_training_to_try(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night that only looks for another CRF would else try each training, and search it within a budget, again."""
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    plain, refined = toy_night.recipe(), toy_night.recipe("train.inference.crf={}")
    dataset = open_dataset(ingest(plain.dataset).uri)
    run, same = (resolve(recipe.run_configs()[0]) for recipe in (refined, plain))
    assert rehearsal._location(refined, run, dataset, "local", 60) == rehearsal._location(
        plain, same, dataset, "local", 60
    )
    trained = run_location(same, version=dataset.version, to=layout.runs_uri(plain.name))
    monkeypatch.setattr(rehearsal, "finished", lambda uri: uri == trained)
    (found,) = rehearsal.rehearse_night(refined, [run], ingest(plain.dataset), runtime="local").architectures
    assert found.aside == "is trained already"


def test_what_is_not_trained_by_descent_is_not_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe(document={**toy_night.SCENES, "architectures": [{"arch": "kmeans"}]})
    dataset = ingest(recipe.dataset)
    (found,) = rehearsal.rehearse_night(recipe, recipe.run_configs(), dataset, runtime="local").architectures
    assert found.aside.startswith("learns by")


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [(InputError("no room for a crop"), True), (RuntimeError("out of memory"), False), (TypeError("a bug"), False)],
)
def test_what_ends_a_trial_is_a_fault_only_where_the_recipe_is_to_blame(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_fault: bool
) -> None:
    """And it is not remembered: who mends the machine, and not the recipe, is not told the old one."""
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe("train.seed=77")
    dataset, runs = ingest(recipe.dataset), [resolve(recipe.run_configs()[0])]
    calls = []

    def broken(*_: Any, **__: Any) -> Rehearsal:
        calls.append(1)
        raise error

    monkeypatch.setattr(rehearsal, "rehearse", broken)
    for number in (1, 2):
        found = rehearsal.rehearse_night(recipe, runs, dataset, runtime="local")
        (only,) = found.architectures
        assert found.faults == ({runs[0].label: f"could not make a step: {error}"} if is_fault else {})
        assert str(error) in (only.faults[0] if is_fault else only.failed)
        assert not found.is_sound
        assert len(calls) == number


def test_a_night_of_faults_is_over_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ("architectures.0.train={batch_size: 64}", "architectures.1.train={learning_rate: 1e-30}")
    monkeypatch.setattr(train_stage, "fit", lambda job, runtime: pytest.fail("a model was trained"))
    monkeypatch.setattr(trials, "MOST_STEPS", 6)
    with toy_night.surroundings(tmp_path), pytest.raises(SegpipeError) as caught:
        night_stage.retrain(toy_night.recipe("name=doomed", toy_night.TRIED, *faults), runtime="local")
    message = str(caught.value)
    assert message.startswith("doomed: no architecture could be trained and evaluated: ")
    assert "has 8 samples, and one step needs 64" in message
    assert (
        "deeplab_v3plus: not trained, since it was tried for some seconds first: on one step's images the loss stays"
        in message
    )
    (night,) = storage.records(str(tmp_path / "nights" / "doomed"))
    assert set(night[1]["failures"]) == {"unet", "deeplab_v3plus"}


def test_an_architecture_with_a_fault_is_left_out_of_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rehearse_night(recipe: Any, runs: Any, *_: Any, **__: Any) -> RehearsedNight:
        first, second = (run.label for run in runs)
        tried = (Rehearsed(label=first, faults=("its loss does not fall",)), Rehearsed(label=second))
        return RehearsedNight(architectures=tried, hours=0, core_hours=0)

    with toy_night.surroundings(tmp_path):
        monkeypatch.setattr(rehearsal, "rehearse_night", rehearse_night)
        recipe = toy_night.recipe(toy_night.TRIED)
        result = night_stage.retrain(recipe, runtime="local")
    first, second = (run.label for run in recipe.run_configs())
    assert result.failures == {first: "not trained, since it was tried for some seconds first: its loss does not fall"}
    assert [row.label for row in result.board] == [second]


def test_a_fault_is_one_of_whoever_takes_the_same_weights() -> None:
    """Or the training would be begun all the same, under the other's name."""
    first = small_run().model_copy(update={"label": "first"})
    crf = first.model_copy(update={"label": "first_crf", "trained_as": first})
    other = first.model_copy(update={"label": "other"})
    for run in (first, crf):
        with pytest.raises(SegpipeError, match=r"not trained, since it was tried .* first: no weight moves"):
            rehearsal.without({"first": "no weight moves"}, run)
    rehearsal.without({"first": "no weight moves"}, other)


def counted(home: Path, monkeypatch: pytest.MonkeyPatch, *train: int) -> Dataset:
    """The toy's dataset as if its training split had so many pixels of its classes, from the first on."""
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    found = open_dataset(ingest(toy_night.recipe().dataset).uri)
    pixels = (*train, *(0 for _ in found.manifest.classes[len(train) :]))
    splits = found.manifest.splits
    splits = {**splits, "train": dataclasses.replace(splits["train"], class_pixels=pixels)}
    monkeypatch.setattr(found, "manifest", dataclasses.replace(found.manifest, splits=splits))
    return found


def test_a_class_that_training_never_shows_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = counted(home, monkeypatch, 0, *range(1, 7))
    run = toy_night.recipe().run_configs()[0]
    (told,) = rehearsal._unseen(run, SOUND, dataset)
    assert told.startswith(f"no pixel of split 'train' is {dataset.manifest.classes[0].name}")
    assert list(rehearsal._unlearnable(run, dataset)) == []


def test_a_split_without_any_label_cannot_be_learnt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = rehearsal._unlearnable(toy_night.recipe().run_configs()[0], counted(home, monkeypatch))
    assert told.startswith("no pixel of split 'train' has a class")


def test_one_class_a_batch_is_told_where_there_are_several(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, alone = toy_night.recipe().run_configs()[0], dataclasses.replace(SOUND, one_class=4)
    several, one = (list(rehearsal._unseen(run, alone, counted(home, monkeypatch, *n))) for n in ((9, 1), (9,)))
    assert [each for each in several if each.startswith("each of the first 4 batches shows one class alone")]
    assert not [each for each in one if "one class" in each]
