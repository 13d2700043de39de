"""Regions pooled from a map by RoIPool and RoIAlign, and the two networks that take proposals from outside.

The numbers of the pooling examples are worked by hand or by explicit loops, on one 8 x 8 map.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.given_proposals import CropAndWarp, RegionPool, build_fast_rcnn, build_rcnn
from segpipe.models.spec import RegionTarget

MAP_HW = torch.tensor(
    [
        [0.1, 0.3, 0.2, 0.3, 0.2, 0.6, 0.8, 0.9],
        [0.4, 0.5, 0.1, 0.4, 0.7, 0.1, 0.4, 0.3],
        [0.2, 0.1, 0.3, 0.8, 0.6, 0.2, 0.1, 0.1],
        [0.4, 0.6, 0.2, 0.1, 0.3, 0.6, 0.1, 0.2],
        [0.1, 0.8, 0.3, 0.3, 0.5, 0.3, 0.3, 0.3],
        [0.2, 0.9, 0.4, 0.5, 0.1, 0.1, 0.1, 0.2],
        [0.3, 0.1, 0.8, 0.6, 0.3, 0.3, 0.6, 0.5],
        [0.5, 0.5, 0.2, 0.1, 0.1, 0.2, 0.1, 0.2],
    ]
)
# 7 columns and 5 rows: columns 0..6 and rows 3..7 of the map, whose cells are pixels here.
SEVEN_BY_FIVE = [0.0, 3.0, 7.0, 8.0]


def pooled(pooling: str, box: list[float], size: int = 2, stride: int = 1, features_HW: Tensor = MAP_HW) -> Tensor:
    pool = RegionPool(pooling, size, stride)
    return pool({"0": features_HW[None, None]}, [torch.tensor([box])], None)[0, 0]


def bilinear(y: float, x: float, features_HW: Tensor = MAP_HW) -> float:
    """The map at a place, each cell's value standing at its middle, (row + 0.5, column + 0.5); constant beyond."""
    height, width = features_HW.shape
    y, x = min(max(y - 0.5, 0), height - 1), min(max(x - 0.5, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    value = 0.0
    for row, weight_y in ((top, 1 - down), (top + 1, down)):
        for column, weight_x in ((left, 1 - right), (left + 1, right)):
            value += weight_y * weight_x * float(features_HW[row, column])
    return value


def slowly_aligned(box: list[float], size: int, samples: int = 2, features_HW: Tensor = MAP_HW) -> Tensor:
    """RoIAlign by its definition: the mean of samples x samples places, evenly spread over each of size x size bins."""
    x0, y0, x1, y1 = box
    bin_h, bin_w = (y1 - y0) / size, (x1 - x0) / size
    result = torch.zeros(size, size)
    for row in range(size):
        for column in range(size):
            places = [
                (y0 + (row + (i + 0.5) / samples) * bin_h, x0 + (column + (j + 0.5) / samples) * bin_w)
                for i in range(samples)
                for j in range(samples)
            ]
            result[row, column] = sum(bilinear(y, x, features_HW) for y, x in places) / len(places)
    return result


def slowly_pooled(left: int, top: int, right: int, bottom: int, rows: int, columns: int) -> Tensor:
    """RoIPool by its definition, of whole cells with the last ones: bin i is floor(i n / m) to ceil((i + 1) n / m)."""
    height, width = bottom - top + 1, right - left + 1
    result = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            ys = range(top + math.floor(row * height / rows), top + math.ceil((row + 1) * height / rows))
            xs = range(left + math.floor(column * width / columns), left + math.ceil((column + 1) * width / columns))
            result[row, column] = max(float(MAP_HW[y, x]) for y in ys for x in xs)
    return result


def test_seven_by_five_is_pooled_to_two_by_two_by_whole_cells() -> None:
    # 5 / 2 and 7 / 2 are cut down at a bin's start and up at its end: rows 3-5 and 5-7, columns 0-3 and 3-6. (Bins of
    # unequal size without overlap, 2 + 3 rows and 3 + 4 columns, would give 0.8 in the first: its 0.9 is in row 5.)
    expected = torch.tensor([[0.9, 0.6], [0.9, 0.6]])
    assert torch.equal(pooled("pool", SEVEN_BY_FIVE), expected)
    assert torch.equal(slowly_pooled(0, 3, 6, 7, 2, 2), expected)
    assert torch.equal(F.adaptive_max_pool2d(MAP_HW[None, 3:8, 0:7], 2)[0], expected)
    # Three bins of five rows and of seven columns: 2, 3 and 2 rows, 3, 3 and 3 columns, neighbours sharing one.
    assert torch.equal(pooled("pool", SEVEN_BY_FIVE, size=3), slowly_pooled(0, 3, 6, 7, 3, 3))
    # Four bins of seven columns are unequal: 2, 3, 3 and 2.
    assert torch.equal(pooled("pool", SEVEN_BY_FIVE, size=4), slowly_pooled(0, 3, 6, 7, 4, 4))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("box", [SEVEN_BY_FIVE, [0.4, 1.3, 5.9, 6.2], [2.0, 2.5, 3.1, 7.75], [6.2, 0.1, 7.9, 0.9]])
def test_aligned_pooling_is_bilinear_by_its_definition(box: list[float], size: int) -> None:
    torch.testing.assert_close(pooled("align", box, size), slowly_aligned(box, size), rtol=0, atol=1e-6)


def test_aligned_pooling_follows_a_box_where_rounding_loses_it() -> None:
    # A map of stride 16, so that 4 pixels are a quarter of a cell. Both boxes round to columns 1-7 and rows 1-6.
    box, moved = [9.0, 20.0, 116.0, 100.0], [13.0, 22.0, 120.0, 102.0]
    assert torch.equal(pooled("pool", box, stride=16), slowly_pooled(1, 1, 7, 6, 2, 2))
    assert torch.equal(pooled("pool", moved, stride=16), pooled("pool", box, stride=16))
    for each in (box, moved):
        expected = slowly_aligned([side / 16 for side in each], 2)
        torch.testing.assert_close(pooled("align", each, stride=16), expected, rtol=0, atol=1e-6)
    assert float((pooled("align", moved, stride=16) - pooled("align", box, stride=16)).abs().max()) > 0.01


def test_on_a_slope_aligned_pooling_reads_the_middle_of_each_bin() -> None:
    slope_HW = (torch.arange(8) + 0.5).expand(8, 8)
    found = pooled("align", [1.3, 2.0, 5.7, 6.0], features_HW=slope_HW)
    torch.testing.assert_close(found, torch.tensor([[2.4, 4.6], [2.4, 4.6]]))
    rounded = pooled("pool", [1.3, 2.0, 5.7, 6.0], features_HW=slope_HW)
    assert torch.equal(rounded, torch.tensor([[3.5, 5.5], [3.5, 5.5]])), "up to a cell away"


def test_a_crop_is_warped_with_what_lies_around_it() -> None:
    images_NCHW = torch.arange(2 * 3 * 20 * 30, dtype=torch.float32).view(2, 3, 20, 30)
    boxes = [torch.tensor([[5.0, 3.0, 13.0, 11.0]]), torch.tensor([[0.0, 0.0, 8.0, 8.0]])]
    bare = CropAndWarp(8, 0)({"0": images_NCHW}, boxes, None)
    torch.testing.assert_close(bare[0], images_NCHW[0, :, 3:11, 5:13])
    torch.testing.assert_close(bare[1], images_NCHW[1, :, :8, :8])
    around = CropAndWarp(12, 2)({"0": images_NCHW}, boxes, None)
    torch.testing.assert_close(around[0], images_NCHW[0, :, 1:13, 3:15])
    assert not around[1, :, 0].any(), "zero, the mean colour, beyond the image"
    torch.testing.assert_close(around[1, :, 2:, 2:], images_NCHW[1, :, :10, :10])
    halved = CropAndWarp(4, 0)({"0": images_NCHW}, boxes, None)
    torch.testing.assert_close(halved[0], F.avg_pool2d(images_NCHW[0, :, 3:11, 5:13], 2))


SMALL = {"backbone": "resnet18", "samples": 16, "detections": 5, "min_score": 0.0}
PROPOSALS = [torch.tensor([[0.0, 0.0, 20.0, 20.0], [8.0, 8.0, 40.0, 30.0]]), torch.zeros(0, 4)]


def square(offset: float = 0.0) -> RegionTarget:
    masks_MHW = torch.zeros(1, 48, 48, dtype=torch.bool)
    return RegionTarget(
        boxes_M4=torch.tensor([[offset, offset, offset + 20, offset + 20]]),
        class_ids_M=torch.tensor([1]),
        masks_MHW=masks_MHW,
    )


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        build_fast_rcnn(num_classes=3, head_width=16, **SMALL),
        build_fast_rcnn(num_classes=3, head_width=16, pooling="pool", **SMALL),
        build_rcnn(num_classes=3, size=40, context=4, **SMALL),
    ]


def test_given_proposals_are_classified_and_their_boxes_moved() -> None:
    images_NCHW = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for network in networks():
        with torch.no_grad():
            found, none = network.eval()(images_NCHW, PROPOSALS).regions
        assert len(found.scores_M) == 5, "two proposals of three classes, as many as are kept"
        assert len(none.scores_M) == 0
        assert set(found.class_ids_M.tolist()) <= {0, 1, 2}
        assert bool((found.boxes_M4 >= 0).all())
        assert bool((found.boxes_M4 <= 48).all())
        with torch.no_grad():
            nothing = network(images_NCHW, [torch.zeros(0, 4)] * 2)
        assert [len(regions.scores_M) for regions in nothing.regions] == [0, 0]


def test_given_proposals_train_every_parameter() -> None:
    images_NCHW = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for network in networks():
        losses = network.train()(images_NCHW, PROPOSALS, [square(), square(8)]).losses
        assert losses.keys() == {"class", "box"}
        torch.stack(list(losses.values())).sum().backward()
        assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def test_a_network_of_given_proposals_learns_which_is_which() -> None:
    """Two halves of an image, dark and bright: after a few steps each is named."""
    torch.manual_seed(0)
    network = build_fast_rcnn(num_classes=2, head_width=16, **SMALL)
    images_NCHW = torch.cat([torch.full((1, 3, 64, 32), -1.0), torch.full((1, 3, 64, 32), 1.0)], dim=3)
    boxes_M4 = torch.tensor([[0.0, 0.0, 32.0, 64.0], [32.0, 0.0, 64.0, 64.0]])
    target = RegionTarget(
        boxes_M4=boxes_M4, class_ids_M=torch.tensor([0, 1]), masks_MHW=torch.zeros(2, 64, 64, dtype=torch.bool)
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        torch.stack(list(network(images_NCHW, [boxes_M4], [target]).losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        network.train()  # the norms' running statistics are still those of another start
        found = network(images_NCHW, [boxes_M4]).regions[0]
    best = {int(k): found.boxes_M4[found.class_ids_M == k][0] for k in (0, 1)}
    torch.testing.assert_close(torch.stack([best[0], best[1]]), boxes_M4, rtol=0, atol=6)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (build_fast_rcnn, {"pooling": "max"}, r"pooling: 'max' is not one of align, pool"),
        (build_fast_rcnn, {"head_width": 0}, r"head_width: expected a whole number of at least 1, found 0"),
        (build_rcnn, {"size": 32, "context": 16}, r"context: 16 on each side leaves nothing of a crop of 32 pixels"),
        (build_rcnn, {"min_score": 1.5}, r"min_score: 1.5 is not in 0..1"),
        (build_rcnn, {"norm": "layer"}, r"norm: 'layer' is not one of batch, frozen"),
    ],
)
def test_options_that_make_no_network_are_refused(build: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(num_classes=2, backbone="resnet18", **options)


def test_proposals_that_belong_to_no_image_are_refused() -> None:
    network = build_fast_rcnn(num_classes=2, head_width=8, **SMALL)
    images_NCHW = torch.zeros(2, 3, 32, 32)
    with pytest.raises(InputError, match=r"proposals: 1 for 2 images"):
        network(images_NCHW, PROPOSALS[:1])
    with pytest.raises(InputError, match=r"proposals: image 1 has a tensor of \(3,\); expected \(M, 4\)"):
        network(images_NCHW, [PROPOSALS[0], torch.zeros(3)])
    empty = RegionTarget(
        boxes_M4=torch.zeros(0, 4),
        class_ids_M=torch.zeros(0, dtype=torch.long),
        masks_MHW=torch.zeros(0, 32, 32, dtype=torch.bool),
    )
    with pytest.raises(InputError, match=r"nothing to train on"):
        network(images_NCHW, [torch.zeros(0, 4)] * 2, [empty] * 2)
