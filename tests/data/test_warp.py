"""Rotation and elastic deformation, against torchvision's own."""

import random

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from segpipe.config import AugmentConfig
from segpipe.data.augment import augment
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.objects import Region, decode_objects, moved
from segpipe.data.warp import Warp, draw_warp, warp
from segpipe.data.window import PADDING, Window, widened
from tests.fixtures.cells import cells

IGNORE = 255


def noise(height: int, width: int) -> DecodedSample:
    draw = torch.Generator().manual_seed(0)
    image_3HW = torch.randint(0, 256, (3, height, width), generator=draw, dtype=torch.uint8)
    labels_HW = torch.randint(0, 12, (height, width), generator=draw, dtype=torch.uint8)
    return DecodedSample(sample_id="noise", image_3HW=image_3HW, labels_HW=labels_HW)


def in_a_frame(sample: DecodedSample, margin: tuple[int, int]) -> DecodedSample:
    rows, columns = margin
    around = [columns, rows, columns, rows]
    return DecodedSample(
        sample_id=sample.sample_id,
        image_3HW=v2.pad(sample.image_3HW, around, fill=PADDING),
        labels_HW=v2.pad(sample.labels_HW[None], around, fill=IGNORE)[0],  # type: ignore[index]
    )


@pytest.mark.parametrize("size", [(41, 60), (32, 32), (7, 50), (1, 9)])
def test_a_rotation_is_that_of_torchvision(size: tuple[int, int]) -> None:
    sample = noise(*size)
    for seed in range(8):
        field = draw_warp(AugmentConfig(crop=size, rotation=180.0), random.Random(seed))
        assert field is not None
        angle = random.Random(seed).uniform(-180.0, 180.0)
        turned = warp(in_a_frame(sample, field.margin), field)
        image_3HW = v2.rotate(sample.image_3HW, angle, v2.InterpolationMode.BILINEAR, fill=PADDING)
        labels_HW = v2.rotate(tv_tensors.Mask(sample.labels_HW), angle, fill=IGNORE)
        # At the border torchvision lets the padding in twice, and draws a dark line: compared is what lies inside.
        inside_HW = v2.rotate(torch.ones(1, *size), angle, v2.InterpolationMode.BILINEAR)[0] > 0.999
        assert ((turned.image_3HW.int() - image_3HW.int()).abs() * inside_HW).max() <= 1
        assert turned.labels_HW is not None
        assert (turned.labels_HW != labels_HW).float().mean() < 0.02


def test_no_warp_is_drawn_for_nothing_and_a_turn_by_nothing_changes_nothing() -> None:
    assert draw_warp(AugmentConfig(crop=(8, 8)), random.Random(0)) is None
    sample = noise(9, 14)
    still = warp(sample, Warp(displacement_hw2=torch.zeros(9, 14, 2), margin=(0, 0)))
    assert torch.equal(still.image_3HW, sample.image_3HW)
    assert torch.equal(still.labels_HW, sample.labels_HW)  # type: ignore[arg-type]


def test_an_elastic_field_is_smooth_and_as_large_as_asked() -> None:
    """On the 3 x 3 grid (the corners, the middles of the edges and the middle) it is the normal vectors themselves."""
    ends = []
    for seed in range(60):
        field = draw_warp(AugmentConfig(crop=(101, 141), elastic=10.0), random.Random(seed))
        assert field is not None
        displacement_hw2 = field.displacement_hw2
        ends.append(displacement_hw2[::50, ::70].flatten())
        assert displacement_hw2.diff(dim=0).abs().max() < 2.5
    values = torch.cat(ends)
    assert len(values) == 60 * 18
    assert float(values.std()) == pytest.approx(10.0, rel=0.08)
    assert abs(float(values.mean())) < 1.0


def test_keypoints_follow_the_pixels_where_torchvision_approximates() -> None:
    """A white spot is found again around its keypoint."""
    whole = decode_objects(cells(96, 96, cell=96))
    y, x = torch.tensor(30.0), torch.tensor(50.0)
    ours, theirs = [], []
    for seed in range(30):
        field = draw_warp(AugmentConfig(crop=(96, 96), elastic=6.0, rotation=5.0), random.Random(seed))
        assert field is not None
        rows, columns = field.margin
        image_3HW = torch.zeros(3, 96 + 2 * rows, 96 + 2 * columns, dtype=torch.uint8)
        image_3HW[:, rows + 29 : rows + 32, columns + 49 : columns + 52] = 255
        masks_NHW = torch.ones(1, *image_3HW.shape[1:], dtype=torch.bool)
        objects = moved(whole, masks_NHW, torch.tensor([[[x + columns, y + rows, 2.0]]]))
        framed = DecodedSample(sample_id="spot", image_3HW=image_3HW, labels_HW=None, objects=objects)
        warped = warp(framed, field)
        white_HW = warped.image_3HW[0].double() / warped.image_3HW[0].sum()
        spot = torch.stack([(white_HW.sum(axis) * torch.arange(96)).sum() for axis in (0, 1)])
        assert warped.objects is not None
        assert warped.objects.keypoints_NP3 is not None
        ours.append(float((warped.objects.keypoints_NP3[0, 0, :2] - spot).abs().max()))
        theirs.append(float((torch.stack([x, y]) - field.displacement_hw2[30, 50] - spot).abs().max()))
    assert max(ours) < 0.5
    assert max(theirs) > 1.0, "or the inversion could be left to torchvision"


def test_a_keypoint_where_the_field_folds_stays_near_its_pixel() -> None:
    """Where all columns look up nearly the same place, one of them is as good as another, and none is far away."""
    displacement_hw2 = torch.zeros(9, 9, 2)
    displacement_hw2[..., 0] = 4 - torch.arange(9) * (1 - 1e-4)
    objects = decode_objects(cells(9, 9, cell=9))
    objects = moved(objects, objects.masks_NHW, torch.tensor([[[4.3, 2.0, 2.0]]]))
    still = DecodedSample(
        sample_id="fold", image_3HW=torch.zeros(3, 9, 9, dtype=torch.uint8), labels_HW=None, objects=objects
    )
    folded = warp(still, Warp(displacement_hw2=displacement_hw2, margin=(0, 0))).objects
    assert folded is not None
    assert folded.keypoints_NP3 is not None
    x, y, visibility = folded.keypoints_NP3[0, 0].tolist()
    assert -1 <= x <= 9
    assert (y, visibility) == (2, 2)


def test_a_turned_crop_shows_the_image_up_to_its_corners() -> None:
    """A crop of which no corner leaves the image has no padding, however it is turned."""
    sample = cells(200, 200)
    config = AugmentConfig(crop=(60, 80), scale=(1.0, 1.0), rotation=180.0, elastic=3.0)
    whole = 0
    for epoch in range(20):
        crop = augment(decode(sample), config, input_scale=1.0, seed=0, epoch=epoch, ignore_index=IGNORE)
        assert crop.labels_HW is not None
        outside_hw = crop.labels_HW == IGNORE
        if not any(outside_hw[y, x] for y in (0, -1) for x in (0, -1)):
            assert not outside_hw.any()
            whole += 1
    assert 5 < whole < 20, "some crops lie at the edge of the image, and show it"
    middle = Window(region=Region(70, 130, 60, 140), y=0, x=0, height=60, width=80, size=(60, 80))
    wide = widened(middle, (200, 200), (30, 20))
    assert (wide.region, wide.y, wide.x, wide.size) == (Region(40, 160, 40, 160), 0, 0, (120, 120))


@pytest.mark.parametrize("scale", [0.37, 1.0, 2.9])
def test_a_widened_window_keeps_its_middle(scale: float) -> None:
    """What the window showed, the wider one shows at the same place, as far as whole pixels allow."""
    crop, source = (40, 50), (300, 310)
    shown = (round(40 / scale), round(50 / scale))
    for top, left in ((0, 0), (60, 31), (source[0] - shown[0], source[1] - shown[1])):
        region = Region(top, top + shown[0], left, left + shown[1])
        window = Window(region=region, y=0, x=0, height=40, width=50, size=crop)
        wide = widened(window, source, (17, 9))
        assert wide.size == (74, 68)
        assert wide.y >= 0
        assert wide.y + wide.height <= 74
        assert wide.x + wide.width <= 68
        ratio = wide.height / (wide.region.bottom - wide.region.top)
        assert ratio == pytest.approx(40 / shown[0], rel=0.05)
        assert (top - wide.region.top) * ratio + wide.y == pytest.approx(17, abs=1)
        if (top, left) == (60, 31):
            assert wide.y <= scale + 1
            assert wide.y + wide.height >= 74 - scale - 1, "the source has all that the margin asks for"
