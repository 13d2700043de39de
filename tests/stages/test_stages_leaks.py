"""Images that a model was trained on and is scored by: found by their bytes or their id, in any training behind it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import checkpoint, storage
from segpipe.errors import CorruptError, InputError
from segpipe.shards import Dataset, make_split, open_dataset, publish, write_shard
from segpipe.stages import layout
from segpipe.stages.ensemble import combine
from segpipe.stages.identity import resolve
from segpipe.stages.leaks import compare, leak
from segpipe.stages.origins import origin_of
from segpipe.train.session import TrainJob
from segpipe.types import Sample
from tests.fixtures.small import CLASSES, publish_small, small_run, small_samples
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
TEST = list(small_samples("test", 6))
TRAIN = list(small_samples("train", 6))


def published(uri: Path, *, train: Sequence[Sample], test: Sequence[Sample], name: str = "shapes") -> Dataset:
    """A dataset of these samples alone, two shards a split."""
    publish_small(f"{uri}-base")
    splits = {
        split: make_split([write_shard(each, str(uri), split) for each in (samples[:3], samples[3:])], len(CLASSES))
        for split, samples in (("train", train), ("test", test))
    }
    manifest = replace(open_dataset(f"{uri}-base").manifest, splits=splits, dataset=name)
    return open_dataset(str(uri), version=publish(str(uri), manifest)[0])


def test_splits_that_share_nothing_have_no_leak(tmp_path: Path) -> None:
    data = published(tmp_path / "data", train=TRAIN, test=TEST)
    assert compare(data, "test", [(data, "train")]) is None


def test_the_same_bytes_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    copies = [replace(sample, sample_id=f"train/{place}") for place, sample in enumerate(TEST[1:6])]
    data = published(tmp_path / "data", train=[*TRAIN[:2], *copies], test=TEST)
    found = compare(data, "test", [(data, "train")])
    assert found is not None
    assert dict(found.seen) == {f"test/000{place + 1}": f"train/train/{place}" for place in range(5)}
    assert str(found) == (
        "5 of 6 evaluation images: test/test/0001 = train/train/0, test/test/0002 = train/train/1, "
        "test/test/0003 = train/train/2 and 2 more"
    )


def test_two_copies_of_one_evaluation_image_count_twice(tmp_path: Path) -> None:
    twice = [*TEST, replace(TEST[0], sample_id="test/copy")]
    data = published(tmp_path / "data", train=[*TRAIN, replace(TEST[0], sample_id="train/copy")], test=twice)
    found = compare(data, "test", [(data, "train")])
    assert found is not None
    assert list(found.seen) == ["test/0000", "test/copy"]


def test_a_sample_that_was_in_another_split_is_found_by_its_id_though_it_was_encoded_anew(tmp_path: Path) -> None:
    data = published(tmp_path / "new", train=TRAIN, test=TEST)
    was = replace(TRAIN[3], sample_id="test/0003")
    before = published(tmp_path / "old", train=[*TRAIN[:3], was], test=TEST)
    found = compare(data, "test", [(before, "train")])
    assert found is not None
    assert dict(found.seen) == {"test/0003": f"train/test/0003 of version {before.version[:8]}"}
    other = published(tmp_path / "other", train=[*TRAIN[:3], was], test=TEST, name="another")
    assert compare(data, "test", [(other, "train")]) is None, "ids of another dataset mean other images"


def test_a_model_is_asked_for_the_split_that_it_was_trained_on(shapes: Shapes, tmp_path: Path) -> None:
    data = open_dataset(shapes.data, version=shapes.version)
    origin = origin_of(shapes.result.model_uri)
    assert leak(origin, data, "test") is None
    found = leak(origin, data, "train")
    assert found is not None
    assert (len(found.seen), found.evaluated) == (16, 16)


def test_what_a_training_started_from_and_members_of_an_ensemble_count_as_well(shapes: Shapes, tmp_path: Path) -> None:
    data = open_dataset(shapes.data, version=shapes.version)
    parent = resolve(small_run(epochs=1, train_split="test", batch_size=2).model_copy(update={"label": "parent"}))
    child = shapes.run.model_copy(update={"label": "child", "start_from": parent})
    shapes.train(tmp_path, parent)
    started = shapes.train(tmp_path, child)
    origin = origin_of(started.model_uri)
    assert [(each.role, each.label, each.train_split) for each in origin.trainings] == [
        ("training", "child", "train"),
        ("start_from", "parent", "test"),
    ]
    assert origin.trainings[1].run_uri == str(next(tmp_path.glob("parent-*")))
    assert leak(origin, data, "test") is not None
    both = resolve(shapes.run.model_copy(update={"label": "both", "arch": "ensemble", "members": (shapes.run, child)}))
    run_uri = str(tmp_path / "both")
    storage.write_json_once(f"{run_uri}/run.json", both.identity)
    job = TrainJob(run=both, data=shapes.data, version=shapes.version, run_uri=run_uri, code_version="test")
    together = combine(job, [shapes.result, started], cpus=1, runtime="local")
    ensemble = origin_of(together.model_uri)
    assert [each.role for each in ensemble.trainings] == ["member", "member", "start_from"]
    assert leak(ensemble, data, "test") is not None


def test_a_model_whose_origin_is_not_stored_says_so(shapes: Shapes, tmp_path: Path) -> None:
    run = shapes.copy_run(tmp_path)
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"run.json: no such file; it says what the model was trained on"):
        origin_of(checkpoint.model_uri(str(run)))
    (run / "run.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"run.json: is not the recipe \w{12} that the model beside it names"):
        origin_of(checkpoint.model_uri(str(run)))


def test_a_dataset_version_that_is_gone_is_looked_for_in_the_home_as_well(shapes: Shapes, tmp_path: Path) -> None:
    origin = origin_of(shapes.result.model_uri)
    elsewhere = published(tmp_path / "elsewhere", train=TRAIN, test=TEST)
    with pytest.raises(InputError, match=r"is not in .*elsewhere or .*datasets/shapes; restore it from a copy"):
        leak(origin, elsewhere, "train")
    publish_small(layout.dataset_uri("shapes"))
    found = leak(origin, elsewhere, "train")
    assert found is not None
    assert list(found.seen) == [sample.sample_id for sample in TRAIN]
