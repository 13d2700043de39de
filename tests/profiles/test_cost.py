"""Multiply-adds as torchvision prints them for its releases, and bytes as one counts them by hand."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from segpipe import models, profiles
from segpipe.models.deeplab_v3 import RELEASED
from segpipe.profiles import profile
from segpipe.profiles.cost import HeldBytes, inference_cost, latency, training_cost

FLOAT = 4
RELEASES = {name: ("deeplab_v3", options) for name, options in RELEASED.items()}
RELEASES |= {f"fcn_{backbone}": (f"fcn_{backbone}", {"aux": True}) for backbone in ("resnet50", "resnet101")}


@pytest.mark.parametrize("name", list(RELEASES))
def test_multiply_adds_are_those_that_torchvision_prints(name: str) -> None:
    """In its documentation as "GIPS", in billions, of an image of 520 x 520 with the auxiliary head."""
    arch, options = RELEASES[name]
    meta = torchvision.models.get_model_weights(name).COCO_WITH_VOC_LABELS_V1.meta
    found = profile(arch, 21, size=(520, 520), runs=0, **options)
    assert found.multiply_adds is not None
    assert round(found.multiply_adds / 1e9, 3) == meta["_ops"]
    assert found.flops == 2 * found.multiply_adds
    assert found.parameters == meta["num_params"]


GIBI = 2**30  # HRNet's authors print multiply-adds in units of 1024 ** 3, and call them GFLOPs


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "printed", "tolerance"),
    [
        ("segformer_b0", 150, (512, 512), 8.4e9, 0.05e9),  # paper, table 1a, "Flops"
        ("segformer_b3", 150, (512, 512), 79.0e9, 0.15e9),
        ("hrnet_w48", 19, (1024, 2048), 696.2 * GIBI, 0.05 * GIBI),  # HRNet-Semantic-Segmentation, README.md
        ("hrnet_pose_w32", 17, (256, 192), 7.1 * GIBI, 0.05 * GIBI),  # deep-high-resolution-net.pytorch, README.md
        ("hrnet_pose_w48", 17, (256, 192), 14.6 * GIBI, 0.05 * GIBI),
        # Paper, table 5, at 513 as that of DeepLabV3 says; TensorFlow's profiler also counts what is no product.
        ("deeplab_v3plus_xception", 21, (513, 513), 54.17e9, 0.2e9),
    ],
)
def test_multiply_adds_are_those_that_authors_print(
    name: str, num_classes: int, size: tuple[int, int], printed: float, tolerance: float
) -> None:
    with torch.device("meta"):
        model = models.create(name, num_classes)
        multiply_adds, _ = inference_cost(model, torch.zeros(1, 3, *size))
    assert multiply_adds == pytest.approx(printed, abs=tolerance)


def test_a_convolution_costs_its_kernel_at_every_cell() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1, stride=2))
    multiply_adds, _ = inference_cost(network, torch.zeros(1, 3, 10, 12))
    assert multiply_adds == 10 * 12 * 8 * 3 * 9 + 5 * 6 * 5 * 8


def test_memory_of_a_pass_is_weights_and_the_two_largest_neighbours() -> None:
    """3 -> 8 -> 2 channels of 16 x 16: with the second convolution's result all maps are there, the image too."""
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 2, 1, bias=False))
    _, held = inference_cost(network, torch.zeros(1, 3, 16, 16))
    assert held == FLOAT * (3 * 8 + 8 * 2 + (3 + 8 + 2) * 16 * 16)


def test_what_is_given_back_is_not_held_any_more() -> None:
    with HeldBytes() as held:
        first = torch.zeros(100)
        second = first + 1
        view = second[:50]
        del first
        third = view * 2
        del second, view
        assert held.now == FLOAT * 50
    assert held.peak == FLOAT * (100 + 100)
    assert third.numel() == 50


def test_a_step_holds_what_backward_needs_and_the_gradients() -> None:
    """Three layers of like width keep three maps; backward adds gradients of weights, and those of maps one by one."""

    def mean(network: nn.Module, images_NCHW: Tensor) -> Tensor:
        return network(images_NCHW).mean()

    network = nn.Sequential(*(nn.Conv2d(4, 4, 1, bias=False) for _ in range(3)))
    images = torch.zeros(1, 4, 32, 32)
    one_map, weights = FLOAT * 4 * 32 * 32, FLOAT * 3 * 16
    multiply_adds, held = training_cost(network, images, mean)
    assert multiply_adds == 3 * 16 * 32 * 32, "of the way forward alone"
    # Image, both maps between, the last map's gradient and the one made of it; the last map itself is needed by nobody.
    assert 5 * one_map + weights <= held <= 6 * one_map + 2 * weights + 64
    assert all(parameter.grad is None for parameter in network.parameters())
    _, passed = inference_cost(network, images)
    assert passed == 3 * one_map + weights


@pytest.mark.parametrize("name", ["unet", "deeplab_v3"])
def test_counting_without_memory_is_counting_in_earnest(name: str) -> None:
    options = dict(models.spec(name).tiny)
    costs = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            costs.append(inference_cost(models.create(name, 3, **options), torch.zeros(1, 3, 64, 96)))
    (in_earnest, held), (counted, outlined) = costs
    assert in_earnest == counted
    # On a CPU a norm gives no statistics in evaluation, without memory it gives their shapes.
    assert held == pytest.approx(outlined, rel=1e-3)


def test_what_is_timed_is_placed_as_an_evaluation_places_it(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[nn.Module] = []
    monkeypatch.setattr(profiles, "latency", lambda model, images_13HW, runs: timed.append(model) or 1.0)
    profile("deeplab_v3", 3, size=(32, 32), runs=1, backbone="resnet18", channels=32)
    large = [module for module in timed[0].modules() if isinstance(module, nn.Conv2d) and module.in_channels == 512]
    assert {module.dilation for module in large if module.kernel_size == (1, 1)} == {(2, 2)}


def test_time_is_the_median_of_as_many_passes() -> None:
    passes: list[int] = []
    network = nn.Conv2d(3, 2, 1)
    network.register_forward_hook(lambda module, given, result: passes.append(1))
    assert latency(network, torch.zeros(1, 3, 8, 8), runs=3) > 0
    assert len(passes) == 4
    assert not network.training
