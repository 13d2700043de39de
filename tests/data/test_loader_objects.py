"""Training batches with objects, and with those of other images pasted on: still functions of few integers."""

import dataclasses

import pytest
import torch

from segpipe.config import AugmentConfig
from segpipe.data.augment import augment
from segpipe.data.decode import decode
from segpipe.data.loader import TrainBatches
from segpipe.data.objects import take
from segpipe.errors import InputError
from segpipe.shards import Dataset, open_dataset, publish, write_shard
from segpipe.types import Annotation, Sample
from tests.fixtures.cells import CELL_CLASSES, cells
from tests.fixtures.samples import manifest_of
from tests.fixtures.small import small_run


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """12 images full of objects, four to a shard."""
    uri = str(tmp_path_factory.mktemp("streets"))
    samples = [dataclasses.replace(cells(30, 36, sample_id=f"drive/{n:02d}"), keypoints=()) for n in range(12)]
    shards = [write_shard(samples[at : at + 4], uri, "train") for at in (0, 4, 8)]
    manifest = dataclasses.replace(
        manifest_of(shards, num_classes=4),
        annotations=(Annotation.LABEL_MAP, Annotation.SEGMENTS),
        classes=CELL_CLASSES,
        quarantined={},
        quarantine_path=None,
    )
    publish(uri, manifest)
    return open_dataset(uri)


def train_batches(dataset: Dataset, copy_paste: float, *, rank: int = 0, world_size: int = 1) -> TrainBatches:
    config = small_run(augment=AugmentConfig(crop=(24, 28), copy_paste=copy_paste)).train
    return TrainBatches(dataset, config, rank=rank, world_size=world_size)


def test_pasting_is_the_same_for_any_ranks_and_start(streets: Dataset) -> None:
    whole = [batch.images_N3HW for batch in train_batches(streets, 0.6).epoch(1)]
    resumed = [batch.images_N3HW for batch in train_batches(streets, 0.6).epoch(1, start=2)]
    assert all(torch.equal(one, other) for one, other in zip(resumed, whole[2:], strict=True))
    ranks = [list(train_batches(streets, 0.6, rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    for at, expected_N3HW in enumerate(whole):
        assert torch.equal(torch.cat([ranks[rank][at].images_N3HW for rank in range(2)]), expected_N3HW)
    plain = torch.cat([batch.images_N3HW for batch in train_batches(streets, 0.0).epoch(1)])
    untouched = (plain == torch.cat(whole)).all(3).all(2).all(1)
    assert 0 < int(untouched.sum()) < 12, "some crops are pasted upon, and the others are what they were"


def test_a_partner_is_another_sample_of_the_same_epoch_and_costs_no_reading(streets: Dataset) -> None:
    partners: list[str] = []
    dataset = open_dataset(streets.uri)
    one = dataset.one

    def note(split: str, row: int, *, extras: bool) -> Sample:
        partners.append(one(split, row, extras=extras).sample_id)
        return one(split, row, extras=extras)

    dataset.one = note  # type: ignore[method-assign]
    batches = train_batches(dataset, 1.0)
    order = [sample_id for at in range(3) for sample_id in batches.sample_ids(0, at)]
    assert len(list(batches.epoch(0))) == 3
    assert sorted(partners) == sorted([order[1], *order[:-1]]), "the one before it in the epoch"
    assert dataset._row_groups.loads == 3, "each row group once, as without"


def test_crops_have_objects_if_asked_for(streets: Dataset) -> None:
    config = small_run(augment=AugmentConfig(crop=(24, 28), copy_paste=0.6)).train
    with_objects, without = (
        list(TrainBatches(streets, config, rank=0, world_size=1, objects=objects).epoch(0)) for objects in (True, False)
    )
    for asked, unasked in zip(with_objects, without, strict=True):
        assert asked.objects is not None
        assert all(len(objects) and objects.masks_NHW.shape[1:] == (24, 28) for objects in asked.objects)
        assert unasked.objects is None
        assert asked.colours_N3 is not None
        assert unasked.colours_N3 is not None
        assert torch.equal(asked.colours_N3, unasked.colours_N3)
        assert torch.equal(asked.images_N3HW, unasked.images_N3HW)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """8 images of cells of which classes 0 and 1 are stuff; every third cell is a crowd, every fifth has a keypoint."""
    uri = str(tmp_path_factory.mktemp("mixed"))
    samples = [cells(30, 36, sample_id=f"drive/{n:02d}", crowds=True) for n in range(8)]
    samples = [
        dataclasses.replace(each, keypoints=tuple(k for k in each.keypoints if k.segment_id % 5 == 0))
        for each in samples
    ]
    manifest = dataclasses.replace(
        manifest_of([write_shard(samples, uri, "train")], num_classes=4),
        annotations=(Annotation.LABEL_MAP, Annotation.SEGMENTS, Annotation.KEYPOINTS),
        classes=tuple(dataclasses.replace(info, is_thing=k > 1) for k, info in enumerate(CELL_CLASSES)),
        quarantined={},
        quarantine_path=None,
    )
    publish(uri, manifest)
    return open_dataset(uri)


@pytest.mark.parametrize("keypoints", [True, False])
def test_objects_are_things_and_crowds_and_what_has_keypoints_that_are_asked_for(
    mixed: Dataset, keypoints: bool
) -> None:
    augment_config = AugmentConfig(crop=(24, 28), keypoint_pairs=())
    config = small_run(augment=augment_config).train
    batches = TrainBatches(mixed, config, rank=0, world_size=1, objects=True, keypoints=keypoints)
    rows = {sample.sample_id: sample for sample in mixed.samples("train")}
    left_out = 0
    for batch in batches.epoch(0):
        assert batch.objects is not None
        for sample_id, found in zip(batch.sample_ids, batch.objects, strict=True):
            stored = rows[sample_id] if keypoints else dataclasses.replace(rows[sample_id], keypoints=())
            draws = {"input_scale": config.input_scale, "seed": config.seed, "epoch": 0, "ignore_index": 255}
            every = augment(decode(stored), augment_config, source=stored, **draws).objects  # type: ignore[arg-type]
            assert every is not None
            posed = torch.tensor([keypoints and n % 5 == 0 for n in every.segment_ids_N.tolist()], dtype=torch.bool)
            kept_N = (every.class_ids_N > 1) | every.is_crowd_N | posed
            expected = take(every, kept_N)
            left_out += int((~kept_N).sum())
            for field in ("class_ids_N", "segment_ids_N", "is_crowd_N", "masks_NHW", "boxes_N4"):
                assert torch.equal(getattr(found, field), getattr(expected, field))
            assert (found.keypoints_NP3 is None) == (expected.keypoints_NP3 is None)
            if found.keypoints_NP3 is not None and expected.keypoints_NP3 is not None:
                assert torch.equal(found.keypoints_NP3, expected.keypoints_NP3)
    assert left_out > 8, "some stuff was there to be left out"


def test_pasting_from_a_dataset_without_objects_is_refused(streets: Dataset) -> None:
    manifest = dataclasses.replace(streets.manifest, annotations=(Annotation.LABEL_MAP,))
    bare = Dataset(streets.uri, manifest, streets.version)
    with pytest.raises(InputError, match=r"dataset .* has no segments to paste .*leave train.augment.copy_paste at 0"):
        train_batches(bare, 0.1)
