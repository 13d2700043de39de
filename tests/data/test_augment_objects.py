"""Crops with objects: image, labels, masks, boxes and keypoints move together under every option."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import max_pool2d, pad
from torchvision.ops import masks_to_boxes

from segpipe.config import AugmentConfig
from segpipe.data.augment import augment
from segpipe.data.copy_paste import pasteable
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.objects import Objects
from segpipe.errors import InputError
from segpipe.types import Keypoints, Sample, Segment
from tests.fixtures.cells import CELL_CLASSES, STEP, cells

IGNORE = 255
OTHER = cells(30, 44, cell=12, sample_id="other", masks="rle")
EVERYTHING = {"vertical_flip": 0.5, "rotation": 30.0, "elastic": 2.0, "blur": 0.5, "copy_paste": 0.7}


def settings(**changes: Any) -> AugmentConfig:
    return AugmentConfig(**{"crop": (32, 40), "keypoint_pairs": (), "colour": 0.0, **changes})


def crop_of(sample: Sample, config: AugmentConfig, **changes: Any) -> DecodedSample:
    keys = {"input_scale": 1.0, "seed": 0, "epoch": 0, "ignore_index": IGNORE, "source": sample, **changes}
    return augment(decode(sample), config, partner=lambda: pasteable(OTHER, CELL_CLASSES), **keys)


def objects_of(crop: DecodedSample) -> Objects:
    assert crop.objects is not None
    return crop.objects


def tensors_of(crop: DecodedSample) -> list[torch.Tensor]:
    objects = objects_of(crop)
    fields = [getattr(objects, field.name) for field in dataclasses.fields(objects)]
    return [tensor for tensor in (crop.image_3HW, crop.labels_HW, *fields) if tensor is not None]


def same(one: DecodedSample, other: DecodedSample) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def assert_whole(crop: DecodedSample, *, reach: int) -> None:
    """All that a crop of `cells` must hold. Colours mix within `reach` pixels of a border between two objects."""
    objects, labels_hw = objects_of(crop), crop.labels_HW
    assert labels_hw is not None
    size = crop.image_3HW.shape[1:]
    assert labels_hw.shape == size
    assert objects.masks_NHW.shape == (len(objects), *size)
    inside_hw = labels_hw != IGNORE
    assert crop.outside_HW is not None
    assert torch.equal(crop.outside_HW, ~inside_hw)
    covered_hw = objects.masks_NHW.sum(0)
    assert torch.equal(covered_hw > 0, inside_hw), "every pixel of an image belongs to an object"
    assert covered_hw.max() <= 1, "and to one only"
    for number in range(len(objects)):
        assert bool((labels_hw[objects.masks_NHW[number]] == objects.class_ids_N[number]).all())
    if len(objects):
        assert torch.equal(objects.boxes_N4, masks_to_boxes(objects.masks_NHW) + torch.tensor([0, 0, 1, 1]))
    assert len(objects.segment_ids_N.unique()) == len(objects)
    numbers_hw = (objects.masks_NHW * torch.arange(1, len(objects) + 1)[:, None, None]).sum(0)
    ids = pad(numbers_hw[None, None].float(), (reach,) * 4, value=-1.0)
    low, high = -max_pool2d(-ids, 2 * reach + 1, stride=1), max_pool2d(ids, 2 * reach + 1, stride=1)
    sure_hw = (low == high)[0, 0] & inside_hw
    assert bool(((crop.image_3HW[0].int() - labels_hw.int() * STEP).abs()[sure_hw] <= 1).all())


def assert_keypoints_on_their_object(objects: Objects, *, exactly: bool) -> int:
    """Each keypoint that is seen lies on a pixel of its object, up to one pixel if not `exactly`; their number."""
    assert objects.keypoints_NP3 is not None
    reach = 0 if exactly else 1
    near_NHW = max_pool2d(objects.masks_NHW[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0
    seen = (objects.keypoints_NP3[..., 2] == 2).nonzero().tolist()
    for number, place in seen:
        x, y, _ = objects.keypoints_NP3[number, place].tolist()
        assert near_NHW[number, math.floor(y + 0.5), math.floor(x + 0.5)]
    return len(seen)


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    scale=st.floats(0.3, 3.0),
    masks=st.sampled_from(["map", "rle"]),
    rotation=st.sampled_from([0.0, 15.0, 180.0]),
    elastic=st.sampled_from([0.0, 1.0]),
    copy_paste=st.sampled_from([0.0, 1.0]),
    epoch=st.integers(0, 1000),
)
def test_everything_moves_together(
    size: tuple[int, int],
    crop: tuple[int, int],
    scale: float,
    masks: Any,
    rotation: float,
    elastic: float,
    copy_paste: float,
    epoch: int,
) -> None:
    turned = {"rotation": rotation, "elastic": elastic, "vertical_flip": 0.5, "copy_paste": copy_paste}
    config = settings(crop=crop, scale=(scale * 0.8, scale * 1.25), **turned)
    sample = cells(*size, cell=12, masks=masks)
    assert_whole(crop_of(sample, config, epoch=epoch), reach=math.ceil(scale * 1.25) + 3)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    scale=st.floats(1.0, 4.0),
    epoch=st.integers(0, 1000),
    cell=st.integers(1, 3),
)
def test_a_keypoint_stays_on_its_very_pixel(size: tuple[int, int], scale: float, epoch: int, cell: int) -> None:
    """Objects of one pixel and a few: at no smaller a scale than 1, no pixel of the source is left out."""
    config = settings(crop=(100, 100), scale=(scale, scale), vertical_flip=0.5)
    objects = objects_of(crop_of(cells(*size, cell=cell), config, epoch=epoch))
    seen = assert_keypoints_on_their_object(objects, exactly=True)
    if max(size) * scale < 100:
        assert seen == len(objects) == math.ceil(size[0] / cell) * math.ceil(size[1] / cell)


def test_a_keypoint_lies_in_the_middle_of_what_its_pixel_has_become() -> None:
    config = settings(crop=(40, 40), scale=(3.0, 3.0), vertical_flip=0.5)
    for epoch in range(8):
        objects = objects_of(crop_of(cells(9, 11, cell=1), config, epoch=epoch))
        assert len(objects) == 99
        assert objects.keypoints_NP3 is not None
        middle_N2 = (objects.boxes_N4[:, :2] + objects.boxes_N4[:, 2:] - 1) / 2
        assert torch.equal(objects.keypoints_NP3[:, 0, :2], middle_N2)


@given(rotation=st.floats(0.0, 180.0), elastic=st.floats(0.0, 3.0), epoch=st.integers(0, 1000))
def test_a_keypoint_follows_every_warp(rotation: float, elastic: float, epoch: int) -> None:
    config = settings(crop=(64, 64), scale=(1.0, 2.0), rotation=rotation, elastic=elastic, vertical_flip=0.5)
    objects = objects_of(crop_of(cells(60, 60, cell=9), config, epoch=epoch))
    assert assert_keypoints_on_their_object(objects, exactly=False)


def test_a_one_pixel_object_survives_and_a_smaller_one_than_asked_does_not() -> None:
    spot = cells(9, 9, cell=3)
    ids = bytearray(spot.segment_map or b"")
    ids[2 * (4 * 9 + 4)] = 77
    spot = dataclasses.replace(
        spot, segment_map=bytes(ids), segments=(*spot.segments, Segment(segment_id=77, class_id=1, area=1))
    )
    config = settings(crop=(9, 9), scale=(1.0, 1.0), flip=0.0)
    objects = objects_of(crop_of(spot, config))
    assert objects.segment_ids_N.tolist()[-1] == 77
    assert objects.boxes_N4[-1].tolist() == [4, 4, 5, 5]
    fewer = objects_of(crop_of(spot, settings(crop=(9, 9), scale=(1.0, 1.0), flip=0.0, min_area=2)))
    assert fewer.segment_ids_N.tolist() == list(range(1, 10))


def test_hundreds_of_objects_and_none() -> None:
    crowded = crop_of(cells(20, 20, cell=1), settings(crop=(20, 20), scale=(1.0, 1.0), rotation=20.0))
    assert len(objects_of(crowded)) > 255
    assert_whole(crowded, reach=9)
    empty = dataclasses.replace(cells(20, 20), segments=(), keypoints=(), segment_map=None)
    for config in (settings(), settings(**{**EVERYTHING, "copy_paste": 0.0})):
        objects = objects_of(crop_of(empty, config))
        assert len(objects) == 0
        assert objects.masks_NHW.shape == (0, 32, 40)
        assert objects.keypoints_NP3 is None


def test_crowds_stay_crowds() -> None:
    sample = cells(40, 40, crowds=True)
    objects = objects_of(crop_of(sample, settings(rotation=10.0)))
    said = {segment.segment_id: segment.is_crowd for segment in sample.segments}
    assert objects.is_crowd_N.tolist() == [said[each] for each in objects.segment_ids_N.tolist()]
    assert objects.is_crowd_N.any()


def test_objects_need_no_label_map() -> None:
    sample = dataclasses.replace(cells(40, 40), label_map=None)
    crop = crop_of(sample, settings(**{**EVERYTHING, "copy_paste": 0.0}))
    assert crop.labels_HW is None
    with_labels = crop_of(cells(40, 40), settings(**{**EVERYTHING, "copy_paste": 0.0}))
    assert torch.equal(objects_of(crop).masks_NHW, objects_of(with_labels).masks_NHW)


def test_colours_and_blur_touch_the_image_only() -> None:
    plain, coloured = settings(rotation=9.0), settings(rotation=9.0, colour=0.9, blur=1.0)
    one, other = crop_of(cells(40, 50), plain), crop_of(cells(40, 50), coloured)
    assert not torch.equal(one.image_3HW, other.image_3HW)
    assert same(one, dataclasses.replace(other, image_3HW=one.image_3HW))
    assert one.colour is None
    assert other.colour is not None


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (5, 3), (40, 50)])
def test_degenerate_crops_are_crops_too(size: tuple[int, int]) -> None:
    config = settings(**{**EVERYTHING, "blur": 1.0, "copy_paste": 1.0, "colour": 0.5, "crop": size})
    for source in ((1, 1), (1, 40), (40, 1), (33, 47)):
        crop = crop_of(cells(*source), config)
        assert crop.image_3HW.shape == (3, *size)
        assert objects_of(crop).masks_NHW.shape[1:] == size


def test_the_same_key_gives_the_same_bytes_in_any_thread_and_order() -> None:
    config = settings(**EVERYTHING, colour=0.4)
    keys = [(number, epoch) for number in range(6) for epoch in range(4)]
    samples = [cells(30, 40, sample_id=f"drive/{number}") for number in range(6)]

    def crop_at(key: tuple[int, int]) -> DecodedSample:
        return crop_of(samples[key[0]], config, epoch=key[1])

    alone = {key: crop_at(key) for key in keys}
    torch.manual_seed(99)
    with ThreadPoolExecutor(4) as pool:
        again = dict(zip(reversed(keys), pool.map(crop_at, reversed(keys)), strict=True))
    assert all(same(alone[key], again[key]) for key in keys)
    images = {crop.image_3HW.numpy().tobytes() for crop in alone.values()}
    assert len(images) == len(keys), "another epoch or another sample is another crop"
    assert not same(alone[0, 0], crop_of(samples[0], config, epoch=0, seed=1))


def test_an_option_that_is_switched_on_leaves_the_draws_of_the_others() -> None:
    """Blur at a share of 0 or 1 changes no window; a turn upside down is the same window, turned."""
    plain = crop_of(cells(40, 50), settings())
    upside_down = crop_of(cells(40, 50), settings(vertical_flip=1.0))
    assert torch.equal(plain.image_3HW, upside_down.image_3HW.flip(-2))
    coloured, blurred = (crop_of(cells(40, 50), settings(colour=0.5, blur=blur)) for blur in (0.0, 1.0))
    assert coloured.colour == blurred.colour
    assert not torch.equal(coloured.image_3HW, blurred.image_3HW)
    assert torch.equal(objects_of(plain).masks_NHW, objects_of(upside_down).masks_NHW.flip(-2))


def test_a_mirror_exchanges_left_and_right_and_a_half_turn_does_not() -> None:
    points = ((2.0, 3.0, 2), (5.0, 6.0, 2), (1.0, 7.0, 1))
    sample = dataclasses.replace(cells(8, 8), keypoints=(Keypoints(segment_id=1, points=points),))
    plain = {"crop": (8, 8), "scale": (1.0, 1.0), "keypoint_pairs": ((0, 1),)}
    expected = {
        (0.0, 0.0): [[2, 3, 2], [5, 6, 2], [1, 7, 1]],
        (1.0, 0.0): [[2, 6, 2], [5, 3, 2], [6, 7, 1]],
        (0.0, 1.0): [[5, 1, 2], [2, 4, 2], [1, 0, 1]],
        (1.0, 1.0): [[5, 4, 2], [2, 1, 2], [6, 0, 1]],
    }
    for (flip, vertical_flip), seen in expected.items():
        crop = crop_of(sample, settings(**plain, flip=flip, vertical_flip=vertical_flip))
        keypoints_NP3 = objects_of(crop).keypoints_NP3
        assert keypoints_NP3 is not None
        assert keypoints_NP3[0].tolist() == seen


def test_keypoints_without_pairs_are_not_mirrored_unasked() -> None:
    unsaid = settings(keypoint_pairs=None)
    with pytest.raises(InputError, match=r"sample cells: has keypoints, .*train.augment.keypoint_pairs"):
        crop_of(cells(8, 8), unsaid)
    assert len(objects_of(crop_of(cells(8, 8), settings(keypoint_pairs=None, flip=0.0))))
    crop_of(dataclasses.replace(cells(8, 8), keypoints=()), unsaid)
    with pytest.raises(InputError, match=r"keypoint_pairs names \(0, 1\), but an object has 1 keypoints, 0 to 0"):
        crop_of(cells(8, 8), settings(keypoint_pairs=((0, 1),), flip=1.0))
    # Who trains on labels only has no keypoints to mirror, though the dataset may, and the partner's are dropped.
    assert crop_of(cells(8, 8), settings(keypoint_pairs=None, copy_paste=1.0), source=None).objects is None
