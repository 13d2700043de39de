"""What of a training that was tried is a fault, what a caution, what is remembered, and what becomes of the night."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segpipe import storage
from segpipe.errors import SegpipeError
from segpipe.shards import open_dataset
from segpipe.stages import rehearsal
from segpipe.stages import retrain as night_stage
from segpipe.stages import train as train_stage
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import ingest
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from segpipe.train.rehearsal import Rehearsal
from tests.fixtures.small import small_run
from tests.stages import toy_night

SOUND = Rehearsal(
    losses=(1.2, 1.0, 0.9, 0.7),
    losses_lower=(),
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


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"losses": (1.0, 1.0, 1.0), "losses_lower": (1.0, 1.1)}, "the loss does not fall: from 1 to 1 in 3 steps"),
        ({"losses": (1.0, math.nan), "losses_lower": (1.0, math.nan)}, "from 1 to nan in 2 steps"),
        ({"unlabelled": 9}, "9 of 16 crops have no label"),
        ({"one_class": 4}, "each of 4 batches shows one class alone"),
    ],
)
def test_faults(changes: dict[str, Any], fault: str) -> None:
    faults, _ = judged(**changes)
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        (
            {"losses": (1.0, math.nan), "losses_lower": (1.0, 0.5)},
            "at learning_rate 0.01 the loss .* goes from 1 to nan",
        ),
        ({"losses": (1.0, 0.97, 0.96)}, "falls by little: from 1 to 0.96 in 3 steps"),
        ({"losses": (9.0, 5.0)}, "the first loss is 9, and a head that knows nothing is near 1.1"),
        ({"losses": (0.1, 0.05)}, "the first loss is 0.1"),
        ({"unlabelled": 2}, "2 of 16 crops have no label"),
    ],
)
def test_cautions(changes: dict[str, Any], caution: str) -> None:
    faults, cautions = judged(**changes)
    assert faults == []
    assert len(cautions) == 1
    assert re.search(caution, cautions[0])


def test_a_pretrained_model_may_begin_low() -> None:
    run = small_run().model_copy(update={"pretrained": "DEFAULT"})
    found = dataclasses.replace(SOUND, losses=(0.1, 0.05))
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


def test_what_is_not_trained_by_descent_is_not_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe(document={**toy_night.SCENES, "architectures": [{"arch": "kmeans"}]})
    dataset = ingest(recipe.dataset)
    (found,) = rehearsal.rehearse_night(recipe, recipe.run_configs(), dataset, runtime="local").architectures
    assert found.aside.startswith("learns by")


def test_a_fault_is_not_remembered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who mends the machine, and not the recipe, is not told the old fault."""
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe("train.seed=77")
    dataset, runs = ingest(recipe.dataset), [resolve(recipe.run_configs()[0])]
    calls = []

    def broken(*_: Any, **__: Any) -> Rehearsal:
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(rehearsal, "rehearse", broken)
    for number in (1, 2):
        found = rehearsal.rehearse_night(recipe, runs, dataset, runtime="local")
        assert found.faults == {runs[0].label: "could not make a step: RuntimeError: out of memory"}
        assert len(calls) == number


def test_a_night_of_faults_is_over_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ("architectures.0.train={batch_size: 64}", "architectures.1.train={learning_rate: 1e30}")
    monkeypatch.setattr(train_stage, "fit", lambda job, runtime: pytest.fail("a model was trained"))
    with toy_night.surroundings(tmp_path), pytest.raises(SegpipeError) as caught:
        night_stage.retrain(toy_night.recipe("name=doomed", toy_night.TRIED, *faults), runtime="local")
    message = str(caught.value)
    assert message.startswith("doomed: no architecture could be trained and evaluated: ")
    assert "has 8 samples, and one step needs 64" in message
    assert "deeplab_v3plus: not trained, since it was tried for some seconds first: on one step's images" in message
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


def test_a_class_that_training_never_shows_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    recipe = toy_night.recipe()
    dataset = open_dataset(ingest(recipe.dataset).uri)
    split = dataset.manifest.splits["train"]
    bare = dataclasses.replace(split, class_pixels=(0, *split.class_pixels[1:]))
    manifest = dataclasses.replace(dataset.manifest, splits={"train": bare})

    class Emptied:
        pass

    emptied: Any = Emptied()
    emptied.manifest = manifest
    (told,) = rehearsal._unseen(recipe.run_configs()[0], emptied)
    assert told.startswith(f"no pixel of split 'train' is {manifest.classes[0].name}")
