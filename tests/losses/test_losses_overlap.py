"""Dice, Jaccard and Tversky against a slow, obvious version, a count by hand, and other people's numbers."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from segpipe.losses import dice_loss, jaccard_loss, tversky_loss
from tests.fixtures.pixel_losses import example


def slow_sums(logits: Tensor, labels: Tensor, images: list[int]) -> list[tuple[float, float, float]]:
    """Hits, false alarms and misses of each class that a probability is of, over the pixels of these images."""
    num_logits = logits.shape[1]
    sums = [[0.0, 0.0, 0.0] for _ in range(num_logits)]
    for n in images:
        for y in range(logits.shape[2]):
            for x in range(logits.shape[3]):
                label = int(labels[n, y, x])
                if label == 255:
                    continue
                scores = [math.exp(float(score)) for score in logits[n, :, y, x]]
                for k, score in enumerate(scores):
                    p = score / (1 + score) if num_logits == 1 else score / sum(scores)
                    is_member = label == (1 if num_logits == 1 else k)
                    sums[k][0] += p * is_member
                    sums[k][1] += p * (not is_member)
                    sums[k][2] += (1 - p) * is_member
    return [(hits, alarms, misses) for hits, alarms, misses in sums]


def slow_loss(
    logits: Tensor, labels: Tensor, index: Callable[[float, float, float], float], *, smooth: bool, per_image: bool
) -> float:
    images = range(len(labels))
    losses = []
    for part in [[n] for n in images] if per_image else [list(images)]:
        sums = slow_sums(logits, labels, part)
        of_classes = [1 - index(*each) for each in sums if smooth or each[0] + each[2] > 0]
        if of_classes:
            losses.append(sum(of_classes) / len(of_classes))
    return sum(losses) / len(losses)


def dice(hits: float, alarms: float, misses: float, s: float) -> float:
    return (2 * hits + s) / (2 * hits + alarms + misses + s)


def jaccard(hits: float, alarms: float, misses: float, s: float) -> float:
    return (hits + s) / (hits + alarms + misses + s)


def tversky(hits: float, alarms: float, misses: float, *, alpha: float, beta: float, s: float) -> float:
    return (hits + s) / (hits + alpha * alarms + beta * misses + s)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("num_logits", [1, 2, 4])
@pytest.mark.parametrize("smooth", [0.0, 0.7])
def test_each_index_is_that_of_the_sums(num_logits: int, smooth: float, per_image: bool) -> None:
    logits, labels = example(num_logits)
    labels[1][labels[1] == 1] = 0  # the second image is without class 1
    settings = {"smooth": smooth, "per_image": per_image}
    expected = {"smooth": smooth > 0, "per_image": per_image}
    wanted = slow_loss(logits, labels, partial(dice, s=smooth), **expected)
    assert float(dice_loss(logits, labels, **settings)) == pytest.approx(wanted)  # type: ignore[arg-type]
    wanted = slow_loss(logits, labels, partial(jaccard, s=smooth), **expected)
    assert float(jaccard_loss(logits, labels, **settings)) == pytest.approx(wanted)  # type: ignore[arg-type]
    for alpha, beta in ((0.3, 0.7), (0.0, 1.0), (2.0, 0.5)):
        wanted = slow_loss(logits, labels, partial(tversky, alpha=alpha, beta=beta, s=smooth), **expected)
        found = tversky_loss(logits, labels, alpha=alpha, beta=beta, **settings)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(wanted)


def test_by_hand() -> None:
    """Four pixels, p of class 1: 0.5 0.5 0.5 0.5, truth 1 1 1 0: hits 1.5, false alarms 0.5, misses 1.5."""
    logits, labels = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 1], [1, 0]]])
    assert float(dice_loss(logits, labels)) == pytest.approx(1 - 3 / 5)
    assert float(jaccard_loss(logits, labels)) == pytest.approx(1 - 1.5 / 3.5)
    assert float(tversky_loss(logits, labels)) == pytest.approx(1 - 1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 1.5))


def test_a_class_that_no_pixel_has_counts_with_smoothing_alone() -> None:
    logits, labels = example(3)
    labels[labels == 2] = 255
    two = slow_loss(logits, labels, partial(dice, s=0), smooth=False, per_image=False)
    assert float(dice_loss(logits, labels)) == pytest.approx(two)
    empty = torch.zeros(1, 2, 3, dtype=torch.long)
    assert float(dice_loss(torch.zeros(1, 1, 2, 3), empty)) == 0.0
    assert float(dice_loss(torch.zeros(1, 1, 2, 3), empty, smooth=1.0)) == pytest.approx(1 - 1 / (6 * 0.5 + 1))


def test_of_sure_answers_they_are_the_measures() -> None:
    """Of probabilities of 0 and 1, 1 - the loss is Dice and IoU as everybody counts them."""
    _, labels = example(3, ignored=False)
    said = torch.where((torch.arange(7) < 2) & (torch.arange(5)[:, None] > 0), (labels + 1) % 3, labels)
    logits = 400.0 * torch.nn.functional.one_hot(said, 3).movedim(-1, 1)
    common = [int(((said == k) & (labels == k)).sum()) for k in range(3)]
    either = [int(((said == k) | (labels == k)).sum()) for k in range(3)]
    assert float(jaccard_loss(logits, labels)) == pytest.approx(
        1 - sum(i / u for i, u in zip(common, either, strict=True)) / 3
    )
    assert float(dice_loss(logits, labels)) == pytest.approx(
        1 - sum(2 * i / (i + u) for i, u in zip(common, either, strict=True)) / 3
    )


def test_the_numbers_of_segmentation_models_pytorch() -> None:
    """Version 0.6.0: DiceLoss, JaccardLoss and TverskyLoss, "multiclass" and "binary"; only Jaccard cannot ignore."""
    assert float(dice_loss(*example(3))) == pytest.approx(0.6273011278298483, rel=1e-12)
    assert float(jaccard_loss(*example(3, ignored=False))) == pytest.approx(0.7636179452782708, rel=1e-12)
    assert float(tversky_loss(*example(3))) == pytest.approx(0.6247206933212407, rel=1e-12)
    assert float(dice_loss(*example(1))) == pytest.approx(0.5313784632612284, rel=1e-12)
    assert float(tversky_loss(*example(1))) == pytest.approx(0.5380201727593545, rel=1e-12)


def test_the_numbers_of_monai() -> None:
    """Version 1.6.1: DiceLoss(smooth_nr=1e-5, smooth_dr=1e-5) of each image, of a softmax and of a sigmoid, and
    TverskyLoss(alpha=0.3, beta=0.7, batch=True); computed in float32 there."""
    found = dice_loss(*example(3, ignored=False), smooth=1e-5, per_image=True)
    assert float(found) == pytest.approx(0.6219315841111972, rel=2e-6)
    found = dice_loss(*example(1, ignored=False), smooth=1e-5, per_image=True)
    assert float(found) == pytest.approx(0.5377278022071533, rel=2e-6)
    assert float(tversky_loss(*example(3, ignored=False))) == pytest.approx(0.619992244876146, rel=2e-6)


@pytest.mark.parametrize("settings", [{"smooth": -1.0}, {"alpha": -0.1}, {"alpha": 0.0, "beta": 0.0}])
def test_numbers_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected alpha and beta of at least 0, one of them above, and smooth"):
        tversky_loss(*example(3), **settings)  # type: ignore[arg-type]
