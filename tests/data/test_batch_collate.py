"""Samples -> a batch: in order, as narrow as they are stored, and without what one of them lacks."""

from dataclasses import replace

import torch

from segpipe.data.batch import collate, laid
from segpipe.data.decode import DecodedSample, decode
from tests.fixtures.cells import cells


def painted(n: int) -> DecodedSample:
    return DecodedSample(
        sample_id=f"s/{n}",
        image_3HW=torch.full((3, 4, 5), n, dtype=torch.uint8),
        labels_HW=torch.full((4, 5), 255 - n, dtype=torch.uint8),
    )


def test_samples_are_stacked_in_order_with_their_labels() -> None:
    batch = collate([painted(n) for n in range(3)])
    assert batch.images_N3HW[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.labels_NHW is not None
    assert batch.labels_NHW.dtype == torch.uint8, "widened on the device only"
    assert batch.labels_NHW[:, 0, 0].tolist() == [255, 254, 253]
    assert batch.sample_ids == ("s/0", "s/1", "s/2")
    assert batch.original_sizes == ((4, 5),) * 3


def test_images_laid_into_a_batch_are_that_batch() -> None:
    samples = [painted(n) for n in range(3)]
    images_NHW3 = torch.empty(3, 4, 5, 3, dtype=torch.uint8)
    placed = [laid(sample, image_HW3) for sample, image_HW3 in zip(samples, images_NHW3, strict=True)]
    batch, stacked = collate(placed, images_N3HW=images_NHW3.permute(0, 3, 1, 2)), collate(samples)
    assert torch.equal(batch.images_N3HW, stacked.images_N3HW)
    assert batch.images_N3HW.stride() == stacked.images_N3HW.stride()
    assert batch.images_N3HW.data_ptr() == images_NHW3.data_ptr(), "nothing is copied once more"
    assert batch.original_sizes == stacked.original_sizes
    assert all(torch.equal(one.image_3HW, other.image_3HW) for one, other in zip(placed, samples, strict=True))


def test_what_one_sample_lacks_the_batch_lacks() -> None:
    batch = collate([painted(0), replace(painted(1), labels_HW=None)])
    assert batch.labels_NHW is None
    assert (batch.objects, batch.samples, batch.colours_N3) == (None, None, None)


def test_a_batch_of_whole_images_carries_the_rows_that_they_come_from() -> None:
    stored = [cells(16, 24, sample_id=f"s/{n}") for n in range(2)]
    batch = collate([decode(sample, objects=True) for sample in stored])
    assert batch.samples is not None
    assert all(found is sample for found, sample in zip(batch.samples, stored, strict=True))
    assert batch.objects is not None
    assert [len(objects) for objects in batch.objects] == [len(sample.segments) for sample in stored]
