"""Augmentation: a pure function of (seed, epoch, sample id) under which the labels follow the image exactly."""

import hashlib
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from segpipe.config import AugmentConfig
from segpipe.data.augment import augment
from segpipe.data.colour import draw_colour
from segpipe.data.decode import DecodedSample
from segpipe.data.resize import resize_image, resize_labels
from segpipe.data.window import PADDING
from segpipe.errors import InputError

IGNORE = 255
STEP = 60  # grey levels between two classes: more than rounding, less than 255 / 4


def blocks(height: int = 40, width: int = 56, *, cell: int = 8, sample_id: str = "a/1") -> DecodedSample:
    """Square cells of classes 0..3, each painted in the grey that says its class."""
    draw = torch.Generator().manual_seed(height * 1000 + width)
    cells = torch.randint(0, 4, (-(-height // cell), -(-width // cell)), generator=draw, dtype=torch.uint8)
    labels_HW = cells.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width].contiguous()
    return DecodedSample(sample_id=sample_id, image_3HW=(labels_HW * STEP).expand(3, -1, -1), labels_HW=labels_HW)


def ramp(height: int, width: int) -> DecodedSample:
    """Every pixel different, in the image (row, column) and in the labels (int32 row * width + column)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image_3HW = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return DecodedSample(sample_id="ramp", image_3HW=image_3HW, labels_HW=(rows * width + columns).to(torch.int32))


def run(sample: DecodedSample, config: AugmentConfig, **changes: object) -> tuple[Tensor, Tensor]:
    settings = {"input_scale": 1.0, "seed": 0, "epoch": 0, "ignore_index": IGNORE, **changes}
    result = augment(sample, config, **settings)  # type: ignore[arg-type]
    assert result.labels_HW is not None
    assert result.sample_id == sample.sample_id
    return result.image_3HW, result.labels_HW


def inside_of_a_class(labels_hw: Tensor, reach: int) -> Tensor:
    """Where all pixels within `reach` are in the crop and hold the same id: there no resize mixes two colours."""
    ids = pad(labels_hw[None, None].float(), (reach, reach, reach, reach), value=-1.0)
    low = -max_pool2d(-ids, 2 * reach + 1, stride=1)
    high = max_pool2d(ids, 2 * reach + 1, stride=1)
    return (low == high)[0, 0]


def test_full_crop_at_scale_one_is_the_sample_itself() -> None:
    sample = blocks(33, 47)
    config = AugmentConfig(crop=(33, 47), scale=(1.0, 1.0), flip=0.0, colour=0.0)
    image_3hw, labels_hw = run(sample, config)
    assert torch.equal(image_3hw, sample.image_3HW)
    assert torch.equal(labels_hw, sample.labels_HW)


def test_a_crop_at_scale_one_is_a_window_of_image_and_labels_alike() -> None:
    sample, seen = ramp(30, 40), set()
    config = AugmentConfig(crop=(12, 17), scale=(1.0, 1.0), flip=0.5, colour=0.0)
    for epoch in range(40):
        image_3hw, labels_hw = run(sample, config, epoch=epoch)
        assert torch.equal(image_3hw[0].int() * 40 + image_3hw[1], labels_hw)
        assert len(labels_hw.unique()) == 12 * 17
        flipped = bool(labels_hw[0, 0] > labels_hw[0, -1])
        corner = int(labels_hw.min())
        seen.add((corner // 40, corner % 40, flipped))
    assert len(seen) > 30, "windows must differ from epoch to epoch"
    assert {flipped for *_, flipped in seen} == {True, False}


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    crop=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    scale=st.floats(0.3, 3.0),
    input_scale=st.sampled_from([0.5, 1.0, 2.0]),
    epoch=st.integers(0, 1000),
)
def test_any_size_gives_the_crop_and_labels_follow_the_image(
    height: int, width: int, crop: tuple[int, int], scale: float, input_scale: float, epoch: int
) -> None:
    sample = blocks(height, width, cell=12)
    config = AugmentConfig(crop=crop, scale=(scale * 0.8, scale * 1.25), flip=0.5, colour=0.0)
    image_3hw, labels_hw = run(sample, config, input_scale=input_scale, epoch=epoch)
    assert image_3hw.dtype == torch.uint8
    assert labels_hw.dtype == torch.uint8
    assert image_3hw.shape == (3, *crop)
    assert labels_hw.shape == crop
    padding = labels_hw == IGNORE
    assert bool((image_3hw[:, padding] == PADDING).all())
    assert not padding.all()
    # A border between two classes is as wide as one source pixel in the crop, and at least the antialiasing filter.
    sure = inside_of_a_class(labels_hw, math.ceil(scale * 1.25 * input_scale) + 1) & ~padding
    assert bool(((image_3hw[0].int() - labels_hw.int() * STEP).abs()[sure] <= 1).all())


def test_downscaled_labels_follow_the_image_too() -> None:
    config = AugmentConfig(crop=(30, 30), scale=(0.4, 0.6), flip=0.5, colour=0.0)
    agreed = total = 0
    for epoch in range(30):
        image_3hw, labels_hw = run(blocks(80, 80, cell=20), config, epoch=epoch)
        sure = inside_of_a_class(labels_hw, 2) & (labels_hw != IGNORE)
        agreed += int(((image_3hw[0].int() - labels_hw.int() * STEP).abs() <= 1)[sure].sum())
        total += int(sure.sum())
    assert total > 5000
    assert agreed / total > 0.999, "a shift of one pixel would break this"


def test_padding_surrounds_a_small_image_and_nothing_is_lost() -> None:
    sample = ramp(6, 9)
    config = AugmentConfig(crop=(16, 20), scale=(1.0, 1.0), flip=0.0, colour=0.0)
    places = set()
    for epoch in range(10):
        image_3hw, labels_hw = run(sample, config, epoch=epoch, ignore_index=65535)
        inside = labels_hw != 65535
        rows, columns = inside.nonzero(as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(labels_hw[top : top + 6, left : left + 9], sample.labels_HW)
        assert torch.equal(image_3hw[:, top : top + 6, left : left + 9], sample.image_3HW)
        assert int(inside.sum()) == 54
        assert bool((image_3hw[:, ~inside] == PADDING).all())
        places.add((top, left))
    assert len(places) > 3, "the image must not always lie in the same corner"


def test_the_same_key_gives_the_same_crop_and_another_key_another() -> None:
    config = AugmentConfig(crop=(20, 24))
    image_3hw, labels_hw = run(blocks(), config, seed=3, epoch=5)
    torch.manual_seed(99)
    np.random.seed(99)
    again_3hw, again_hw = run(blocks(), config, seed=3, epoch=5)
    assert torch.equal(image_3hw, again_3hw)
    assert torch.equal(labels_hw, again_hw)
    for other in (
        run(blocks(), config, seed=4, epoch=5),
        run(blocks(), config, seed=3, epoch=6),
        run(blocks(sample_id="a/2"), config, seed=3, epoch=5),
    ):
        assert not torch.equal(other[0], image_3hw)


def test_the_draws_are_those_of_every_earlier_training() -> None:
    """Scale, row, column, mirror, colours, in this order, from one generator: recorded runs must stay repeatable."""
    sample, config = ramp(90, 100), AugmentConfig(crop=(30, 40), colour=0.3)
    for epoch in range(30):
        draw = random.Random(hashlib.sha256(f"7/{epoch}/ramp".encode()).digest())
        scale = 0.9 * math.exp(draw.uniform(math.log(0.5), math.log(2.0)))
        high, wide = round(30 / scale), round(40 / scale)
        top, left = draw.randint(0, 90 - high), draw.randint(0, 100 - wide)
        labels_hw = resize_labels(sample.labels_HW[top : top + high, left : left + wide], (30, 40))  # type: ignore[index]
        image_3hw = resize_image(sample.image_3HW[:, top : top + high, left : left + wide], (30, 40))
        if draw.random() < 0.5:
            labels_hw, image_3hw = labels_hw.flip(-1), image_3hw.flip(-1)
        ours = augment(sample, config, input_scale=0.9, seed=7, epoch=epoch, ignore_index=IGNORE)
        assert torch.equal(ours.labels_HW, labels_hw)  # type: ignore[arg-type]
        assert torch.equal(ours.image_3HW, image_3hw)
        assert ours.colour == draw_colour(0.3, draw)


def test_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(blocks(), AugmentConfig(crop=(20, 24)))
    assert torch.equal(torch.rand(3), expected)


def test_the_sample_is_not_changed() -> None:
    sample = blocks()
    before = blocks()
    for crop in ((40, 56), (20, 24), (90, 90)):
        image_3hw, labels_hw = run(sample, AugmentConfig(crop=crop, scale=(1.0, 1.0), flip=0.0, colour=0.5))
        assert image_3hw.shape[1:] == labels_hw.shape == crop
    assert torch.equal(sample.image_3HW, before.image_3HW)
    assert torch.equal(sample.labels_HW, before.labels_HW)


def test_scale_is_drawn_around_the_input_scale() -> None:
    """A cell of 12 source pixels is 12 x scale pixels wide in the crop."""
    config = AugmentConfig(crop=(64, 64), scale=(1.0, 1.0), flip=0.0, colour=0.0)
    for input_scale in (0.5, 1.0, 2.0):
        _, labels_hw = run(ramp(200, 200), config, input_scale=input_scale)
        rows = labels_hw[:, 0] // 200
        assert int(rows[-1] - rows[0]) + 1 == pytest.approx(64 / input_scale, abs=2)


def test_flip_has_its_share_and_every_crop_a_colour_of_its_own() -> None:
    config = AugmentConfig(crop=(8, 8), scale=(1.0, 1.0), flip=0.25, colour=0.3)
    flips, colours = 0, set()
    for epoch in range(200):
        result = augment(ramp(8, 8), config, input_scale=1.0, seed=0, epoch=epoch, ignore_index=IGNORE)
        colours.add(result.colour)
        assert result.labels_HW is not None
        flips += int(result.labels_HW[0, 0] != 0)
    assert 25 < flips < 75
    assert len(colours) == 200
    plain = augment(
        ramp(8, 8), config.model_copy(update={"colour": 0.0}), input_scale=1.0, seed=0, epoch=0, ignore_index=IGNORE
    )
    assert plain.colour is None


def test_a_sample_without_labels_is_refused_by_name() -> None:
    sample = DecodedSample(sample_id="a/7", image_3HW=torch.zeros(3, 4, 4, dtype=torch.uint8), labels_HW=None)
    with pytest.raises(InputError, match="sample a/7: has no label map"):
        run(sample, AugmentConfig(crop=(4, 4)))


def test_resizing_to_the_same_size_is_free_and_labels_take_the_nearest_centre() -> None:
    sample = ramp(4, 6)
    assert resize_image(sample.image_3HW, (4, 6)) is sample.image_3HW
    assert sample.labels_HW is not None
    assert resize_labels(sample.labels_HW, (4, 6)) is sample.labels_HW
    assert resize_labels(sample.labels_HW, (2, 2)).tolist() == [[7, 10], [19, 22]]
    assert resize_labels(sample.labels_HW, (8, 12))[::2, ::2].tolist() == sample.labels_HW.tolist()
