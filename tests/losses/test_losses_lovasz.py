"""The Lovasz losses against the definition of the extension, the measure itself, the authors' numbers."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from segpipe.losses import lovasz_loss
from tests.fixtures.pixel_losses import example


def slow_extension(errors: list[float], members: list[bool]) -> float:
    """The definition in Berman et al.: errors from the largest down, each times what its pixel, joining the wrong ones,
    adds to the loss of the set: 1 - |members without the wrong| / |members with the wrong|."""

    def set_loss(wrong: list[int]) -> Fraction:
        hits = sum(is_member and i not in wrong for i, is_member in enumerate(members))
        either = sum(is_member or i in wrong for i, is_member in enumerate(members))
        return 1 - Fraction(hits, either) if either else Fraction(0)

    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    losses = [set_loss(order[:count]) for count in range(len(order) + 1)]
    return sum(errors[i] * float(after - before) for i, (before, after) in zip(order, pairwise(losses), strict=True))


def slow_lovasz(logits: Tensor, labels: Tensor) -> float:
    counted = labels != 255
    scores, truth = logits.movedim(1, -1)[counted], labels[counted].tolist()
    if logits.shape[1] == 1:
        errors = [max(0.0, 1 - float(s) * (1 if t == 1 else -1)) for s, t in zip(scores[:, 0], truth, strict=True)]
        return slow_extension(errors, [t == 1 for t in truth])
    losses = []
    for k in sorted(set(truth)):
        errors = [abs((t == k) - float(p)) for p, t in zip(scores.softmax(1)[:, k], truth, strict=True)]
        losses.append(slow_extension(errors, [t == k for t in truth]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_logits", [1, 2, 4])
def test_the_loss_is_the_extension_of_the_set_function(num_logits: int) -> None:
    logits, labels = example(num_logits)
    labels[1][labels[1] == 1] = 0
    assert float(lovasz_loss(logits, labels)) == pytest.approx(slow_lovasz(logits, labels))
    expected = sum(slow_lovasz(logits[n : n + 1], labels[n : n + 1]) for n in range(2)) / 2
    assert float(lovasz_loss(logits, labels, per_image=True)) == pytest.approx(expected)
    labels[0] = 255
    assert float(lovasz_loss(logits, labels, per_image=True)) == pytest.approx(slow_lovasz(logits[1:], labels[1:]))


def test_the_numbers_of_the_authors_code() -> None:
    """lovasz_losses.py of bermanmaxim/LovaszSoftmax, as segmentation_models.pytorch 0.6.0 carries it; in float32."""
    assert float(lovasz_loss(*example(3))) == pytest.approx(0.698754608631134, rel=1e-6)
    assert float(lovasz_loss(*example(3), per_image=True)) == pytest.approx(0.6972082257270813, rel=1e-6)
    assert float(lovasz_loss(*example(1))) == pytest.approx(1.7937836647033691, rel=1e-6)
    assert float(lovasz_loss(*example(1), per_image=True)) == pytest.approx(1.7851006984710693, rel=1e-6)


def test_of_sure_answers_it_is_one_minus_the_iou() -> None:
    _, labels = example(3, ignored=False)
    said = torch.where(torch.arange(7) < 2, (labels + 1) % 3, labels)
    logits = 400.0 * torch.nn.functional.one_hot(said, 3).movedim(-1, 1)
    ious = [float(((said == k) & (labels == k)).sum() / ((said == k) | (labels == k)).sum()) for k in range(3)]
    assert float(lovasz_loss(logits, labels)) == pytest.approx(1 - sum(ious) / 3)


def test_a_million_pixels_leave_the_digits_that_float32_has() -> None:
    """Neighbouring values of 1 - IoU, subtracted, were off by 2 % (median) and up to 210-fold; so was the gradient."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (1, 1000, 1000), generator=draw)
    logits = (3 * torch.randn(1, 2, 1000, 1000, generator=draw)).requires_grad_()
    precise = logits.detach().double().requires_grad_()
    found, expected = lovasz_loss(logits, labels), lovasz_loss(precise, labels)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=0)
    (ours,), (theirs,) = torch.autograd.grad(found, logits), torch.autograd.grad(expected, precise)
    # Where float32 sorts two nearly equal errors the other way round, their two steps change places.
    assert ((ours - theirs).abs() > 1e-4 * theirs.abs() + 1e-12).float().mean() < 0.01
