"""Drift of files and datasets, held against what the training and the evaluation of a model left."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segpipe import reports, storage
from segpipe.config import EvaluateConfig
from segpipe.drift import Counts
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.stages import drift as stage
from segpipe.stages import fingerprint, layout, predict_dataset
from segpipe.stages.drift import Drift
from segpipe.stages.evaluate import evaluate
from segpipe.stages.images import Chosen, chosen_model, splits_of
from segpipe.stages.predict import predict
from segpipe.stages.predict_dataset import PredictedDataset
from segpipe.types import Fingerprint, SplitFingerprint
from tests.fixtures.small import small_samples
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
PHOTOS = 30
EXPERIMENT = "shapes"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same small images as they are, and in the dark."""
    folder = tmp_path_factory.mktemp("photos")
    for number, sample in enumerate(small_samples("val", PHOTOS)):
        image = Image.open(io.BytesIO(sample.image)).convert("RGB")
        for name, light in (("day", 1.0), ("night", 0.2)):
            (folder / name).mkdir(exist_ok=True)
            image.point(lambda value, light=light: value * light).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture
def scored(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chosen]:
    """The trained model with fingerprint and report where they lie in a home."""
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    chosen = chosen_model(shapes.result.model_uri)
    monkeypatch.setattr(stage, "dataset_of", lambda bundle: open_dataset(shapes.data, version=bundle.dataset_version))
    looks = [stage.drift.of_look(look_of(sample.image)) for sample in small_samples("train", 200)]
    write_fingerprint(chosen, shapes.data, stage.drift.counted(looks), by_group=())
    evaluate(
        shapes.result.model_uri,
        data=shapes.data,
        version=chosen.bundle.dataset_version,
        to=layout.evaluations_uri(EXPERIMENT),
        config=EvaluateConfig(split="test", workers=1, pictures=0),
        experiment=EXPERIMENT,
        label="unet",
        runtime="local",
        with_card=False,
    )
    real = stage._answers
    assert len(real(chosen).groups) == 3, "those of the small samples"
    monkeypatch.setattr(stage, "_answers", lambda chosen: real(chosen)._replace(groups=()))
    yield chosen
    storage.delete(fingerprint.uri_of(shapes.data, chosen.bundle.dataset_version))


def look_of(image: bytes) -> Any:
    from segpipe import masks

    return masks.check_image(image, file="x")


def write_fingerprint(
    chosen: Chosen, data: str, looks: Counts | None, *, by_group: tuple[Counts, ...] | None = None
) -> None:
    split = SplitFingerprint(
        images=1,
        pixels=1,
        sizes={},
        rgb_sum=(0, 0, 0),
        rgb_square_sum=(0, 0, 0),
        images_of_class=(),
        objects_of_class=(),
        objects_by_size=(0, 0, 0),
        crowds=0,
        looks=looks,
        looks_by_group=by_group,
    )
    found = Fingerprint(dataset_version=chosen.bundle.dataset_version, splits={"train": split}, warnings=())
    uri = fingerprint.uri_of(data, found.dataset_version)
    if storage.exists(uri):
        storage.delete(uri)
    storage.write_json_once(uri, reports.to_plain(found))


def test_the_dark_is_told_and_the_day_is_not(scored: Chosen, photos: Path, tmp_path: Path) -> None:
    day = predict(scored.uri, str(photos / "day"), to=str(tmp_path / "out")).drift
    assert (day.has_drifted, day.to_label, day.notes) == (False, (), ())
    assert day.sentence == f"no drift in {PHOTOS} images: like those of the training by {len(day.shifts)} statistics"
    night = predict(scored.uri, str(photos / "night"), to=str(tmp_path / "out"))
    found = night.drift
    assert (found.has_drifted, found.dataset, found.experiment) == (True, "shapes", EXPERIMENT)
    assert "brightness went from " in found.sentence
    assert "brightness" in {shift.statistic for shift in found.shifts if shift.has_moved}
    assert {"share of disc", "uncertainty"} <= {shift.statistic for shift in found.shifts}
    assert len(found.to_label) == stage.MOST_NAMED
    again = predict(scored.uri, str(photos / "night"), to=str(tmp_path / "out"))
    assert (again.made, again.drift) == (0, found), "of what was there, too"
    assert json.loads(json.dumps(reports.to_plain(again)))["drift"]["has_drifted"] is True


def test_parts_add_up_to_the_same_as_files(
    scored: Chosen, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(name: str, a_part: int) -> PredictedDataset:
        monkeypatch.setattr(predict_dataset, "FILES_A_PART", a_part)
        return predict_dataset.predict_dataset(
            scored.uri, str(photos / "night"), name=name, to=str(tmp_path / name), runtime="local"
        )

    whole, parts = ask("whole", 64).drift, ask("parts", 7).drift
    assert stage.drift.UNSURE in {shift.statistic for shift in whole.shifts}
    assert whole == parts
    files = predict(scored.uri, str(photos / "night"), to=str(tmp_path / "out")).drift
    assert (files.shifts, files.sentence) == (whole.shifts, whole.sentence)
    assert whole.to_label == tuple(f"images/{name}" for name in files.to_label)
    assert ask("parts", 7).drift == parts, "of parts that were there"


def test_of_its_own_dataset_version_nothing_is_asked(scored: Chosen, shapes: Shapes, tmp_path: Path) -> None:
    found = predict(scored.uri, shapes.data, split="test", to=str(tmp_path / "out")).drift
    assert (found.has_drifted, found.shifts) == (False, ())
    assert found.sentence == "no drift looked for: these images are of the version that the model was trained on"


def told(chosen: Chosen, **options: Any) -> Drift:
    images = [("a", {"brightness": 1, "uncertainty": 2})]
    return stage.told(chosen, lambda: images, groups={"a": "a"}, version=None, **options)


DARK = [(f"{drive}/{frame}", {"brightness": 10 + frame}) for drive in range(30) for frame in range(5)]


@pytest.mark.parametrize(("drives", "is_alarm"), [(1, False), (5, True)])
def test_where_the_training_has_drives_a_drive_is_no_alarm_and_several_are(
    scored: Chosen, shapes: Shapes, drives: int, is_alarm: bool
) -> None:
    known = [(f"{drive}", {"brightness": 100 + drive + frame}) for drive in range(20) for frame in range(5)]
    looks, by_group = stage.drift.counted(levels for _, levels in known), stage.drift.counted_by_group(known)
    write_fingerprint(scored, shapes.data, looks, by_group=by_group)
    images = DARK[: 5 * drives]
    groups = {name: name.partition("/")[0] for name, _ in images}
    found = stage.told(scored, lambda: images, groups=groups, version=None)
    assert (found.has_drifted, found.is_undecided, found.groups) == (is_alarm, not is_alarm, drives)
    assert found.notes == ()
    if not is_alarm:
        assert found.sentence.startswith(
            "no drift can be told in 5 images of 1 group: so few of them, beside 20 of the training, differ as much by "
            "chance (2 would do). What stands out: brightness went from "
        )
    alone = stage.told(scored, lambda: images, groups={name: name for name, _ in images}, version=None)
    assert (alone.has_drifted, alone.is_undecided, alone.groups) == (False, True, 1)
    (note,) = alone.notes
    assert "nothing tells groups of these: all count as one" in note


def test_without_groups_an_alarm_says_what_it_rests_on(scored: Chosen, photos: Path, tmp_path: Path) -> None:
    found = predict(scored.uri, str(photos / "night"), to=str(tmp_path / "out")).drift
    assert (found.has_drifted, found.groups) == (True, None)
    (note,) = found.notes
    assert note.startswith("each image counts by itself, as the training's have no groups")


def test_folders_are_groups_and_an_old_fingerprint_is_read_and_told(
    scored: Chosen, shapes: Shapes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "cut" / name).mkdir(parents=True)
        for number in range(2):
            shutil.copy(photos / "day" / f"{number:02}.png", tmp_path / "cut" / name / f"{name}{number}.png")
    assert splits_of(str(tmp_path / "cut"), version=None, split=None)[0].groups() == {
        f"{name}/{name}{number}": name for name in ("a", "b") for number in range(2)
    }
    dataset = open_dataset(shapes.data, version=scored.bundle.dataset_version)
    monkeypatch.setattr(dataset, "groups", lambda split: ["drive"] * dataset.rows(split))
    monkeypatch.setattr(stage, "dataset_of", lambda bundle: dataset)
    write_fingerprint(scored, shapes.data, {"brightness": {"100": 9}})
    found = told(scored)
    assert found.groups is None
    (note,) = found.notes
    assert "without the groups of its images, which therefore count one by one; ingest the same source again" in note


def test_what_is_missing_is_said_and_the_rest_is_compared(scored: Chosen, shapes: Shapes) -> None:
    assert told(scored).notes == ()
    write_fingerprint(scored, shapes.data, None)
    (note,) = told(scored).notes
    assert note.startswith("no drift of images can be told: ")
    assert "an earlier segpipe wrote it" in note
    storage.delete_tree(layout.evaluations_uri(EXPERIMENT))
    found = told(scored)
    assert (found.has_drifted, found.shifts, len(found.notes)) == (False, (), 2)
    assert "no report of these weights" in found.notes[1]
    assert found.sentence == "no drift looked for: there is nothing to compare"


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_that_no_distance_has(scored: Chosen, photos: Path, threshold: float) -> None:
    with pytest.raises(InputError, match="expected more than 0 and at most 1"):
        predict(scored.uri, str(photos / "day"), drift_threshold=threshold)
    with pytest.raises(InputError, match="expected more than 0 and at most 1"):
        predict_dataset.predict_dataset(scored.uri, str(photos / "day"), name="x", drift_threshold=threshold)
