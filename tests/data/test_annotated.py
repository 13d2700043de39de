"""Samples that nobody annotated are refused in training and evaluation alike; images without objects are not."""

import dataclasses
from pathlib import Path

import pytest

from segpipe.config import AugmentConfig
from segpipe.data.loader import EvalBatches, TrainBatches
from segpipe.errors import InputError
from segpipe.shards import Dataset, open_dataset, publish, write_shard
from segpipe.types import Annotation
from tests.fixtures.cells import CELL_CLASSES, cells
from tests.fixtures.samples import manifest_of
from tests.fixtures.small import small_run


def published(folder: Path, *annotations: Annotation) -> Dataset:
    """8 images of one split, of which the third and the sixth have nothing but themselves."""
    samples = [dataclasses.replace(cells(24, 28, sample_id=f"clip/{n}"), keypoints=()) for n in range(8)]
    for number in (2, 5):
        samples[number] = dataclasses.replace(samples[number], label_map=None, segment_map=None, segments=())
    manifest = dataclasses.replace(
        manifest_of([write_shard(samples, str(folder), "train")], num_classes=4),
        annotations=annotations,
        classes=CELL_CLASSES,
        quarantined={},
        quarantine_path=None,
    )
    publish(str(folder), manifest)
    return open_dataset(str(folder))


def train_batches(dataset: Dataset, copy_paste: float = 0.0) -> TrainBatches:
    config = small_run(augment=AugmentConfig(crop=(16, 16), copy_paste=copy_paste)).train
    return TrainBatches(dataset, config, rank=0, world_size=1, objects=True)


@pytest.mark.parametrize("copy_paste", [0.0, 1.0])
def test_who_trains_or_scores_by_them_is_told_how_many_there_are(tmp_path: Path, copy_paste: float) -> None:
    dataset = published(tmp_path, Annotation.LABEL_MAP, Annotation.SEGMENTS)
    told = r"sample 'clip/[25]' of split 'train' has no label map, as 2 of its 8: .* option unlabelled=false"
    with pytest.raises(InputError, match=told):
        list(train_batches(dataset, copy_paste).epoch(0))
    with pytest.raises(InputError, match=told):
        list(EvalBatches(dataset, "train", batch_size=4))


def test_an_image_without_objects_is_one_where_nothing_is_labelled_by_pixels(tmp_path: Path) -> None:
    dataset = published(tmp_path, Annotation.SEGMENTS)
    shown = [batch.objects for batch in train_batches(dataset).epoch(0)]
    assert sum(len(objects) > 0 for of_batch in shown for objects in of_batch or ()) == 6
    assert sum(len(batch.sample_ids) for batch in EvalBatches(dataset, "train", batch_size=4)) == 8
