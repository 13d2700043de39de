"""What holds for every loss of pixels: what is ignored, what is empty, one logit for two classes, gradients, types."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from segpipe.losses import (
    bootstrapped_cross_entropy,
    boundary_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
    jaccard_loss,
    lovasz_loss,
    tversky_loss,
)
from tests.fixtures.pixel_losses import example

Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "cross entropy": cross_entropy,
    "bootstrapped, all": bootstrapped_cross_entropy,
    "bootstrapped, threshold": partial(bootstrapped_cross_entropy, threshold=0.6),
    "bootstrapped, top k": partial(bootstrapped_cross_entropy, top_k=9),
    "bootstrapped, both": partial(bootstrapped_cross_entropy, threshold=0.1, top_k=9),
    "focal": focal_loss,
    "focal, a root": partial(focal_loss, gamma=0.5),
    "dice": dice_loss,
    "dice, smooth": partial(dice_loss, smooth=1.0),
    "dice, per image": partial(dice_loss, per_image=True),
    "jaccard": jaccard_loss,
    "jaccard, smooth, per image": partial(jaccard_loss, smooth=0.5, per_image=True),
    "tversky": tversky_loss,
    "lovasz": lovasz_loss,
    "lovasz, per image": partial(lovasz_loss, per_image=True),
    "boundary": boundary_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
one_and_more_logits = pytest.mark.parametrize("num_logits", [1, 2, 3])


@every_loss
@one_and_more_logits
def test_where_all_is_ignored_nothing_is_lost_and_nothing_taught(loss: Loss, num_logits: int) -> None:
    logits = example(num_logits)[0].float().requires_grad_()
    found = loss(logits, torch.full((2, 5, 7), 255, dtype=torch.uint8))
    found.backward()
    assert found.shape == ()
    assert found.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_loss
@one_and_more_logits
@pytest.mark.parametrize("ignore_index", [255, -1, 7])
def test_ignored_pixels_neither_count_nor_learn(loss: Loss, num_logits: int, ignore_index: int) -> None:
    logits, labels = example(num_logits)
    ignored = labels == 255
    labels[ignored] = ignore_index
    other = torch.where(ignored[:, None], 1e4, logits).requires_grad_()
    found = loss(other, labels, ignore_index=ignore_index)
    torch.testing.assert_close(found, loss(logits, labels, ignore_index=ignore_index))
    (gradient,) = torch.autograd.grad(found, other)
    assert not gradient.movedim(1, -1)[ignored].any()
    assert gradient.movedim(1, -1)[~ignored].any()


@every_loss
@one_and_more_logits
def test_gradients_are_those_of_the_numbers(loss: Loss, num_logits: int) -> None:
    logits, labels = example(num_logits, shape=(2, 3, 4))
    assert torch.autograd.gradcheck(lambda given: loss(given, labels), (logits.requires_grad_(),))


@every_loss
@one_and_more_logits
def test_a_step_down_the_gradient_makes_the_loss_smaller(loss: Loss, num_logits: int) -> None:
    logits, labels = example(num_logits)
    before = loss(logits.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(before, logits)
    assert loss(logits - 0.01 * gradient / gradient.norm(), labels) < before


@every_loss
@one_and_more_logits
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32(loss: Loss, num_logits: int, dtype: torch.dtype) -> None:
    logits, labels = example(num_logits)
    narrow = logits.to(dtype)
    found = loss(narrow, labels.to(torch.uint8))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss(narrow.double(), labels), rtol=1e-5, atol=1e-6)


@every_loss
@one_and_more_logits
def test_surely_right_and_surely_wrong_are_finite_and_in_order(loss: Loss, num_logits: int) -> None:
    """Logits whose softmax is 0 and 1 in float32."""
    _, labels = example(num_logits, ignored=False)
    if num_logits == 1:
        right = (2.0 * labels - 1)[:, None] * 200
    else:
        right = 200.0 * torch.nn.functional.one_hot(labels, num_logits).movedim(-1, 1)
    found = []
    for logits in (right, right.roll(1, 1) if num_logits > 1 else -right):
        logits = logits.clone().requires_grad_()
        value = loss(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()
        found.append(float(value.detach()))
    assert found[0] < found[1]
    if loss is not boundary_loss:
        assert found[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith(("cross", "boot", "focal"))])
def test_one_logit_is_the_same_as_two_whose_difference_it_is(name: str) -> None:
    logits, labels = example(1)
    two = torch.cat([torch.full_like(logits, 0.4), logits + 0.4], dim=1)
    torch.testing.assert_close(LOSSES[name](logits, labels), LOSSES[name](two, labels))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0])])
def test_cross_entropy_of_one_logit_is_torchs_of_a_sigmoid(weight: Tensor | None) -> None:
    logits, labels = example(1, ignored=False)
    share = torch.ones_like(logits[:, 0]) if weight is None else weight.double()[labels]
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.double(), reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels, weight=weight), (entropy * share).sum() / share.sum())


@every_loss
@one_and_more_logits
def test_labels_beyond_the_classes_are_refused(loss: Loss, num_logits: int) -> None:
    logits, labels = example(num_logits)
    labels[0, 2, 2] = 3
    with pytest.raises((IndexError, RuntimeError)):
        loss(logits, labels)
