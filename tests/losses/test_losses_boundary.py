"""The boundary loss against distances that are measured pixel by pixel, and the numbers of the authors' formulas."""

import math

import pytest
import torch
from torch import Tensor

from segpipe.losses import boundary_loss
from tests.fixtures.pixel_losses import example


def slow_loss(logits: Tensor, labels: Tensor) -> float:
    num_images, num_logits, height, width = logits.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    total = 0.0
    for n in range(num_images):
        for k in range(num_logits):
            member = 1 if num_logits == 1 else k
            inside = [place for place in places if labels[n][place] == member]
            outside = [place for place in places if labels[n][place] not in (member, 255)]
            if not inside or not outside:
                continue
            for y, x in inside + outside:
                scores = logits[n, :, y, x]
                p = float(scores.sigmoid() if num_logits == 1 else scores.softmax(0)[k])
                if (y, x) in inside:
                    total -= p * (min(math.dist((y, x), other) for other in outside) - 1)
                else:
                    total += p * min(math.dist((y, x), other) for other in inside)
    return total / (int((labels != 255).sum()) * num_logits)


@pytest.mark.parametrize("num_logits", [1, 2, 4])
def test_each_probability_counts_by_its_distance_to_the_outline(num_logits: int) -> None:
    logits, labels = example(num_logits)
    labels[1][labels[1] == 1] = 0  # the second image is without class 1
    assert float(boundary_loss(logits, labels)) == pytest.approx(slow_loss(logits, labels))


def test_the_numbers_of_the_authors_code() -> None:
    """one_hot2dist of LIVIAETS/boundary-loss's utils.py and SurfaceLoss of its losses.py, of all classes of three, and
    with idc=[1] of two."""
    assert float(boundary_loss(*example(3, ignored=False))) == pytest.approx(0.28573216919949246, rel=1e-12)
    assert float(boundary_loss(*example(1, ignored=False))) == pytest.approx(0.26147959150772526, rel=1e-12)


def test_by_hand() -> None:
    """A row of five, the class in the middle three: distances 1 0 -1 0 1, each with p = 1/2."""
    labels = torch.tensor([[[0, 1, 1, 1, 0]]])
    assert float(boundary_loss(torch.zeros(1, 1, 1, 5), labels)) == pytest.approx(0.5 * (1 + 0 - 1 + 0 + 1) / 5)
    # An ignored pixel is nobody's: the first one is 2 from the class, whose own are 2, 3 and 4 from it, less 1.
    labels = torch.tensor([[[0, 255, 1, 1, 1]]])
    assert float(boundary_loss(torch.zeros(1, 1, 1, 5), labels)) == pytest.approx(0.5 * (2 - 1 - 2 - 3) / 4)


def test_an_image_of_one_class_has_no_outline() -> None:
    logits = torch.randn(1, 2, 3, 4, requires_grad=True)
    loss = boundary_loss(logits, torch.ones(1, 3, 4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
