"""Cross entropy of coarse logits against what it stands for: torch's interpolation and cross entropy, one by one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from segpipe.losses import coarse, cross_entropy
from segpipe.losses.coarse import FEWEST_CLASSES, coarse_cross_entropy

K = FEWEST_CLASSES + 1
SIZES = [
    ((1, 1), (5, 7)),
    ((3, 4), (5, 7)),
    ((4, 4), (32, 16)),
    ((9, 5), (4, 3)),
    ((2, 7), (11, 7)),
    ((6, 3), (6, 10)),
    ((1, 9), (1, 1)),
]
every_size = pytest.mark.parametrize(("coarse_size", "size"), SIZES)


@pytest.fixture(params=[1, 3 * K * 7, 2**17], ids=["a row at once", "some rows", "images at once"])
def strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "NUMBERS_AT_ONCE", request.param)


def example(given: tuple[int, int], size: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    logits_NKhw = 3 * torch.randn(3, K, *given, generator=draw, dtype=torch.float64)
    labels_NHW = torch.randint(0, K, (3, *size), generator=draw)
    labels_NHW[torch.rand(3, *size, generator=draw) < 0.3] = 255
    labels_NHW[0, 0, 0] = 2
    return logits_NKhw.to(dtype).requires_grad_(), labels_NHW


def torchs(logits_NKhw: Tensor, labels_NHW: Tensor, weight: Tensor | None = None) -> Tensor:
    logits_NKHW = functional.interpolate(logits_NKhw, size=labels_NHW.shape[1:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(logits_NKHW, labels_NHW, weight=weight, ignore_index=255)


@every_size
@pytest.mark.parametrize("weight", [None, torch.linspace(0.1, 3, K)], ids=["plain", "weighted"])
@pytest.mark.usefixtures("strips")
def test_value_and_gradient_are_those_of_interpolation_and_cross_entropy(
    coarse_size: tuple[int, int], size: tuple[int, int], weight: Tensor | None
) -> None:
    logits, labels = example(coarse_size, size)
    found = cross_entropy(logits, labels, weight=weight, size=size)
    expected = torchs(logits, labels, None if weight is None else weight.double())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (ours,), (theirs,) = (torch.autograd.grad(each, logits) for each in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-15)


@every_size
def test_float32_is_as_close_as_its_rounding(coarse_size: tuple[int, int], size: tuple[int, int]) -> None:
    """Of both ways the error is measured against float64: the strips' is no more than what torch's comes to."""
    exact_logits, labels = example(coarse_size, size)
    exact = torch.autograd.grad(torchs(exact_logits, labels), exact_logits)[0]
    logits = exact_logits.detach().float().requires_grad_()
    found = cross_entropy(logits, labels, size=size)
    torch.testing.assert_close(found.double(), torchs(exact_logits, labels), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=3e-6 * float(exact.abs().max()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_half_precision_is_resized_and_compared_in_float32(memory_format: torch.memory_format) -> None:
    """Also under autocast, which would multiply in half precision. The gradient has the logits' type."""
    logits, labels = example((4, 4), (32, 16), torch.bfloat16)
    given = logits.detach().contiguous(memory_format=memory_format).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cross_entropy(given, labels, size=(32, 16))
    exact = logits.detach().double().requires_grad_()
    torch.testing.assert_close(found, torchs(exact, labels).float(), rtol=1e-6, atol=0)
    (ours,), (theirs,) = torch.autograd.grad(found, given), torch.autograd.grad(torchs(exact, labels), exact)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs.bfloat16(), rtol=2**-7, atol=1e-6)


def test_gradients_are_those_of_the_numbers() -> None:
    logits, labels = example((2, 3), (3, 4))
    share = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = labels.masked_fill(labels == 255, 0)
    assert torch.autograd.gradcheck(lambda given: coarse_cross_entropy(given, labels, share), (logits,))


def test_without_a_gradient_none_is_made_and_the_value_is_the_same() -> None:
    logits, labels = example((4, 4), (32, 16))
    with torch.no_grad():
        found = cross_entropy(logits.detach(), labels, size=(32, 16))
    assert not found.requires_grad
    torch.testing.assert_close(found, cross_entropy(logits, labels, size=(32, 16)).detach())


@pytest.mark.parametrize("num_classes", [1, 2, FEWEST_CLASSES - 1])
def test_of_few_classes_it_is_the_same(num_classes: int) -> None:
    logits, labels = example((3, 4), (5, 7))
    logits, labels = logits[:, :num_classes], labels.masked_fill((labels >= max(2, num_classes)) & (labels < 255), 1)
    expected = torchs(functional.pad(logits, (0, 0, 0, 0, 1, 0)) if num_classes == 1 else logits, labels)
    torch.testing.assert_close(cross_entropy(logits, labels, size=(5, 7)), expected)


def test_far_apart_logits_are_finite() -> None:
    """Between two cells each sure of a class of its own, where the other one vanishes in float32."""
    logits = torch.full((1, K, 1, 2), -200.0)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 200.0
    found = cross_entropy(logits.requires_grad_(), torch.full((1, 4, 8), 2), size=(4, 8))
    found.backward()
    torch.testing.assert_close(found.detach(), torchs(logits.detach().double(), torch.full((1, 4, 8), 2)).float())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_all_ignored_costs_nothing_and_teaches_nothing() -> None:
    logits, _ = example((4, 4), (32, 16), torch.float32)
    found = cross_entropy(logits, torch.full((3, 32, 16), 255), size=(32, 16))
    found.backward()
    assert found.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("size", [(32, 15), (4, 4)])
def test_labels_of_another_size_are_refused(size: tuple[int, int]) -> None:
    logits, labels = example((4, 4), (32, 16))
    with pytest.raises((ValueError, RuntimeError), match="size"):
        cross_entropy(logits, labels, size=size)


def test_labels_beyond_the_classes_are_refused() -> None:
    logits, labels = example((4, 4), (32, 16))
    labels[1, 20, 3] = K
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        cross_entropy(logits, labels, size=(32, 16))


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            self.numbers = max(self.numbers, each.numel() if isinstance(each, Tensor) else 0)
        return made


def test_nothing_of_the_labels_size_is_made_for_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "NUMBERS_AT_ONCE", 4 * K * 64)
    logits, labels = example((8, 8), (64, 64))
    with Largest() as largest:
        cross_entropy(logits, labels, size=(64, 64)).backward()
    # The coarse rows at the labels' width are an eighth of one image; the rest is of strips, or has no classes.
    assert largest.numbers == max(K * 8 * 64, labels.numel())


def test_elsewhere_than_on_a_cpu_it_is_torchs() -> None:
    """No number of a GPU speaks for strips yet."""
    with torch.device("meta"), Largest() as largest:
        cross_entropy(torch.zeros(1, K, 2, 2), torch.zeros(1, 8, 8, dtype=torch.int64), size=(8, 8))
    assert largest.numbers == K * 8 * 8
