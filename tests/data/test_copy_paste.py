"""Copy-paste: pixels, labels and objects of one crop over another, and nothing of it that is not an object."""

import dataclasses
import random

import pytest
import torch

from segpipe.data.copy_paste import paste, pasteable, unfit
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.objects import boxes_of, moved
from segpipe.types import Annotation, ClassInfo, Keypoints, Sample
from tests.fixtures.cells import CELL_CLASSES, STEP, cells

STREET = (ClassInfo(name="road", colour=(0, 0, 0)), *CELL_CLASSES[1:])


def whole(sample: Sample) -> DecodedSample:
    return decode(sample, objects=True)


def white(height: int, width: int, *, cell: int) -> DecodedSample:
    """Objects of class 3 only, in white, so that it shows what was pasted."""
    sample = whole(cells(height, width, cell=cell, sample_id="white"))
    assert sample.objects is not None
    return dataclasses.replace(
        sample,
        image_3HW=torch.full_like(sample.image_3HW, 255),
        labels_HW=torch.full((height, width), 3, dtype=torch.uint8),
        objects=dataclasses.replace(sample.objects, class_ids_N=torch.full_like(sample.objects.class_ids_N, 3)),
    )


def test_what_is_pasted_covers_pixels_labels_and_masks_alike() -> None:
    below, above = whole(cells(24, 24, cell=6)), white(24, 24, cell=8)
    numbers = set()
    for seed in range(30):
        result = paste(below, above, random.Random(seed), min_area=1)
        objects, labels_HW = result.objects, result.labels_HW
        assert objects is not None
        assert labels_HW is not None
        pasted_HW = result.image_3HW[0] == 255
        new = [number for number, each in enumerate(objects.segment_ids_N.tolist()) if each > 16]
        numbers.add(len(new))
        assert torch.equal(pasted_HW, objects.masks_NHW[new].any(0))
        assert bool((labels_HW[pasted_HW] == 3).all())
        assert torch.equal(labels_HW[~pasted_HW], below.labels_HW[~pasted_HW])  # type: ignore[index]
        assert torch.equal(result.image_3HW[0][~pasted_HW], labels_HW[~pasted_HW] * STEP)
        assert objects.masks_NHW.sum(0).unique().tolist() == [1], "what is covered is cut out of the masks below"
        assert objects.masks_NHW.any(2).any(1).all(), "and what is fully hidden is gone"
        assert torch.equal(objects.boxes_N4, boxes_of(objects.masks_NHW))
        assert len(objects.segment_ids_N.unique()) == len(objects)
    assert len(numbers) > 3, "a random part of the objects"
    assert numbers <= set(range(10))


def test_a_crop_without_labels_or_objects_gets_none() -> None:
    below, above = whole(cells(12, 12)), white(12, 12, cell=4)
    draw = random.Random(1)
    image_only = paste(dataclasses.replace(below, labels_HW=None, objects=None), above, draw, min_area=1)
    assert image_only.labels_HW is None
    assert image_only.objects is None
    assert not torch.equal(image_only.image_3HW, below.image_3HW)
    for lack in ({"objects": None}, {"labels_HW": None}):
        with pytest.raises(ValueError, match="sample white: pasted without"):
            paste(below, dataclasses.replace(above, **lack), draw, min_area=1)  # type: ignore[arg-type]


def test_a_covered_keypoint_is_hidden_from_then_on() -> None:
    points = ((2.0, 2.0, 2), (2.0, 3.0, 0), (9.0, 9.0, 1), (9.0, 8.0, 2))
    below = whole(dataclasses.replace(cells(12, 12, cell=12), keypoints=(Keypoints(segment_id=1, points=points),)))
    above = white(12, 12, cell=6)
    assert above.objects is not None
    left_half = moved(above.objects, above.objects.masks_NHW & (torch.arange(12) < 6), None)
    for seed in range(20):
        result = paste(below, dataclasses.replace(above, objects=left_half), random.Random(seed), min_area=1).objects
        assert result is not None
        assert result.keypoints_NP3 is not None
        corner = bool(result.masks_NHW[1:, 2, 2].any())
        assert result.keypoints_NP3[0].tolist() == [[2, 2, 1 if corner else 2], [0, 0, 0], [9, 9, 1], [9, 8, 2]]
        assert not result.keypoints_NP3[1:].any(), "the pasted ones have none, and are filled up"


def test_objects_that_shrink_below_the_least_area_go() -> None:
    below, above = whole(cells(12, 12, cell=4)), white(12, 12, cell=6)
    for seed in range(20):
        objects = paste(below, above, random.Random(seed), min_area=5).objects
        assert objects is not None
        assert int(objects.masks_NHW.sum((1, 2)).min()) >= 5


def test_only_single_things_are_pasted() -> None:
    sample = cells(24, 24, cell=8, crowds=True)
    kept = pasteable(sample, STREET).segments
    assert kept == tuple(each for each in sample.segments if each.class_id > 0 and each.segment_id % 3)
    assert 0 < len(kept) < len(sample.segments)
    assert pasteable(sample, STREET).image == sample.image


def test_a_dataset_with_nothing_to_paste_is_told_so() -> None:
    both = (Annotation.LABEL_MAP, Annotation.SEGMENTS)
    assert unfit(both, STREET) is None
    assert "has no segments to paste" in str(unfit((Annotation.LABEL_MAP,), STREET))
    assert "has no class that is a thing" in str(unfit(both, STREET[:1]))
