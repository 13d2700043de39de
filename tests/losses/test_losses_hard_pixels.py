"""Bootstrapped and focal cross entropy against slow, obvious versions and the numbers of other people's code."""

import math

import pytest
import torch
from torch import Tensor

from segpipe.losses import bootstrapped_cross_entropy, cross_entropy, focal_loss
from tests.fixtures.pixel_losses import example


def right_probabilities(logits: Tensor, labels: Tensor) -> list[tuple[float, int]]:
    """Of each pixel that counts the softmax of its class, and the class."""
    found = []
    for n, y, x in (labels != 255).nonzero().tolist():
        scores = [math.exp(float(score)) for score in logits[n, :, y, x]]
        if len(scores) == 1:
            scores = [1.0, *scores]
        label = int(labels[n, y, x])
        found.append((scores[label] / sum(scores), label))
    return found


@pytest.mark.parametrize("num_logits", [1, 3])
@pytest.mark.parametrize(
    ("threshold", "top_k"),
    [(None, None), (0.3, None), (0.9, None), (None, 11), (None, 1), (0.1, 40), (0.6, 5), (1, 999)],
)
def test_bootstrapped_cross_entropy_is_the_mean_over_hard_pixels(
    num_logits: int, threshold: float | None, top_k: int | None
) -> None:
    logits, labels = example(num_logits)
    probabilities = sorted(p for p, _ in right_probabilities(logits, labels))
    hard = [p for p in probabilities if p < (threshold or (0 if top_k else 2))]
    hardest = probabilities[: max(len(hard), top_k or 0)]
    expected = -sum(map(math.log, hardest)) / len(hardest)
    found = bootstrapped_cross_entropy(logits, labels, threshold=threshold, top_k=top_k)
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("threshold", "top_k", "printed"),
    [(0.3, 25, 2.9041517786874644), (0.3, 55, 1.7743132468377127), (None, 20, 3.374319770922631)],
)
def test_bootstrapped_cross_entropy_is_that_of_hrnets_code(threshold: float | None, top_k: int, printed: float) -> None:
    """OhemCrossEntropy(thres=0.3 or 0, min_kept=top_k) of HRNet-Semantic-Segmentation, lib/core/criterion.py."""
    found = bootstrapped_cross_entropy(*example(3), threshold=threshold, top_k=top_k)
    assert float(found) == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(("threshold", "top_k"), [(None, 4), (0.4, 4), (0.4, None)])
def test_the_hardest_pixels_of_each_image_are_chosen_on_request(threshold: float | None, top_k: int | None) -> None:
    logits, labels = example(3)
    chosen: list[float] = []
    for logits_KHW, labels_HW in zip(logits, labels, strict=True):
        probabilities = sorted(p for p, _ in right_probabilities(logits_KHW[None], labels_HW[None]))
        hard = [p for p in probabilities if p < (threshold or 0)]
        chosen += probabilities[: max(len(hard), top_k or 0)]
    found = bootstrapped_cross_entropy(logits, labels, threshold=threshold, top_k=top_k, per_image=True)
    assert len(logits) > 1
    assert float(found) == pytest.approx(-sum(map(math.log, chosen)) / len(chosen))


def test_without_a_hard_pixel_nothing_is_lost() -> None:
    logits, labels = torch.zeros(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, dtype=torch.long)
    loss = bootstrapped_cross_entropy(logits, labels, threshold=0.4)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert bootstrapped_cross_entropy(logits, labels, threshold=0.6).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("num_logits", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_is_the_faded_mean(num_logits: int, gamma: float, weighted: bool) -> None:
    logits, labels = example(num_logits)
    weights = [0.5, 2.0, 1.5] if weighted else [1.0] * 3
    pixels = right_probabilities(logits, labels)
    total = sum(weights[label] * (1 - p) ** gamma * -math.log(p) for p, label in pixels)
    weight = torch.tensor(weights[: max(2, num_logits)]) if weighted else None
    found = focal_loss(logits, labels, gamma=gamma, weight=weight)
    assert float(found) == pytest.approx(total / sum(weights[label] for _, label in pixels), rel=1e-6)


def test_focal_loss_without_fading_is_cross_entropy() -> None:
    weight = torch.tensor([0.5, 2.0, 1.0])
    torch.testing.assert_close(
        focal_loss(*example(3), gamma=0, weight=weight), cross_entropy(*example(3), weight=weight)
    )


def test_focal_loss_is_that_of_other_peoples_code() -> None:
    """torchvision 0.26's sigmoid_focal_loss, segmentation_models.pytorch 0.6.0's FocalLoss("binary") and MONAI 1.6.1's
    FocalLoss(use_softmax=True), of whose pixels and classes the sum over classes was averaged."""
    one, three = example(1, ignored=False), example(3, ignored=False)
    assert float(focal_loss(*one, alpha=0.25)) == pytest.approx(0.2639067832649916, rel=1e-12)
    assert float(focal_loss(*one)) == pytest.approx(0.5627840014261585, rel=1e-12)
    assert float(focal_loss(*example(1))) == pytest.approx(0.5420140705186554, rel=1e-12)
    assert float(focal_loss(*three)) == pytest.approx(1.19122314453125, rel=1e-6)  # float32 there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": -1.0}, "found gamma -1.0, alpha None"),
        ({"gamma": float("nan")}, "found gamma nan"),
        ({"alpha": 1.5}, "gamma 2.0, alpha 1.5"),
        ({"alpha": 0.25}, "found 3 classes: give weight instead"),
        ({"alpha": 0.25, "weight": torch.ones(3)}, "found 3 classes and weights: give weight instead"),
    ],
)
def test_focal_numbers_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        focal_loss(*example(3), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, "threshold: expected a probability above 0 and at most 1, found 0.0"),
        ({"threshold": 1.2}, "threshold: .* found 1.2"),
        ({"top_k": 0}, "top_k: expected a number of pixels of at least 1, found 0"),
    ],
)
def test_bootstrapping_numbers_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrapped_cross_entropy(*example(3), **settings)  # type: ignore[arg-type]
