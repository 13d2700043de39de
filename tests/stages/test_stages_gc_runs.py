"""What of the runs goes: the resume state of trainings that have ended, and nothing else."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from segpipe import checkpoint, storage
from segpipe.errors import UnreachableError
from segpipe.stages import gc, layout
from segpipe.stages.gc import runs
from segpipe.stages.train import DRIVERS, finished

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture
def run(shapes: Any) -> Path:
    """A finished run in this test's home."""
    copy: Path = shapes.copy_run(Path(layout.runs_uri("night")))
    return copy


def test_the_checkpoints_of_an_ended_training_go_and_its_model_stays(shapes: Any, run: Path) -> None:
    told = gc.collect().places[-1]
    assert [(each.path, each.why) for each in told.going] == [
        (f"night/{run.name}/checkpoints/", "the training has ended; its model stays")
    ]
    assert told.bytes == sum(path.stat().st_size for path in (run / "checkpoints").rglob("*.*"))
    assert checkpoint.latest(str(run)) is not None
    done = gc.collect(delete=True)
    assert (done.bytes, done.deleted) == (told.bytes, True)
    assert not (run / "checkpoints").exists()
    assert finished(str(run)) is not None
    assert shapes.train(run.parent).run_uri == str(run), "there is nothing to do again"
    assert gc.collect(delete=True).bytes == 0


def test_a_run_says_which_version_it_reads(shapes: Any, run: Path) -> None:
    assert json.loads((run / "data.json").read_text()) == {"dataset_version": shapes.version}


def test_a_training_that_has_not_ended_keeps_its_checkpoints(run: Path) -> None:
    (run / "train.json").unlink()
    place = gc.collect(delete=True).places[-1]
    assert (place.going, [each.name for each in place.staying]) == ((), [f"night/{run.name}"])
    assert "it goes on from here" in place.staying[0].why
    assert checkpoint.latest(str(run)) is not None


def test_one_that_was_paused_on_an_earlier_version_some_time_ago_goes(shapes: Any, run: Path) -> None:
    (run / "train.json").unlink()
    runs_uri, name = storage.join(layout.home(), "runs"), f"night/{run.name}"
    now = time.time() + 1
    assert runs.look(runs_uri, earlier={"another"}, before=now)[0] == []
    assert runs.look(runs_uri, earlier={shapes.version}, before=now - 3600)[0] == [], "it is young"
    found, _ = runs.look(runs_uri, earlier={shapes.version}, before=now)
    assert [each.path for each in found] == [f"{name}/checkpoints/"]
    (left,) = runs.remove(runs_uri, found, before=now - 3600)
    assert isinstance(left, gc.Staying), "somebody has gone on with it since"
    assert list(runs.remove(runs_uri, found, before=now)) == found
    assert not (run / "checkpoints").exists()


def test_which_version_is_current_is_what_the_logs_of_the_home_say(shapes: Any, run: Path) -> None:
    (run / "train.json").unlink()
    log = storage.join(layout.dataset_uri("toy"), "log")
    storage.append_record(log, {"version": shapes.version}, after=0)
    assert gc.collect(min_age_hours=0).places[-1].going == ()
    storage.append_record(log, {"version": "0" * 64}, after=1)
    (told,) = gc.collect(min_age_hours=0).places[-1].going
    assert "paused on an earlier version" in told.why
    assert gc.collect().places[-1].going == (), "it is young"
    storage.append_record(log, {"version": shapes.version}, after=2)
    assert gc.collect(min_age_hours=0).places[-1].going == (), "the version came back"


def test_a_damaged_model_keeps_what_it_can_be_made_of(run: Path) -> None:
    weights = run / "model" / "weights.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-1])
    assert gc.collect(delete=True).bytes == 0


def test_a_run_on_which_somebody_is_at_work_is_left(run: Path) -> None:
    with storage.lease(storage.join(str(run), DRIVERS), what="the run", who="ann"):
        place = gc.collect(delete=True).places[-1]
    assert place.going == ()
    assert "(user ann) has worked on it since" in place.staying[0].why
    assert (run / "checkpoints").exists()
    found, _ = runs.look(storage.join(layout.home(), "runs"))
    assert len(found) == 1


def test_a_run_that_is_made_again_meanwhile_is_not_told_as_gone(run: Path) -> None:
    runs_uri = storage.join(layout.home(), "runs")
    found, _ = runs.look(runs_uri)
    (run / "train.json").unlink()
    (left,) = runs.remove(runs_uri, found)
    assert isinstance(left, gc.Staying)
    assert (left.name, left.why) == (f"night/{run.name}", "not finished any more: it goes on from here")
    assert (run / "checkpoints").exists()


def test_what_stops_a_removal_is_told_with_what_had_gone(
    shapes: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.copy_run(Path(layout.runs_uri("other")))
    drop, dropped = checkpoint.drop, list[str]()

    def drop_one(run_uri: str) -> None:
        if dropped:
            raise UnreachableError(f"{run_uri}: the store is away")
        dropped.append(run_uri)
        drop(run_uri)

    monkeypatch.setattr(checkpoint, "drop", drop_one)
    place = gc.collect(delete=True).places[-1]
    assert ([each.path for each in place.going], place.deleted) == ([f"night/{run.name}/checkpoints/"], True)
    assert "the store is away" in str(place.problem)


def test_trainings_that_were_tried_some_time_ago_go() -> None:
    old, young = (f"{layout.rehearsals_uri('night')}/unet-{key}" for key in ("0" * 12, "1" * 12))
    for folder in (old, young):
        storage.write_once(f"{folder}/check.json", b"{}")
        storage.write_once(f"{folder}/inputs.png", b"png")
    for path in Path(old).iterdir():
        os.utime(path, (0, 0))
    (told,) = (place for place in gc.collect().places if place.uri.endswith("/rehearsals"))
    assert [(each.path, each.bytes) for each in told.going] == [(f"night/{Path(old).name}/", 5)]
    assert [each.name for each in told.staying] == ["1 rehearsal"]
    done = gc.collect(delete=True)
    assert (done.bytes, Path(old).exists(), Path(young).exists()) == (5, False, True)
