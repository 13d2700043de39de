"""The receptive field: by hand for known networks, and by changing every pixel of an image for all kinds of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts.backbones import build_backbone
from segpipe.models.parts.borders import Mirrored
from segpipe.models.parts.upsampling import MaxUnpool, pool_with_places
from segpipe.profiles.fields import MOVING
from segpipe.profiles.receptive import Trace

SIDE = 4096


def extent_of(network: Callable[[Tensor], Tensor], *, side: int = SIDE) -> tuple[int, int]:
    """Rows and columns of pixels that the middle cell of what `network` gives needs; nothing is computed."""
    images = torch.empty(1, 3, side, side, device="meta")
    with torch.no_grad(), Trace(images) as trace:
        result = network(images)
    box, unread = trace.needed(trace.number(result), (result.shape[-2] // 2, result.shape[-1] // 2))
    assert unread == set()
    assert box is not None
    rows, columns = (last - first + 1 for first, last in box)
    return rows, columns


def chain(layers: Sequence[tuple[int, int]]) -> int:
    """Of (kernel, stride) one after the other: 1 and, for each, kernel - 1 times all strides before it."""
    field, jump = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def test_vgg_16_up_to_fc6_sees_404_pixels() -> None:
    """FCN-32s: 3 x 3 convolutions in groups of 2, 2, 3, 3, 3 with 2 x 2 pooling behind each, and fc6 of 7 x 7."""
    layers = [layer for depth in (2, 2, 3, 3, 3) for layer in (*[(3, 1)] * depth, (2, 2))]
    assert (chain(layers), chain([*layers, (7, 1)])) == (212, 404)
    with torch.device("meta"):
        pooled = torchvision.models.vgg16(weights=None).features
        fc6 = nn.Sequential(*pooled, nn.Conv2d(512, 4096, 7))
    assert extent_of(pooled) == (212, 212)
    assert extent_of(fc6) == (404, 404)


def body(classifier: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(child for name, child in classifier.named_children() if name not in ("avgpool", "fc")))


@pytest.mark.parametrize(("depth", "units", "as_published"), [(50, (3, 4, 6, 3), 483), (101, (3, 4, 23, 3), 1027)])
def test_resnets_with_the_stride_in_the_first_1x1_see_what_is_published(
    depth: int, units: tuple[int, ...], as_published: int
) -> None:
    """Araujo et al. 2019, table 1; torchvision strides in the 3 x 3 of a unit, which therefore sees less."""
    stem = [(7, 2), (3, 2)]
    strides = [2 if stage and not place else 1 for stage, number in enumerate(units) for place in range(number)]
    assert chain([*stem, *((k, s) for stride in strides for k, s in ((1, stride), (3, 1)))]) == as_published
    with torch.device("meta"):
        resnet = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    assert extent_of(body(resnet)) == (chain([*stem, *((3, stride) for stride in strides)]),) * 2
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert extent_of(body(resnet)) == (as_published, as_published)


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_the_atrous_rule_keeps_the_field(output_stride: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone("resnet50", output_stride=output_stride).eval()
    assert extent_of(lambda images: backbone(images)[-1]) == (427, 427)


def test_the_image_pooled_is_the_image_seen() -> None:
    with torch.device("meta"):
        conv = nn.Conv2d(3, 4, 3, padding=1)
    pooled = extent_of(lambda images: conv(images) + F.adaptive_avg_pool2d(conv(images), 1), side=64)
    assert pooled == (64, 64)


def test_the_wider_of_two_ways_counts() -> None:
    with torch.device("meta"):
        near, far = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=6, dilation=6)
    assert extent_of(lambda images: near(images) + far(images)) == (13, 13)
    assert extent_of(lambda images: torch.cat([far(images), near(images)], dim=1)) == (13, 13)


def test_what_comes_from_no_image_needs_none() -> None:
    images = torch.empty(1, 3, 8, 8)
    with torch.no_grad(), Trace(images) as trace:
        constant = torch.zeros_like(images) + 1
        changed = images + constant
    assert trace.needed(trace.number(constant), (4, 4)) == (None, set())
    assert trace.needed(trace.number(changed), (4, 5)) == (((4, 4), (5, 5)), set())


def test_what_cannot_be_followed_is_named() -> None:
    images = torch.empty(1, 4, 8, 8, device="meta")
    with torch.no_grad(), Trace(images) as trace:
        result = F.pixel_shuffle(images, 2)
    box, unread = trace.needed(trace.number(result), (4, 4))
    assert box == ((0, 7), (0, 7))
    assert unread != set()


# --- every pixel changed, one row or column at a time


def conv(kernel: int, **settings: int) -> nn.Module:
    return nn.Conv2d(2, 2, kernel, bias=False, **settings)


class Joined(nn.Module):
    """Down, up again, beside the way past both: as decoders have it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.down, self.past, self.mode = conv(3, stride=2, padding=1), conv(3, padding=1), mode

    def forward(self, images: Tensor) -> Tensor:
        low = self.down(images)
        corners = False if self.mode == "bilinear" else None
        up = F.interpolate(low, size=images.shape[-2:], mode=self.mode, align_corners=corners)
        return torch.cat([up, self.past(images)], dim=1)


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        low = self.conv(F.pad(images, (0, -width % 8, 2, -height % 8)))
        return F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)[..., 2 : height + 2, :width]


class Around(nn.Module):
    """Sees the mirror images of the images, more than once on the left, too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.mirrored = Mirrored()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.network(self.mirrored(images_NCHW, (3, 8), (20, 1)))


class Unpooled(nn.Module):
    """Pools, and puts back what a cell of the coarse map has become."""

    def __init__(self, coarse: nn.Module) -> None:
        super().__init__()
        self.coarse = coarse
        self.unpool = MaxUnpool()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        pooled_NChw, switches_NChw = pool_with_places(images_NCHW)
        return self.unpool(self.coarse(pooled_NChw), *images_NCHW.shape[-2:], switches_NChw)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_an_unpooled_cell_sees_the_windows_around_its_own(kernel_size: int) -> None:
    """Values of 1 x 1 or 3 x 3 windows of 2 x 2 pixels; where the value goes, its own window says."""
    images, unpooled = torch.rand(1, 2, 12, 9), Unpooled(nn.Conv2d(2, 2, kernel_size, padding=kernel_size // 2))
    with torch.no_grad(), Trace(images) as trace:
        trace.as_one(unpooled.unpool, MOVING[MaxUnpool])
        result = unpooled(images)
    reach = kernel_size // 2
    for row, column in ((4, 4), (5, 3)):
        box, unread = trace.needed(trace.number(result), (row, column))
        assert unread == set()
        assert box == tuple((2 * (at // 2 - reach), 2 * (at // 2 + reach) + 1) for at in (row, column))


def test_switches_alone_make_a_cell_see_its_window() -> None:
    images = torch.rand(1, 2, 8, 8)
    with torch.no_grad(), Trace(images) as trace:
        unpool = MaxUnpool()
        trace.as_one(unpool, MOVING[MaxUnpool])
        _, switches_NChw = pool_with_places(images)
        result = unpool(torch.ones(1, 2, 4, 4), 8, 8, switches_NChw)
    assert trace.needed(trace.number(result), (3, 6)) == (((2, 3), (6, 7)), set())


TOYS: dict[str, Callable[[], nn.Module]] = {
    "kernel": lambda: conv(5, padding=1),
    "even kernel": lambda: conv(4, stride=3, padding=2),
    "holes": lambda: nn.Sequential(conv(3, padding=2, dilation=2), conv(3, stride=2, dilation=3)),
    "max pooling": lambda: nn.Sequential(conv(3), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 2, ceil_mode=True)),
    "mean pooling": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), conv(3)),
    "grid": lambda: nn.AdaptiveAvgPool2d((5, 4)),
    "transposed": lambda: nn.Sequential(conv(3, stride=2), nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False)),
    "transposed, wider": lambda: nn.ConvTranspose2d(2, 2, 5, 3, 1, output_padding=1, bias=False),
    "bilinear": lambda: nn.Sequential(conv(3, stride=3), nn.Upsample(size=(17, 14), mode="bilinear")),
    "bilinear, corners": lambda: nn.Sequential(
        conv(3, stride=3), nn.Upsample(size=(17, 14), mode="bilinear", align_corners=True)
    ),
    "bilinear, smaller": lambda: nn.Upsample(size=(7, 6), mode="bilinear"),
    "nearest": lambda: nn.Sequential(conv(2, stride=2), nn.Upsample(scale_factor=2.0), conv(3, padding=1)),
    "joined": lambda: Joined("bilinear"),
    "joined, nearest": lambda: Joined("nearest"),
    "padded": Padded,
    "padded by the edge": lambda: nn.Sequential(nn.ReplicationPad2d((2, 1, 0, 3)), conv(3)),
    "mirrored": lambda: Around(nn.Sequential(conv(5), nn.AvgPool2d(2))),
}


WITH_HOLES = {"holes"}


@pytest.mark.parametrize("name", list(TOYS))
def test_it_is_what_changes_when_a_pixel_does(name: str) -> None:
    """With positive weights a much brighter row or column makes every cell that sees it brighter, and no other."""
    torch.manual_seed(0)
    network = TOYS[name]().double().eval()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    images = torch.rand(1, 2, 19, 16, dtype=torch.float64)
    with torch.no_grad(), Trace(images) as trace:
        for module in network.modules():
            if type(module) in MOVING:
                trace.as_one(module, MOVING[type(module)])
        result = network(images)
    height, width = images.shape[-2:]
    with torch.no_grad():
        changed = {}
        for axis, length in ((0, height), (1, width)):
            for at in range(length):
                brighter = images.clone()
                brighter.select(2 + axis, at).add_(1e6)
                changed[axis, at] = (network(brighter) - result).abs().amax(dim=(0, 1)) > 1e-6
    for row in range(result.shape[-2]):
        for column in range(result.shape[-1]):
            box, unread = trace.needed(trace.number(result), (row, column))
            assert unread == set()
            assert box is not None
            for axis, length in ((0, height), (1, width)):
                seen = [at for at in range(length) if changed[axis, at][row, column]]
                first, last = box[axis]
                # What a kernel with holes needs beyond an edge is cut off there, though it may lie between its holes.
                inside = first > 0 and last < length - 1
                if inside or name not in WITH_HOLES:
                    assert (first, last) == (seen[0], seen[-1]), (row, column, axis)
                assert first <= seen[0] <= seen[-1] <= last
