"""Losses and class weights against slow, obvious versions and the numbers of CamVid's class table."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segpipe.losses import cross_entropy, enet_weights, median_frequency_weights

# CamVid's training split (SegNet's 11 classes), counted from its annotation images of 480 x 360 pixels. Per class:
# pixels, images that hold it, share of the labelled pixels, ENet weight, median-frequency weight.
IMAGE = 480 * 360
CAMVID = [
    (10_682_767, 366, 0.175376, 5.60, 0.2793),
    (14_750_079, 365, 0.242148, 4.30, 0.2017),
    (623_349, 366, 0.010233, 33.57, 4.7865),
    (20_076_880, 367, 0.329596, 3.34, 0.1490),
    (2_845_085, 349, 0.046707, 15.49, 1.0000),
    (6_166_762, 319, 0.101238, 8.74, 0.4217),
    (743_859, 351, 0.012212, 31.54, 3.8467),
    (714_595, 173, 0.011731, 32.01, 1.9736),
    (3_719_877, 360, 0.061068, 12.83, 0.7889),
    (405_385, 317, 0.006655, 38.01, 6.3747),
    (184_967, 201, 0.003037, 43.91, 8.8587),
]


def slow_cross_entropy(logits: Tensor, labels: Tensor, weight: list[float], ignore_index: int) -> float:
    above = below = 0.0
    for n in range(logits.shape[0]):
        for y in range(logits.shape[2]):
            for x in range(logits.shape[3]):
                label = int(labels[n, y, x])
                if label == ignore_index:
                    continue
                scores = [float(score) for score in logits[n, :, y, x]]
                above += weight[label] * (math.log(sum(map(math.exp, scores))) - scores[label])
                below += weight[label]
    return above / below if below else 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([255, -1, 0]))
def test_cross_entropy_is_the_mean_over_counted_pixels(seed: int, weighted: bool, ignore_index: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 2, 3, generator=generator)
    labels = torch.randint(0, 3, (2, 2, 3), generator=generator)
    labels[torch.rand(2, 2, 3, generator=generator) < 0.3] = ignore_index
    weight = torch.rand(3, generator=generator) if weighted else None
    found = cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index)
    expected = slow_cross_entropy(logits, labels, weight.tolist() if weight is not None else [1.0] * 3, ignore_index)
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_cross_entropy_and_its_gradient_are_torchs(weight: Tensor | None) -> None:
    logits = torch.randn(2, 3, 5, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 5, 4))
    labels[0, 0] = 255
    ours = torch.autograd.grad(cross_entropy(logits, labels, weight=weight), logits)[0]
    reference = torch.nn.functional.cross_entropy(logits, labels, weight=weight, ignore_index=255)
    theirs = torch.autograd.grad(reference, logits)[0]
    torch.testing.assert_close(cross_entropy(logits, labels, weight=weight), reference)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("weight", [None, torch.ones(3)])
def test_an_ignored_batch_costs_nothing_and_teaches_nothing(weight: Tensor | None) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255), weight=weight)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_pixels_of_weight_zero_alone_cost_nothing() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(1, 3, 3, dtype=torch.long), weight=torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.isfinite().all()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(1, 4, 64, 64).bfloat16()
    labels = torch.randint(0, 4, (1, 64, 64), dtype=torch.uint8)
    loss = cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits.double().float(), labels))


def test_enet_weights_of_camvid() -> None:
    pixels = torch.tensor([row[0] for row in CAMVID], dtype=torch.float64)
    shares = pixels / pixels.sum()
    assert shares.tolist() == pytest.approx([row[2] for row in CAMVID], abs=5e-7)
    assert enet_weights(shares).tolist() == pytest.approx([row[3] for row in CAMVID], abs=6e-3)
    assert enet_weights([0.0, 1.0]).tolist() == pytest.approx([1 / math.log(1.02), 1 / math.log(2.02)])


def test_median_frequency_weights_of_camvid() -> None:
    weights = median_frequency_weights([row[0] for row in CAMVID], [row[1] * IMAGE for row in CAMVID])
    assert weights.tolist() == pytest.approx([row[4] for row in CAMVID], abs=6e-5)


def test_median_frequency_without_and_between_classes() -> None:
    # Frequencies 1/2 and 1/8: the median is their mean, 5/16. The absent class weighs 1.
    assert median_frequency_weights([50, 0, 25], [100, 0, 200]).tolist() == pytest.approx([0.625, 1.0, 2.5])
    assert median_frequency_weights([0, 0], [0, 0]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("frequencies", [[3.0, 5.0], [-0.1, 0.5], [float("nan")], [[0.5]]])
def test_enet_weights_refuse_what_is_no_share(frequencies: list[float]) -> None:
    with pytest.raises(ValueError, match=r"each in 0\.\.1, found"):
        enet_weights(frequencies)


@pytest.mark.parametrize(("pixels", "images"), [([1, 2], [3]), ([5], [4]), ([-1], [4])])
def test_median_frequency_weights_refuse_impossible_counts(pixels: list[int], images: list[int]) -> None:
    with pytest.raises(ValueError, match="class_pixels <= image_pixels, found"):
        median_frequency_weights(pixels, images)
