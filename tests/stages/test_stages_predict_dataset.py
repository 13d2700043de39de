"""Predictions as a dataset version: labels and uncertainty in Parquet, part by part, the same wherever it is made."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from PIL import Image, ImageOps
from torch.nn import functional

from segpipe import masks, storage
from segpipe.checkpoint import load_model
from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.errors import InputError
from segpipe.predict import loop
from segpipe.predictions import Detections
from segpipe.shards import open_dataset
from segpipe.stages import gc
from segpipe.stages import predict_dataset as stage
from segpipe.stages.images import Reader, chosen_model
from segpipe.stages.predict_dataset import PredictedDataset, predict_dataset
from segpipe.types import Annotation, Task
from tests.fixtures.pictures import photograph
from tests.fixtures.small import CLASSES, publish_small, small_samples
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


@pytest.fixture
def run(shapes: Shapes, tmp_path: Path) -> Callable[..., PredictedDataset]:
    def call(**changes: Any) -> PredictedDataset:
        usual = {"source": shapes.data, "name": "said", "to": str(tmp_path / "said"), "runtime": "local"}
        return predict_dataset(shapes.result.model_uri, **{**usual, **changes})

    return call


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "FILES_A_PART", 2)


def photos(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for number, sample in enumerate(small_samples("test", count)):
        (folder / f"{number}.{'jpg' if number % 2 else 'png'}").write_bytes(sample.image)
    return folder


def test_a_version_of_what_the_model_says(shapes: Shapes, run: Callable[..., PredictedDataset]) -> None:
    done = run()
    assert (done.status, done.splits, done.kept, done.uncertainty) == (
        "published",
        {"test": 6, "train": 16, "val": 4},
        0,
        True,
    )
    found, source = open_dataset(done.uri), open_dataset(shapes.data)
    assert found.version == done.version
    assert found.manifest.classes == CLASSES
    assert found.manifest.annotations == (Annotation.LABEL_MAP,)
    assert shapes.result.weights_sha256 in found.manifest.coding.rules[0]
    assert shapes.version in found.manifest.coding.rules[1]
    model, bundle = load_model(shapes.result.model_uri)
    for said, truth in zip(found.samples("test"), source.samples("test"), strict=True):
        assert (said.sample_id, said.image, said.group) == (truth.sample_id, truth.image, truth.group)
        pixels = torch.from_numpy(masks.read_rgb(said.image, file="x")).permute(2, 0, 1)[None]
        size = (said.height, said.width)
        batch = Batch(images_N3HW=pixels, labels_NHW=None, sample_ids=("x",), original_sizes=(size,))
        with torch.inference_mode():
            logits = model(evaluation_inputs(batch, bundle, torch.device("cpu"))).scores_NKhw
            resized = functional.interpolate(logits, size, mode="bilinear") if logits.shape[2:] != size else logits
        np.testing.assert_array_equal(masks.read_map(said.label_map or b"", said), resized[0].argmax(0).numpy())
        unsure = np.asarray(Image.open(io.BytesIO(said.extras["uncertainty"]))) / 65535
        np.testing.assert_allclose(unsure, 1 - resized[0].softmax(0).amax(0).numpy(), atol=1e-4)


def test_what_a_detector_doubts_is_no_label(
    shapes: Shapes, run: Callable[..., PredictedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that sees the same two boxes everywhere, of one of which it is not sure."""
    inside_2HW = np.zeros((2, 32, 40), dtype=np.uint8)
    inside_2HW[0, :10, :20], inside_2HW[1, 20:, 30:] = 1, 1
    said = Detections(
        size=(32, 40),
        class_ids_N=np.array([1, 2]),
        scores_N=np.array([0.75, 0.25]),
        boxes_N4=np.array([[0.0, 0, 20, 10], [30, 20, 40, 32]]),
        masks=tuple(masks.encode_rle(each)["counts"] for each in inside_2HW),
    )
    chosen, model = chosen_model(shapes.result.model_uri), loop.load(shapes.result.model_uri)
    detector = replace(chosen.bundle, task=Task.INSTANCE)
    monkeypatch.setattr(stage, "chosen_model", lambda name: replace(chosen, bundle=detector))
    monkeypatch.setattr(stage, "_loaded", lambda uri, window: model._replace(bundle=detector))
    monkeypatch.setattr(loop, "predict", lambda model, batch: [said] * len(batch.sample_ids))
    done = run(split="val")
    assert (done.splits, done.uncertainty) == ({"val": 4}, True)
    found = open_dataset(done.uri)
    assert found.manifest.annotations == (Annotation.SEGMENTS,)
    assert "objects of a score of 0.5 or more" in found.manifest.coding.rules
    for stored in found.samples("val"):
        assert [(segment.class_id, segment.area) for segment in stored.segments] == [(1, 200)]
        unsure = np.asarray(Image.open(io.BytesIO(stored.extras["uncertainty"]))) / 65535
        np.testing.assert_allclose(unsure, 0.25 * inside_2HW[0], atol=1e-4)
    doubts = run(split="val", least_score=0.2)
    assert (doubts.kept, doubts.version != done.version) == (0, True), "another score is another result"
    assert {len(stored.segments) for stored in open_dataset(doubts.uri).samples("val")} == {2}


def test_the_same_again_does_nothing_and_a_lost_part_is_made_alone(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None
) -> None:
    folder = photos(tmp_path / "photos")
    first = run(source=str(folder))
    assert (first.parts, first.kept, first.splits) == (3, 0, {"images": 5})
    again = run(source=str(folder))
    assert (again.status, again.version, again.kept) == ("already_published", first.version, 3)
    shard = open_dataset(first.uri).manifest.splits["images"].shards[1]
    storage.delete(storage.join(first.uri, shard.path))
    records = sorted((Path(first.uri) / "predicted").iterdir())
    records[0].write_text("{")
    mended = run(source=str(folder))
    assert (mended.version, mended.parts) == (first.version, 3)
    assert mended.kept in (1, 2), "the damaged record may be that of the lost shard"
    open_dataset(first.uri).verify("images")
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes())
    changed = run(source=str(folder))
    assert (changed.kept, changed.status) == (2, "published")


def test_a_run_that_was_killed_goes_on(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos")
    made = list[str]()
    real = stage.predict_part

    def dies_at_the_second(part: stage.PredictedPart) -> object:
        made.append(part.key)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(part)

    monkeypatch.setattr(stage, "predict_part", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(source=str(folder))
    told: list[tuple[int, int]] = []
    done = run(source=str(folder), on_progress=lambda done, total: told.append((done, total)))
    assert (done.kept, done.splits) == (1, {"images": 5})
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert made == [*dict.fromkeys(made[:2]), *made[1:2], made[3]]


def test_a_record_that_is_lost_meanwhile_leaves_no_part_out(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos")
    real, read = stage.predict_part, list[str]()

    def damaged(part: stage.PredictedPart) -> stage.PartOutcome:
        outcome = real(part)
        Path(stage._record_uri(part)).write_text("{")
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(stage, "predict_part", damaged)
        first = run(source=str(folder))
    assert (first.parts, first.splits) == (3, {"images": 5})
    open_dataset(first.uri).verify("images")
    assert run(source=str(folder)).version == first.version

    def noted(part: stage.PredictedPart) -> stage.PartOutcome | None:
        read.append(part.key)
        return known(part)

    known = stage._known
    monkeypatch.setattr(stage, "_known", noted)
    assert run(source=str(folder)).kept == 3
    assert len(read) == len(set(read)) == 3, "a record is read once"


def test_parts_share_a_reader(run: Callable[..., PredictedDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which knows the shards whose hashes were right."""
    made = list[str | None]()

    class Noted(Reader):
        def __init__(self, root: str, *, version: str | None, split: str | None) -> None:
            made.append(split)
            super().__init__(root, version=version, split=split)

    stage._reader.cache_clear()
    monkeypatch.setattr(stage, "Reader", Noted)
    assert run(split="train").parts == 2
    assert made == ["train"]


def test_bad_files_are_listed_in_the_version(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None
) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "1.jpg").write_bytes(b"\xff\xd8\xff torn")
    done = run(source=str(folder))
    assert done.splits == {"images": 4}
    assert [(entry.file, entry.reason) for entry in done.quarantined] == [("1.jpg", "truncated")]
    manifest = open_dataset(done.uri).manifest
    assert manifest.quarantined == {"truncated": 1}
    assert manifest.quarantine_path is not None
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of its images could be used; the first: 0\.png"):
        run(source=str(folder))


def test_workers_of_a_cluster_make_the_same_bytes(
    shapes: Shapes, run: Callable[..., PredictedDataset], tmp_path: Path
) -> None:
    here = run(split="val")
    try:
        there = run(split="val", to=str(tmp_path / "there"), runtime="ray")
    finally:
        ray.shutdown()
    assert (there.version, there.splits) == (here.version, {"val": 4})


def test_what_cannot_be_asked(shapes: Shapes, run: Callable[..., PredictedDataset]) -> None:
    with pytest.raises(InputError, match="is the dataset that is read"):
        run(to=shapes.data)
    with pytest.raises(InputError, match="no split 'tset'"):
        run(split="tset")
    with pytest.raises(InputError, match=r"least_score 50: is a score from 0 to 1"):
        run(least_score=50)


def test_what_people_labelled_is_not_taken_over(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None
) -> None:
    labelled = str(tmp_path / "roofs")
    version = publish_small(labelled, train=2, val=1, test=1)
    folder = photos(tmp_path / "photos", 2)
    with pytest.raises(InputError, match=rf"roofs: holds what people labelled \(version {version[:12]}, of .* its own"):
        run(source=str(folder), to=labelled)
    assert open_dataset(labelled).version == version
    assert not (tmp_path / "roofs" / "predicted").exists(), "told before a model is asked"
    first = run(source=str(folder))
    (folder / "0.png").write_bytes((folder / "1.jpg").read_bytes())
    assert run(source=str(folder)).version != first.version, "another version of predictions is welcome there"


def test_records_of_parts_go_with_their_shards_and_stay_with_them(
    run: Callable[..., PredictedDataset], tmp_path: Path, small_parts: None
) -> None:
    folder = photos(tmp_path / "photos", 3)
    first = run(source=str(folder))
    assert gc.collect(first.uri, keep=1, min_age_hours=0, delete=True).bytes == 0
    (folder / "0.png").write_bytes((folder / "2.png").read_bytes())
    second = run(source=str(folder))
    assert (second.kept, second.version != first.version) == (1, True)
    gone = gc.collect(first.uri, keep=1, min_age_hours=0, delete=True).places[0].going
    assert sorted(each.path.partition("/")[0] for each in gone) == ["fingerprints", "manifests", "predicted", "shards"]
    assert run(source=str(folder)).kept == 2, "what stays is not made again"


def test_a_photograph_on_its_side_is_stored_as_it_is_shown(
    run: Callable[..., PredictedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos", 1)
    (folder / "turned.jpg").write_bytes(photograph(20, 30, orientation=6))
    decode, decoded = masks.read_upright, list[str]()

    def noted(image: bytes, *, file: str) -> Any:
        decoded.append(file)
        return decode(image, file=file)

    monkeypatch.setattr(masks, "read_upright", noted)
    done = run(source=str(folder))
    assert sorted(decoded) == ["0.png", "turned.jpg"], "once each"
    assert done.quarantined == ()
    _, stored = sorted(open_dataset(done.uri).samples("images"), key=lambda each: each.sample_id)
    assert (stored.sample_id, stored.height, stored.width) == ("turned", 30, 20)
    shown = ImageOps.exif_transpose(Image.open(folder / "turned.jpg"))
    np.testing.assert_array_equal(masks.read_rgb(stored.image, file="x"), np.asarray(shown))
    assert masks.read_map(stored.label_map or b"", stored).shape == (30, 20)
